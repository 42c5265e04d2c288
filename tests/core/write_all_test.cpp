// Writes that fail come back with a reason, whatever the program made of the signals.
#include <binade/core/write_all.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <string>

#include "temporary_folder.h"

using namespace binade;

namespace {

// The default action of a signal, which ends the process, while it lives.
class Default {
 public:
  explicit Default(int number) : number_(number), before_(std::signal(number, SIG_DFL)) {}
  ~Default() { std::signal(number_, before_); }
  Default(const Default&) = delete;
  Default& operator=(const Default&) = delete;

 private:
  int number_;
  void (*before_)(int);
};

bool pending(int number) {
  sigset_t set;
  sigpending(&set);
  return sigismember(&set, number) == 1;
}

}  // namespace

TEST_CASE("a pipe without a reader is an error, not the end", "[file]") {
  const Default signal(SIGPIPE);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  ::close(ends[0]);
  CHECK(!write_all(ends[1], "abc", 3));
  CHECK(errno == EPIPE);
  CHECK(!pending(SIGPIPE));
  ::close(ends[1]);
}

TEST_CASE("the limit of file sizes is an error, not the end", "[file]") {
  const Default signal(SIGXFSZ);
  const test::TemporaryFolder folder;
  const int file = ::open((folder / "file").c_str(), O_WRONLY | O_CREAT, 0644);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit tight{10, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
  const bool written = write_all(file, "more than ten bytes", 19);
  const int reason = errno;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(!written);
  CHECK(reason == EFBIG);
  CHECK(!pending(SIGXFSZ));
  CHECK(write_all(file, "more than ten bytes", 19));
  ::close(file);
}

TEST_CASE("a signal that came before a write stays", "[file]") {
  const Default signal(SIGPIPE);
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  pthread_kill(pthread_self(), SIGPIPE);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  CHECK(write_all(ends[1], "abc", 3));
  CHECK(pending(SIGPIPE));
  int received = 0;
  CHECK((sigwait(&set, &received) == 0 && received == SIGPIPE));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::close(ends[0]);
  ::close(ends[1]);
}
