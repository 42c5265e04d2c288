// Which signals stop a run after its step, and what is put back afterwards. Every case is a process
// of its own that begins with the default actions, as a program does.
#include <binade/train/signals.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <functional>
#include <set>
#include <string>

using namespace binade;

namespace {

// signal(7), "Standard signals": those whose default action is Term or Core, but for SIGKILL.
const std::set<int> kEnding = {SIGABRT, SIGALRM,   SIGBUS,    SIGFPE,  SIGHUP,  SIGILL,
                               SIGINT,  SIGIO,     SIGPIPE,   SIGPROF, SIGPWR,  SIGQUIT,
                               SIGSEGV, SIGSYS,    SIGSTKFLT, SIGTERM, SIGTRAP, SIGUSR1,
                               SIGUSR2, SIGVTALRM, SIGXCPU,   SIGXFSZ};
const std::set<int> kFaults = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
const std::set<int> kOfWrites = {SIGPIPE, SIGXFSZ};

// The wait status of a process that runs `body`; it exits with what `body` returns.
int status_of(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    for (int number = 1; number <= SIGRTMAX; ++number) std::signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    _exit(body());
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

bool exits_with(int status, int code) {
  return WIFEXITED(status) && WEXITSTATUS(status) == code;
}
bool killed_by(int status, int number) {
  return WIFSIGNALED(status) && WTERMSIG(status) == number;
}

void (*handler_of(int number))(int) {
  struct sigaction action {};
  sigaction(number, nullptr, &action);
  return action.sa_handler;
}

void of_the_host(int) {}

}  // namespace

TEST_CASE("every signal that ends a process stops a run after its step", "[train][signals]") {
  std::set<int> all = kEnding;
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) all.insert(number);
  for (const int number : all) {
    INFO("signal " << number << " " << strsignal(number));
    CHECK(killed_by(status_of([&] { return std::raise(number); }), number));  // the table is right
    const int status = status_of([&] {
      const train::StopSignals signals;
      if (train::StopSignals::requested()) return 1;
      std::raise(number);
      if (kOfWrites.contains(number)) return train::StopSignals::requested() ? 2 : 0;
      return train::StopSignals::requested() && train::StopSignals::number() == number ? 0 : 3;
    });
    if (kFaults.contains(number))
      CHECK(killed_by(status, number));
    else
      CHECK(exits_with(status, 0));
  }
}

TEST_CASE("an ignored signal stays ignored, as nohup wants it", "[train][signals]") {
  for (const int number : kEnding) {
    if (kFaults.contains(number)) continue;
    INFO("signal " << number);
    CHECK(exits_with(status_of([&] {
                       std::signal(number, SIG_IGN);
                       const train::StopSignals signals;
                       std::raise(number);
                       return train::StopSignals::requested() ? 1 : 0;
                     }),
                     0));
  }
}

TEST_CASE("the host's actions are put back after a run", "[train][signals]") {
  for (void (*before)(int) : {SIG_DFL, SIG_IGN, of_the_host}) {
    CHECK(exits_with(status_of([&] {
                       for (const int number : kEnding) std::signal(number, before);
                       {
                         const train::StopSignals outer;
                         const train::StopSignals inner;
                         std::raise(SIGTERM);
                       }
                       for (const int number : kEnding)
                         if (handler_of(number) != before) return number;
                       return 0;
                     }),
                     0));
  }
}

TEST_CASE("handlers of the host for signals of its own stay during a run", "[train][signals]") {
  CHECK(exits_with(status_of([] {
                     const std::set<int> own = {SIGPIPE, SIGXFSZ, SIGUSR1, SIGUSR2,
                                                SIGALRM, SIGPROF, SIGIO,   SIGRTMIN};
                     for (const int number : own) std::signal(number, of_the_host);
                     const train::StopSignals signals;
                     for (const int number : own)
                       if (handler_of(number) != of_the_host) return number;
                     return 0;
                   }),
                   0));
}

TEST_CASE("a second request ends the process, a repeated one does not", "[train][signals]") {
  constexpr useconds_t kLater = 600'000;
  for (const int number : {SIGINT, SIGTERM, SIGQUIT}) {
    INFO("signal " << number);
    // `timeout` sends its signal to the process and then to its group.
    CHECK(exits_with(status_of([&] {
                       const train::StopSignals signals;
                       std::raise(number);
                       std::raise(number);
                       return 0;
                     }),
                     0));
    CHECK(killed_by(status_of([&] {
                      const train::StopSignals signals;
                      std::raise(SIGHUP);
                      usleep(kLater);
                      std::raise(number);
                      return 0;
                    }),
                    number));
  }
  for (const int number : {SIGHUP, SIGXCPU, SIGUSR1}) {  // SIGXCPU comes every second
    INFO("signal " << number);
    CHECK(exits_with(status_of([&] {
                       const train::StopSignals signals;
                       std::raise(number);
                       usleep(kLater);
                       std::raise(number);
                       return train::StopSignals::requested() ? 0 : 1;
                     }),
                     0));
  }
}
