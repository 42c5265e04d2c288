// Ctrl-C and SIGTERM ask a run to stop after the step it is in.
#pragma once

namespace binade::train {

// Catches SIGINT and SIGTERM while alive. A second signal ends the process at once.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  static bool requested();
  static int number();  // the signal, or 0
};

}  // namespace binade::train
