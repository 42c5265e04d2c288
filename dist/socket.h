// INTERNAL
// TCP sockets with deadlines. Nothing here waits for longer than it was told.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace binade::dist {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

inline Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}
inline Deadline after(double seconds) {
  return Clock::now() + duration_of(seconds);
}
int milliseconds_to(Deadline deadline);  // for poll(); 0 when it is past

// Owner of a descriptor, which it closes.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();
  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }

 private:
  int descriptor_ = -1;
};

// A pipe; both ends close with it. `flags` as of pipe2(), close-on-exec in any case. Throws Error.
struct Pipe {
  explicit Pipe(int flags = 0);
  void wake() const;   // makes `out` readable
  void drain() const;  // not any more; for one that does not block
  Socket out, in;
};

// Listens on this port of all addresses, or of the loopback alone; port 0: a free one. Throws
// Error.
Socket listen_on(int port, bool loopback = false);
int port_of(const Socket& listener);
// The next connection; nothing when none came in time.
std::optional<Socket> accept_from(const Socket& listener, Deadline deadline);
// Tries until the deadline, as the other side may not listen yet; throws Error with the last
// reason.
Socket connect_to(const std::string& host, int port, Deadline deadline);

// A message is a list of texts, at most kLargestMessage bytes with their lengths.
using Message = std::vector<std::string>;
inline constexpr size_t kLargestMessage = 1 << 20;
// Throws Error when the connection ended or it took too long.
void send_message(const Socket& socket, const Message& message, Deadline deadline);
Message receive_message(const Socket& socket, Deadline deadline);
// Takes a whole message off the front of what was received; nothing if there is none yet. Throws
// Error for bytes that are none.
std::optional<Message> take_message(std::string& received);

}  // namespace binade::dist
