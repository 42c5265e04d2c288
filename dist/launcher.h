// INTERNAL. Starts the ranks of a run as processes, on this host or several, and stays with them:
// what binade-run does.
#pragma once

#include <string>
#include <vector>

#include <binade/dist/launch.h>

namespace binade::dist {

struct RunOptions {
  int ranks = 1;
  std::vector<std::string> command;  // program and arguments; the program is looked up in PATH
  // None: this host alone. Otherwise each gets as many ranks as the others, in order, through ssh
  // where it is not this one.
  std::vector<std::string> hosts;
  // Under which other hosts reach this one. Empty: the address that it has towards the first.
  std::string address;
  int restarts = 0;  // a run that failed is started again so many times
  Limits limits;
  double grace_seconds = 15;  // from the first failure until the other ranks are killed
};

// Runs until all ranks have ended. Lines of what they write go to standard output and error, behind
// "[rank] " where there are several; the first failure is repeated last. SIGINT, SIGTERM and SIGHUP
// are passed on. OMP_NUM_THREADS, if it is not set, becomes each rank's share of this host's
// processors. Returns the exit status of the rank that failed first (128 + the signal that ended
// it), or 0. Throws Error when the program cannot be started, or hosts do not go into the ranks.
int run_ranks(const RunOptions& options);

}  // namespace binade::dist
