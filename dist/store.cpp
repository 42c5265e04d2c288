#include <binade/dist/store.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

#include <binade/core/error.h>
#include <binade/core/start_thread.h>
#include <binade/dist/remote_shell.h>
#include <binade/dist/socket.h>
#include <binade/dist/store_server.h>

namespace binade::dist {

namespace {

constexpr double kAnswerSeconds = 20;  // for what the server knows at once
constexpr double kBeatSeconds = 1;

std::string rank_of(int rank, int size) {
  return concat("rank ", rank, " of ", size);
}

}  // namespace

Store::Store(const Launch& launch, const Limits& limits, Socket listener)
    : launch_(launch), limits_(limits), failed_(O_NONBLOCK), stop_(O_NONBLOCK) {
  const Deadline deadline = after(limits.join_seconds);
  if (launch.rank == 0 && !launch.served)
    server_ = std::make_unique<StoreServer>(
        listener ? std::move(listener) : listen_on(launch.port, launch.address.starts_with("127.")),
        ServerOptions{.ranks = launch.size, .limits = limits, .told_of_ends = false});
  const auto connect = [&] {
    try {
      return connect_to(launch.address, launch.port, deadline);
    } catch (const Error& error) {
      fail(rank_of(launch.rank, launch.size), " has waited ", limits.join_seconds, " s for ",
           server_name(), ": ", error.what());
    }
  };
  questions_ = connect();
  news_ = connect();
  const std::string name =
      concat(rank_of(launch.rank, launch.size), " (", host_name(), ", process ", ::getpid(), ')');
  send_message(news_, {"join", std::to_string(launch.rank), std::to_string(launch.size), name},
               deadline);
  watcher_ = start_thread([this] { watch(); });
  try {
    const double left = std::chrono::duration<double>(deadline - Clock::now()).count();
    std::vector<std::string> names = ask({"everybody"}, left);
    const std::lock_guard lock(mutex_);  // the watcher may be naming somebody
    names_ = std::move(names);
  } catch (const Error&) {
    tell_who_came();
  }
}

// Somebody is missing, or this is no rank of the run; what is found first is told to all.
void Store::tell_who_came() {
  if (!failure(0.2)) {
    std::string text = concat("after ", limits_.join_seconds, " s not all ", launch_.size,
                              " ranks are there; there are:");
    const Message there = StoreServer::who_came(launch_.address, launch_.port);
    for (const std::string& one : there) text += (one == there.front() ? " " : ", ") + one;
    tell_failure(-1, text);
  }
  const std::string text = failure(1).value_or("the ranks did not meet");
  stop_watching();
  fail(text);
}

Store::~Store() {
  if (!leaving_) report_failure("ended early");
  leaving_ = true;
  stop_watching();
}

void Store::stop_watching() {
  stop_.wake();
  watcher_.join();
  questions_ = Socket();
  news_ = Socket();
  server_.reset();
}

std::string Store::server_name() const {
  const std::lock_guard lock(mutex_);
  return launch_.served ? concat("the launcher (", launch_.address, ')')
                        : concat(names_.empty() ? rank_of(0, launch_.size) : names_[0], " at ",
                                 launch_.address);
}

Progress Store::progress() const {
  return {step_, begun_, checkpoint_, exchanges_, busy_ > 0, finished_};
}

void Store::beat() {
  Message message = {"beat"};
  append(message, progress());
  const std::lock_guard lock(telling_);
  send_message(news_, message, after(kAnswerSeconds));
}

void Store::begin_busy() {
  ++busy_;
  try {
    beat();  // at once: the others may begin to wait at once
  } catch (const Error&) {
    // The watcher will find that nobody is there.
  }
}

// The thread that says that this rank is there, and hears of failures.
void Store::watch() {
  std::string received;
  Deadline next = Clock::now(), heard = next;
  for (;;) {
    pollfd entries[] = {{news_.get(), POLLIN, 0}, {stop_.out.get(), POLLIN, 0}};
    const int count = ::poll(entries, 2, milliseconds_to(next));
    if (count < 0 && errno != EINTR) return;
    if (entries[1].revents != 0) return;
    try {
      if (Clock::now() >= next) {
        beat();
        next = after(std::min(kBeatSeconds, limits_.silent_seconds / 4));
      }
      if (count > 0 && entries[0].revents != 0) {
        if (!hear(received)) return;
        heard = Clock::now();
      }
    } catch (const Error&) {
      if (!leaving_) set_failure(server_name() + " ended without a word");
      return;
    }
    if (Clock::now() > heard + duration_of(limits_.silent_seconds) && !leaving_)
      set_failure(concat(server_name(), " has been silent for ", limits_.silent_seconds, " s"));
  }
}

bool Store::hear(std::string& received) {
  char buffer[4096];
  const ssize_t bytes = ::recv(news_.get(), buffer, sizeof buffer, 0);
  if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (bytes <= 0 && launch_.served && !leaving_ && !failure()) {
    // A launcher that is killed takes its ranks along, which save what they have. On its own host
    // the kernel sees to it (PR_SET_PDEATHSIG).
    int own_host = 0;
    ::prctl(PR_GET_PDEATHSIG, &own_host);
    if (own_host == 0) ::kill(::getpid(), SIGTERM);
    return false;
  }
  check(bytes > 0, "the connection ended");
  received.append(buffer, static_cast<size_t>(bytes));
  while (const std::optional<Message> message = take_message(received)) {
    check(!message->empty(), "what was received is no news");
    if (message->at(0) == "failed" && message->size() > 2)
      set_failure(message->at(1), message->at(2), progress_at(*message, 3));
    if (message->at(0) == "signal" && message->size() > 1)
      ::kill(::getpid(), static_cast<int>(parse_number(message->at(1)).value_or(SIGTERM)));
  }
  return true;
}

void Store::set_failure(const std::string& what, const std::string& reason,
                        const Progress& others) {
  Progress furthest = progress();
  furthest.reach(others);
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = failure_text(what, reason, furthest);
  }
  failed_.wake();
}

