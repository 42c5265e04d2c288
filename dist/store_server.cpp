#include <binade/dist/store_server.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <binade/core/error.h>
#include <binade/core/start_thread.h>

namespace binade::dist {

namespace {

constexpr double kFarewellSeconds = 5;
constexpr double kSendSeconds = 2;  // a message fits into the buffer of a socket that is alive
constexpr int kAllRanks = -1;
constexpr double kWordSeconds = 0.5;  // for a launcher to say how a rank ended

// A rank is stuck when others have waited for it for Limits::stuck_seconds and this many steps.
constexpr int64_t kStuckSteps = 20;
// Before so many steps are done, how long one takes is not known: the limit is longer by a factor.
constexpr int64_t kKnownSteps = 3;
constexpr double kUnknownFactor = 5;

}  // namespace

StoreServer::StoreServer(Socket listener, const ServerOptions& options)
    : listener_(std::move(listener)), options_(options), news_(O_NONBLOCK) {
  thread_ = start_thread([this] { serve(); });
}

StoreServer::~StoreServer() {
  stop_.in = Socket();
  thread_.join();
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

void StoreServer::ended(int rank, const std::string& how) {
  {
    const std::lock_guard lock(mutex_);
    endings_.emplace_back(rank, how);
  }
  news_.wake();
}

void StoreServer::send_signal(int rank, int number) {
  {
    const std::lock_guard lock(mutex_);
    signals_.emplace_back(rank, number);
  }
  news_.wake();
}

Progress StoreServer::furthest() const {
  Progress all;
  for (const auto& [rank, progress] : progress_) all.reach(progress);
  return all;
}

std::optional<StoreServer::Failure> StoreServer::failure() const {
  const std::lock_guard lock(mutex_);
  if (!failure_) return {};
  return Failure{failure_->rank, failure_text(failure_->what, failure_->reason, furthest())};
}

Message StoreServer::failed_message() const {
  Message message = {"failed", failure_->what, failure_->reason};
  append(message, furthest());
  return message;
}

bool StoreServer::all_gone() const {
  return std::none_of(connections_.begin(), connections_.end(),
                      [](const Connection& one) { return one.rank >= 0 && !one.left; });
}

std::string StoreServer::name_of(int rank) const {
  const auto found = names_.find(rank);
  return found != names_.end() ? found->second : concat("rank ", rank, " of ", options_.ranks);
}

void StoreServer::serve() {
  std::optional<Deadline> end;  // once it was asked to stop
  while (!end || (Clock::now() < *end && !all_gone())) {
    std::vector<pollfd> entries = {{listener_.get(), POLLIN, 0},
                                   {news_.out.get(), POLLIN, 0},
                                   {end ? -1 : stop_.out.get(), POLLIN, 0}};
    const size_t first = entries.size(), count = connections_.size();
    for (const Connection& one : connections_) entries.push_back({one.socket.get(), POLLIN, 0});
    if (::poll(entries.data(), entries.size(), end ? 20 : 200) < 0 && errno != EINTR) return;
    if (entries[2].revents != 0) end = after(kFarewellSeconds);
    for (size_t i = 0; i < count; ++i)
      if (entries[first + i].revents != 0 && !read(connections_[i]))
        connections_[i].socket = Socket();
    look_for_lost();
    look_for_stuck();
    std::erase_if(connections_, [](const Connection& one) { return !one.socket; });
    if (entries[0].revents != 0)
      if (std::optional<Socket> socket = accept_from(listener_, Clock::now())) {
        connections_.emplace_back();
        connections_.back().socket = std::move(*socket);
      }
  }
}

void StoreServer::look_for_lost() {
  std::vector<std::pair<int, std::string>> endings;
  std::vector<std::pair<int, int>> signals;
  {
    news_.drain();
    const std::lock_guard lock(mutex_);
    endings.swap(endings_);
    signals.swap(signals_);
  }
  for (const auto& [rank, number] : signals) send_to(rank, {"signal", std::to_string(number)});
  for (const auto& [rank, how] : endings) set_failure(rank, name_of(rank) + ' ' + how);
  const auto now = Clock::now();
  for (const Connection& one : connections_) {
    if (one.rank < 0 || one.left) continue;
    if (!one.socket) lost_.emplace(one.rank, options_.told_of_ends ? after(kWordSeconds) : now);
    if (one.socket && now > one.heard + duration_of(options_.limits.silent_seconds))
      set_failure(one.rank, concat(name_of(one.rank), " has been silent for ",
                                   options_.limits.silent_seconds, " s"));
  }
  for (const auto& [rank, until] : lost_)
    if (now >= until) set_failure(rank, name_of(rank) + " ended without a word");
}

double StoreServer::stuck_seconds() const {
  const Progress all = furthest();
  const double limit = options_.limits.stuck_seconds;
  if (all.begun <= kKnownSteps) return kUnknownFactor * limit;
  const int64_t timed = all.step - first_step_;
  if (timed == 0) return limit;  // all of them between two beats
  const double seconds = std::chrono::duration<double>(moved_ - first_moved_).count();
  return std::max(limit, kStuckSteps * seconds / static_cast<double>(timed));
}

// Ranks do their steps together: those in front wait for the one that is behind. Where a GPU hangs,
// all programs come to wait for it, perhaps at one place.
void StoreServer::look_for_stuck() {
  if (any_left_ || progress_.size() < static_cast<size_t>(options_.ranks)) return;
  const auto behind = [](const auto& a, const auto& b) {
    return a.second.place() < b.second.place();
  };
  const auto [last, first] = std::minmax_element(progress_.begin(), progress_.end(), behind);
  const auto all = [this](const auto& of) {
    return std::all_of(progress_.begin(), progress_.end(),
                       [&](const auto& one) { return of(one.second); });
  };
  const bool busy = !all([](const Progress& one) { return !one.busy; });
  const bool devices = all([](const Progress& one) { return one.device_is_behind(); });
  const bool together = last->second.place() == first->second.place();
  if (busy || (together && !devices) || last->second.step == 0) {
    if (busy) moved_ = Clock::now();
    return;
  }
  const double waited = std::chrono::duration<double>(Clock::now() - moved_).count();
  if (waited < stuck_seconds()) return;
  const auto seconds = static_cast<int64_t>(waited);
  if (devices) {
    set_failure(-1, concat("a GPU hangs, or all wait for each other: all ", options_.ranks,
                           " ranks are there, and for ", seconds, " s none has finished step ",
                           last->second.finished + 1));
  } else {
    set_failure(last->first, concat(name_of(last->first), " has been stuck for ", seconds,
                                    " s while others wait for it"));
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
  } else if (verb == "beat") {
    take_progress(connection.rank, progress_at(message, 1));
    send_message(connection.socket, {"beat"}, after(kSendSeconds));
  } else if (verb == "failed") {
    take_progress(connection.rank, progress_at(message, 4));
    set_failure(static_cast<int>(parse_number(message[1]).value_or(-1)), message[2], message[3]);
  } else if (verb == "leave") {
    connection.left = any_left_ = true;
  } else if (!answer(connection, message)) {
    connection.waiting = message;
  }
  if (verb != "join" && verb != "set") return;
  for (Connection& other : connections_)
    if (other.waiting && answer(other, *other.waiting)) other.waiting.reset();
}

void StoreServer::take_progress(int rank, const Progress& progress) {
  if (rank < 0) return;
  const std::lock_guard lock(mutex_);
  Progress& before = progress_[rank];
  if (before == progress) return;
  before = progress;
  moved_ = Clock::now();
  if (first_step_ > 0 || progress.step == 0) return;
  first_step_ = progress.step;
  first_moved_ = moved_;
}

void StoreServer::join(Connection& connection, const Message& message) {
  check(message.size() == 4, "a rank joins with its number, theirs and its name");
  const double number = parse_number(message[1]).value_or(-1);
  check(number >= 0 && number < 1e6, "a rank joins with its number");
  const auto rank = static_cast<int>(number);
  std::string problem;
  if (message[2] != std::to_string(options_.ranks))
    problem = concat(" was told of ", message[2], " ranks, its store of ", options_.ranks);
  if (names_.contains(rank)) problem = " is there twice: " + names_[rank];
  if (!problem.empty()) {
    set_failure(-1, message[3] + problem);
    send_message(connection.socket, failed_message(), after(kSendSeconds));
    return;
  }
  names_[rank] = message[3];
  connection.rank = rank;
  take_progress(rank, {});
  if (failure_) send_message(connection.socket, failed_message(), after(kSendSeconds));
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
    if (verb == "everybody" && names_.size() < static_cast<size_t>(options_.ranks)) return false;
    for (const auto& [rank, name] : names_) reply.push_back(name);
  } else {
    fail("an unknown message ", verb);
  }
  send_message(connection.socket, reply, after(kSendSeconds));
  return true;
}

void StoreServer::set_failure(int rank, const std::string& what, const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = First{rank, what, reason};
  }
  send_to(kAllRanks, failed_message());
}

void StoreServer::send_to(int rank, const Message& message) {
  for (const Connection& one : connections_) {
    if (one.rank < 0 || !one.socket || (rank != kAllRanks && rank != one.rank)) continue;
    try {
      send_message(one.socket, message, after(kSendSeconds));
    } catch (const Error&) {
      // It has ended, too, which the next look at it tells.
    }
  }
}

}  // namespace binade::dist
