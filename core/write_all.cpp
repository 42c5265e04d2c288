#include <binade/core/write_all.h>

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <initializer_list>

namespace binade {

namespace {

// Both signals go to the thread that writes, so holding them back there concerns nobody else.
class HeldBack {
 public:
  HeldBack() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGXFSZ);
    sigaddset(&signals_, SIGPIPE);
    sigpending(&pending_);
    pthread_sigmask(SIG_BLOCK, &signals_, &mask_);
  }
  ~HeldBack() {
    const int reason = errno;
    for (const int number : {SIGXFSZ, SIGPIPE}) {
      if (sigismember(&pending_, number) == 1) continue;  // it came before, from elsewhere
      sigset_t one;
      sigemptyset(&one);
      sigaddset(&one, number);
      const timespec no_wait{};
      while (sigtimedwait(&one, nullptr, &no_wait) < 0 && errno == EINTR) {
      }
    }
    pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
    errno = reason;
  }
  HeldBack(const HeldBack&) = delete;
  HeldBack& operator=(const HeldBack&) = delete;

 private:
  sigset_t signals_{}, pending_{}, mask_{};
};

}  // namespace

bool write_all(int descriptor, const void* data, size_t bytes) {
  const HeldBack signals;
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(descriptor, from, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;
    from += done;
    bytes -= static_cast<size_t>(done);
  }
  return true;
}

}  // namespace binade
