// Tests often run as root, whom no file mode keeps out.
#pragma once

#include <unistd.h>

namespace binade::test {

// While it lives, the process has the rights of a user who owns nothing, if it had root's.
class Unprivileged {
 public:
  Unprivileged() : before_(::geteuid()) {
    if (before_ == 0 && ::seteuid(kNobody) != 0) ::_exit(1);
  }
  ~Unprivileged() {
    if (before_ == 0 && ::seteuid(before_) != 0) ::_exit(1);
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  static constexpr uid_t kNobody = 65534;
  uid_t before_;
};

}  // namespace binade::test
