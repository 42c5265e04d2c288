// INTERNAL. Starts the ranks of a run as processes on this host, and stays with them: what
// binade-run does.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace binade::dist {

struct LocalRanks {
  int ranks = 1;
  std::vector<std::string> command;  // program and arguments; the program is looked up in PATH
  int restarts = 0;                  // a run that failed is started again so many times
  std::optional<int> join_seconds;   // BINADE_JOIN_SECONDS of the ranks
  double grace_seconds = 15;         // from the first failure until the other ranks are killed
};

// Runs until all ranks have ended. Lines of what they write go to standard output and error, behind
// "[rank] " where there are several; the first failure is repeated last. SIGINT, SIGTERM and SIGHUP
// are passed on. OMP_NUM_THREADS, if it is not set, becomes each rank's share of the processors.
// Returns the exit status of the rank that failed first (128 + the signal that ended it), or 0.
// Throws Error when the program cannot be started.
int run_local_ranks(const LocalRanks& options);

}  // namespace binade::dist
