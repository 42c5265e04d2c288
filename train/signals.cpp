#include <binade/train/signals.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <iterator>
#include <utility>

namespace binade::train {

namespace {

// Those that someone sends to end the program; of them, a second one is obeyed at once.
constexpr int kRequests[] = {SIGINT, SIGQUIT, SIGTERM};
// Those that end it as plainly, and may come again before the step is over (SIGXCPU comes every
// second).
constexpr int kCircumstances[] = {SIGHUP, SIGXCPU};
// The rest of signal(7)'s table whose default is to end the process, without the faults (SIGSEGV,
// SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGABRT), after which nothing can be saved.
constexpr int kOthers[] = {SIGALRM,  SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2, SIGIO, SIGPWR,
#ifdef SIGSTKFLT
                           SIGSTKFLT
#endif
};
constexpr int64_t kSecondAfter = 500'000'000;  // ns

std::atomic<int> received{0};
std::atomic<int64_t> received_at{0};  // ns; 0: none was
std::atomic<int> alive{0};            // StopSignals

static_assert(std::atomic<int64_t>::is_always_lock_free, "the handler may not wait for a lock");

int64_t now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);  // safe in a signal handler
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// May run in two threads at once, and within itself for another signal.
void on_signal(int number) {
  const int64_t time = now();
  int64_t first = 0;
  if (received_at.compare_exchange_strong(first, time)) {
    received = number;
    return;
  }
  const bool request =
      std::find(std::begin(kRequests), std::end(kRequests), number) != std::end(kRequests);
  if (!request || time - first < kSecondAfter) return;
  std::signal(number, SIG_DFL);
  std::raise(number);
}

bool has_handler(const struct sigaction& action, void (*handler)(int)) {
  return (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == handler;
}

// Sets the handler unless `stays` says of the present action that it should be left.
template <class Stays>
void take(int number, void (*handler)(int), Stays stays,
          std::vector<std::pair<int, struct sigaction>>& before) {
  struct sigaction present {};
  if (sigaction(number, nullptr, &present) != 0 || stays(present)) return;
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  if (sigaction(number, &action, nullptr) == 0) before.emplace_back(number, present);
}

void put_back(const std::vector<std::pair<int, struct sigaction>>& before) {
  for (const auto& [number, action] : before) sigaction(number, &action, nullptr);
}

bool is_ignored(const struct sigaction& action) {
  return has_handler(action, SIG_IGN);
}
bool is_not_default(const struct sigaction& action) {
  return !has_handler(action, SIG_DFL);
}

}  // namespace

FailingWrites::FailingWrites() {
  for (const int number : {SIGPIPE, SIGXFSZ}) take(number, SIG_IGN, is_not_default, before_);
}

FailingWrites::~FailingWrites() {
  put_back(before_);
}

StopSignals::StopSignals() {
  if (alive++ == 0) {
    received = 0;
    received_at = 0;
  }
  for (const int number : kRequests) take(number, on_signal, is_ignored, before_);
  for (const int number : kCircumstances) take(number, on_signal, is_ignored, before_);
  for (const int number : kOthers) take(number, on_signal, is_not_default, before_);
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number)
    take(number, on_signal, is_not_default, before_);
}

StopSignals::~StopSignals() {
  put_back(before_);
  --alive;
}

bool StopSignals::requested() {
  return received != 0;
}
int StopSignals::number() {
  return received;
}

}  // namespace binade::train
