#include <binade/train/signals.h>

#include <atomic>
#include <csignal>

namespace binade::train {

namespace {

std::atomic<int> received{0};
struct sigaction previous_int, previous_term;

void on_signal(int number) {
  if (received.exchange(number) != 0) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}

}  // namespace

StopSignals::StopSignals() {
  received = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &previous_int);
  sigaction(SIGTERM, &action, &previous_term);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &previous_int, nullptr);
  sigaction(SIGTERM, &previous_term, nullptr);
}

bool StopSignals::requested() {
  return received != 0;
}
int StopSignals::number() {
  return received;
}

}  // namespace binade::train
