// What a run does about the signals whose default action would end it without a checkpoint
// (signal(7) lists them).
#pragma once

#include <csignal>
#include <utility>
#include <vector>

namespace binade::train {

// A reader that goes away (SIGPIPE) and the limit of file sizes (SIGXFSZ) end a process by default.
// While this lives they are ignored instead, so that the write fails with EPIPE or EFBIG, which
// comes out as an Error. A handler of the host program stays.
class FailingWrites {
 public:
  FailingWrites();
  ~FailingWrites();
  FailingWrites(const FailingWrites&) = delete;
  FailingWrites& operator=(const FailingWrites&) = delete;

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

// While this lives, a signal that would end the process asks the run to stop after the step it is
// in; writes fail as above.
//
// - SIGINT (Ctrl-C), SIGQUIT, SIGTERM, SIGHUP (the terminal went away) and SIGXCPU (the soft limit
//   of processor time) are caught unless they were ignored before, as nohup ignores SIGHUP.
// - The others that end a process without being a fault of its own (SIGUSR1, which batch systems
//   send ahead of time, SIGALRM, SIGPWR, real-time signals, …) are caught where the host program
//   has left them at their default.
//
// A second SIGINT, SIGQUIT or SIGTERM ends the process at once if it comes at least half a second
// after the first signal: `timeout` and some shells send theirs twice in a row.
//
// What was there before is put back at the end. Not for two threads at the same time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  static bool requested();
  static int number();  // the first signal, or 0

 private:
  FailingWrites failing_writes_;
  std::vector<std::pair<int, struct sigaction>> before_;
};

}  // namespace binade::train
