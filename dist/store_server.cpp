#include <binade/dist/store_server.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <binade/core/error.h>

namespace binade::dist {

namespace {

constexpr double kFarewellSeconds = 5;
constexpr double kSendSeconds = 2;  // a message fits into the buffer of a socket that is alive

}  // namespace

StoreServer::StoreServer(Socket listener, int ranks, double silent_seconds)
    : listener_(std::move(listener)),
      ranks_(static_cast<size_t>(ranks)),
      silent_seconds_(silent_seconds) {
  check(::pipe2(stop_pipe_, O_CLOEXEC) == 0, "cannot make a pipe: ", std::strerror(errno));
  thread_ = std::thread([this] { serve(); });
}

StoreServer::~StoreServer() {
  ::close(stop_pipe_[1]);
  thread_.join();
  ::close(stop_pipe_[0]);
}

std::vector<std::string> StoreServer::who_came(const std::string& address, int port) {
  try {
    const Socket socket = connect_to(address, port, after(1));
    send_message(socket, {"who"}, after(1));
    return receive_message(socket, after(1));
  } catch (const Error&) {
    return {};
  }
}

bool StoreServer::all_gone() const {
  return std::none_of(connections_.begin(), connections_.end(),
                      [](const Connection& one) { return one.rank >= 0 && !one.left; });
}

void StoreServer::serve() {
  std::optional<Deadline> end;  // once it was asked to stop
  while (!end || (Clock::now() < *end && !all_gone())) {
    std::vector<pollfd> entries = {{listener_.get(), POLLIN, 0}};
    if (!end) entries.push_back({stop_pipe_[0], POLLIN, 0});
    const size_t first = entries.size(), count = connections_.size();
    for (const Connection& one : connections_) entries.push_back({one.socket.get(), POLLIN, 0});
    if (::poll(entries.data(), entries.size(), end ? 20 : 500) < 0 && errno != EINTR) return;
    if (!end && entries[1].revents != 0) end = after(kFarewellSeconds);
    for (size_t i = 0; i < count; ++i)
      if (entries[first + i].revents != 0 && !read(connections_[i]))
        connections_[i].socket = Socket();
    for (const Connection& one : connections_) {
      if (one.rank < 0 || one.left) continue;
      if (!one.socket) set_failure(names_[one.rank] + " ended without a word");
      if (one.socket && Clock::now() > one.heard + duration_of(silent_seconds_))
        set_failure(concat(names_[one.rank], " has been silent for ", silent_seconds_, " s"));
    }
    std::erase_if(connections_, [](const Connection& one) { return !one.socket; });
    if (entries[0].revents != 0)
      if (std::optional<Socket> socket = accept_from(listener_, Clock::now())) {
        connections_.emplace_back();
        connections_.back().socket = std::move(*socket);
      }
  }
}

bool StoreServer::read(Connection& connection) {
  char buffer[65536];
  const ssize_t bytes = ::recv(connection.socket.get(), buffer, sizeof buffer, 0);
  if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (bytes <= 0) return false;
  connection.received.append(buffer, static_cast<size_t>(bytes));
  try {
    while (const std::optional<Message> message = take_message(connection.received))
      take(connection, *message);
  } catch (const Error&) {
    return false;  // it ended, or speaks something else
  }
  return true;
}

void StoreServer::take(Connection& connection, const Message& message) {
  check(!message.empty(), "an empty message");
  connection.heard = Clock::now();
  const std::string& verb = message[0];
  if (verb == "join") {
    join(connection, message);
  } else if (verb == "failed" && message.size() == 2) {
    set_failure(message[1]);
  } else if (verb == "leave") {
    connection.left = true;
  } else if (verb != "beat" && !answer(connection, message)) {
    connection.waiting = message;
  }
  if (verb != "join" && verb != "set") return;
  for (Connection& other : connections_)
    if (other.waiting && answer(other, *other.waiting)) other.waiting.reset();
}

void StoreServer::join(Connection& connection, const Message& message) {
  check(message.size() == 4, "a rank joins with its number, theirs and its name");
  const double number = parse_number(message[1]).value_or(-1);
  check(number >= 0 && number < 1e6, "a rank joins with its number");
  const auto rank = static_cast<int>(number);
  std::string problem;
  if (message[2] != std::to_string(ranks_))
    problem = concat(" was told of ", message[2], " ranks, rank 0 of ", ranks_);
  if (names_.contains(rank)) problem = " is there twice: " + names_[rank];
  if (!problem.empty()) {
    send_message(connection.socket, {"failed", message[3] + problem}, after(kSendSeconds));
    set_failure(message[3] + problem);
    return;
  }
  names_[rank] = message[3];
  connection.rank = rank;
  if (failure_) send_message(connection.socket, {"failed", *failure_}, after(kSendSeconds));
}

bool StoreServer::answer(Connection& connection, const Message& question) {
  Message reply;
  const std::string& verb = question[0];
  if (verb == "set" && question.size() == 3) {
    values_[question[1]] = question[2];
  } else if (verb == "get" && question.size() == 2) {
    const auto found = values_.find(question[1]);
    if (found == values_.end()) return false;
    reply = {found->second};
  } else if (verb == "who" || verb == "everybody") {
    if (verb == "everybody" && names_.size() < ranks_) return false;
    for (const auto& [rank, name] : names_) reply.push_back(name);
  } else {
    fail("an unknown message ", verb);
  }
  send_message(connection.socket, reply, after(kSendSeconds));
  return true;
}

void StoreServer::set_failure(const std::string& text) {
  if (failure_) return;
  failure_ = text;
  for (const Connection& one : connections_) {
    if (one.rank < 0 || !one.socket) continue;
    try {
      send_message(one.socket, {"failed", text}, after(kSendSeconds));
    } catch (const Error&) {
      // It has ended, too, which the next look at it tells.
    }
  }
}

}  // namespace binade::dist
