#include <binade/dist/socket.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include <binade/core/error.h>

namespace binade::dist {

namespace {

constexpr int kNetworkSeconds = 20;

void prepare(int descriptor) {
  const auto set = [&](int level, int option, int value) {
    ::setsockopt(descriptor, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  // A network that is gone ends the connection, though nobody closed it.
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kNetworkSeconds / 2);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kNetworkSeconds / 4);
  set(IPPROTO_TCP, TCP_KEEPCNT, 2);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kNetworkSeconds * 1000);
  ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) | O_NONBLOCK);
  ::fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}

// Waits for the event; false when it did not come in time.
bool wait_for(const Socket& socket, short event, Deadline deadline) {
  for (;;) {
    pollfd entry{socket.get(), event, 0};
    const int count = ::poll(&entry, 1, milliseconds_to(deadline));
    if (count > 0) return true;
    if (count == 0 && Clock::now() >= deadline) return false;
    check(count == 0 || errno == EINTR, "poll: ", std::strerror(errno));
  }
}

void append(std::string& bytes, size_t number) {
  for (int shift = 0; shift < 32; shift += 8)
    bytes += static_cast<char>(static_cast<uint32_t>(number) >> shift);
}

size_t number_at(const std::string& bytes, size_t at) {
  uint32_t number = 0;
  for (size_t i = 0; i < 4; ++i)
    number |= uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return number;
}

// One attempt; sets `reason` where it fails.
Socket try_to_connect(const addrinfo& where, Deadline deadline, std::string& reason) {
  Socket socket(::socket(where.ai_family, SOCK_STREAM, 0));
  if (!socket) {
    reason = std::strerror(errno);
    return {};
  }
  prepare(socket.get());
  int status = ::connect(socket.get(), where.ai_addr, where.ai_addrlen) == 0 ? 0 : errno;
  if (status == EINPROGRESS) {
    if (!wait_for(socket, POLLOUT, deadline)) {
      reason = "no answer";
      return {};
    }
    socklen_t size = sizeof status;
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &status, &size);
  }
  if (status == 0) return socket;
  reason = std::strerror(status);
  return {};
}

}  // namespace

int milliseconds_to(Deadline deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left + 1, 0, 60000));
}

Socket::Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Socket::~Socket() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Pipe::Pipe(int flags) {
  int ends[2];
  const int status = ::pipe2(ends, O_CLOEXEC | flags);
  check(status == 0, "cannot make a pipe: ", std::strerror(errno));
  out = Socket(ends[0]);
  in = Socket(ends[1]);
}

void Pipe::wake() const {
  [[maybe_unused]] const ssize_t ignored = ::write(in.get(), "x", 1);
}

void Pipe::drain() const {
  char buffer[64];
  while (::read(out.get(), buffer, sizeof buffer) > 0) {
  }
}

Socket listen_on(int port, bool loopback) {
  Socket socket(::socket(AF_INET, SOCK_STREAM, 0));
  check(static_cast<bool>(socket), "cannot make a socket: ", std::strerror(errno));
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
  const bool listens =
      ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      ::listen(socket.get(), SOMAXCONN) == 0;
  check(listens, "cannot listen on port ", port, ": ", std::strerror(errno));
  return socket;
}

int port_of(const Socket& listener) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  const int status = ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  check(status == 0, "a socket has no port: ", std::strerror(errno));
  return ntohs(address.sin_port);
}

std::optional<Socket> accept_from(const Socket& listener, Deadline deadline) {
  while (wait_for(listener, POLLIN, deadline)) {
    Socket socket(::accept(listener.get(), nullptr, nullptr));
    if (socket) {
      prepare(socket.get());
      return socket;
    }
    // The other side may have gone already.
    check(errno == ECONNABORTED || errno == EINTR || errno == EAGAIN,
          "accept: ", std::strerror(errno));
  }
  return {};
}

Socket connect_to(const std::string& host, int port, Deadline deadline) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  std::string reason;
  for (;;) {
    addrinfo* found = nullptr;
    const int status = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
    if (status != 0) reason = ::gai_strerror(status);
    for (const addrinfo* where = found; status == 0 && where != nullptr; where = where->ai_next)
      if (Socket socket = try_to_connect(*where, deadline, reason)) return socket;
    if (Clock::now() >= deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  fail("cannot reach ", host, " on port ", port, ": ", reason);
}

void send_message(const Socket& socket, const Message& message, Deadline deadline) {
  std::string body;
  for (const std::string& text : message) {
    append(body, text.size());
    body += text;
  }
  check(body.size() <= kLargestMessage, "a message of ", body.size(), " bytes is too large");
  std::string bytes;
  append(bytes, body.size());
  bytes += body;
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count =
        ::send(socket.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count >= 0) {
      sent += static_cast<size_t>(count);
      continue;
    }
    check(errno == EAGAIN || errno == EINTR, "the connection ended: ", std::strerror(errno));
    check(wait_for(socket, POLLOUT, deadline), "the other side does not read");
  }
}

Message receive_message(const Socket& socket, Deadline deadline) {
  // Not a byte more than the message: what follows on the connection is for another reader.
  std::string received;
  for (;;) {
    if (std::optional<Message> message = take_message(received)) return *message;
    const size_t whole = received.size() < 4 ? 4 : 4 + number_at(received, 0);
    check(wait_for(socket, POLLIN, deadline), "no answer in time");
    char buffer[4096];
    const ssize_t count =
        ::recv(socket.get(), buffer, std::min(sizeof buffer, whole - received.size()), 0);
    check(count != 0, "the connection ended");
    check(count > 0 || errno == EAGAIN || errno == EINTR,
          "the connection ended: ", std::strerror(errno));
    if (count > 0) received.append(buffer, static_cast<size_t>(count));
  }
}

std::optional<Message> take_message(std::string& received) {
  if (received.size() < 4) return {};
  const size_t size = number_at(received, 0);
  check(size <= kLargestMessage, "what was received is no message of Binade's");
  if (received.size() < 4 + size) return {};
  Message message;
  for (size_t at = 4; at < 4 + size;) {
    const size_t left = 4 + size - at;
    check(left >= 4 && number_at(received, at) <= left - 4,
          "what was received is no message of Binade's");
    const size_t length = number_at(received, at);
    message.push_back(received.substr(at + 4, length));
    at += 4 + length;
  }
  received.erase(0, 4 + size);
  return message;
}

}  // namespace binade::dist
