// A disk that is full as soon as a file would grow past some bytes: writes fail as on a full one.
#pragma once

#include <sys/resource.h>

#include <csignal>

#include <binade/core/error.h>

namespace binade::test {

// For the whole process while it lives; files that are longer already cannot be appended to.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    // As in a program that does nothing about it: whoever writes must see to that. (A parent may
    // have had it ignored, as Python has.)
    previous_handler_ = std::signal(SIGXFSZ, SIG_DFL);
    check(getrlimit(RLIMIT_FSIZE, &previous_) == 0, "cannot read the limit of file sizes");
    const rlimit limit{bytes, previous_.rlim_max};
    check(setrlimit(RLIMIT_FSIZE, &limit) == 0, "cannot limit file sizes");
  }
  ~SmallDisk() {
    setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, previous_handler_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

 private:
  rlimit previous_{};
  void (*previous_handler_)(int);
};

}  // namespace binade::test