std::optional<std::string> Store::failure(double seconds) const {
  if (seconds > 0) {
    pollfd entry{failed_.out.get(), POLLIN, 0};
    ::poll(&entry, 1, static_cast<int>(seconds * 1000));
  }
  const std::lock_guard lock(mutex_);
  return failure_;
}

Message Store::ask(const Message& request, double seconds) {
  const std::lock_guard lock(asking_);
  send_message(questions_, request, after(kAnswerSeconds));
  // A failure ends the waiting, too.
  pollfd entries[] = {{questions_.get(), POLLIN, 0}, {failed_.out.get(), POLLIN, 0}};
  const Deadline deadline = after(seconds);
  while (::poll(entries, 2, milliseconds_to(deadline)) <= 0)
    check(Clock::now() < deadline, "no answer in time");
  if (entries[0].revents == 0) fail(failure().value_or("a rank failed"));
  return receive_message(questions_, after(kAnswerSeconds));
}

void Store::set(const std::string& key, const std::string& value) {
  ask({"set", key, value}, kAnswerSeconds);
}

std::string Store::get(const std::string& key, double seconds) {
  const Message answer = ask({"get", key}, seconds);
  check(answer.size() == 1, "the store gave no value of ", key);
  return answer[0];
}

void Store::report_failure(const std::string& reason) {
  tell_failure(rank(), name_of(rank()) + " failed", reason);
}

void Store::report_lost(int rank, const std::string& how) {
  tell_failure(rank, name_of(rank) + ' ' + how);
}

void Store::tell_failure(int rank, const std::string& what, const std::string& reason) {
  Message message = {"failed", std::to_string(rank), what, reason};
  append(message, progress());
  try {
    const std::lock_guard lock(telling_);
    send_message(news_, message, after(kAnswerSeconds));
  } catch (const Error&) {
    // Nobody is there to be told.
    set_failure(what, reason);
  }
}

void Store::leave() {
  leaving_ = true;
  try {
    const std::lock_guard lock(telling_);
    send_message(news_, {"leave"}, after(kAnswerSeconds));
  } catch (const Error&) {
    // Rank 0 has ended: this one has done its work all the same.
  }
}

}  // namespace binade::dist
