#include <binade/dist/store.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include <binade/core/error.h>
#include <binade/dist/socket.h>
#include <binade/dist/store_server.h>

namespace binade::dist {

namespace {

constexpr double kAnswerSeconds = 20;  // for what the server knows at once
constexpr double kBeatSeconds = 1;

std::string own_host() {
  char name[256] = "unknown";
  ::gethostname(name, sizeof name - 1);
  return name;
}

void make_pipe(int (&ends)[2]) {
  check(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "cannot make a pipe: ", std::strerror(errno));
}

void wake(int descriptor) {
  [[maybe_unused]] const ssize_t ignored = ::write(descriptor, "x", 1);
}

std::string rank_of(int rank, int size) {
  return concat("rank ", rank, " of ", size);
}

}  // namespace

Store::Store(const Launch& launch, const StoreOptions& options)
    : launch_(launch), options_(options) {
  const Deadline deadline = after(options.join_seconds);
  if (launch.rank == 0) {
    Socket listener = launch.listener >= 0
                          ? Socket(launch.listener)
                          : listen_on(launch.port, launch.address.starts_with("127."));
    server_ =
        std::make_unique<StoreServer>(std::move(listener), launch.size, options.silent_seconds);
  }
  make_pipe(failed_pipe_);
  make_pipe(stop_pipe_);
  const auto connect = [&] {
    try {
      return std::make_unique<Socket>(connect_to(launch.address, launch.port, deadline));
    } catch (const Error& error) {
      fail(rank_of(launch.rank, launch.size), " has waited ", options.join_seconds,
           " s for rank 0: ", error.what());
    }
  };
  questions_ = connect();
  news_ = connect();
  const std::string name =
      concat(rank_of(launch.rank, launch.size), " (", own_host(), ", process ", ::getpid(), ')');
  send_message(*news_, {"join", std::to_string(launch.rank), std::to_string(launch.size), name},
               deadline);
  watcher_ = std::thread([this] { watch(); });
  try {
    const double left = std::chrono::duration<double>(deadline - Clock::now()).count();
    names_ = ask({"everybody"}, left);
  } catch (const Error&) {
    // Somebody is missing, or this is no rank of the run; what is found first is told to all.
    if (!failure(0.2)) {
      std::string text = concat("after ", options.join_seconds, " s not all ", launch.size,
                                " ranks are there; there are:");
      const Message there = StoreServer::who_came(launch.address, launch.port);
      for (const std::string& one : there) text += (one == there.front() ? " " : ", ") + one;
      tell_failure(text);
    }
    const std::string text = failure(1).value_or("the ranks did not meet");
    stop_watching();
    fail(text);
  }
}

Store::~Store() {
  if (!leaving_) report_failure("ended early");
  leaving_ = true;
  stop_watching();
}

void Store::stop_watching() {
  wake(stop_pipe_[1]);
  watcher_.join();
  questions_.reset();
  news_.reset();
  server_.reset();
  for (const int end : {failed_pipe_[0], failed_pipe_[1], stop_pipe_[0], stop_pipe_[1]})
    ::close(end);
}

// The thread that says that this rank is there, and hears of failures.
void Store::watch() {
  std::string received;
  Deadline beat = after(kBeatSeconds);
  for (;;) {
    pollfd entries[] = {{news_->get(), POLLIN, 0}, {stop_pipe_[0], POLLIN, 0}};
    const int count = ::poll(entries, 2, milliseconds_to(beat));
    if (count < 0 && errno != EINTR) return;
    if (entries[1].revents != 0) return;
    try {
      if (Clock::now() >= beat) {
        const std::lock_guard lock(telling_);
        send_message(*news_, {"beat"}, after(kAnswerSeconds));
        beat = after(kBeatSeconds);
      }
      if (count <= 0 || entries[0].revents == 0) continue;
      char buffer[4096];
      const ssize_t bytes = ::recv(news_->get(), buffer, sizeof buffer, 0);
      if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      check(bytes > 0, "the connection ended");
      received.append(buffer, static_cast<size_t>(bytes));
      while (const std::optional<Message> message = take_message(received))
        if (message->size() == 2 && message->at(0) == "failed") set_failure(message->at(1));
    } catch (const Error&) {
      if (!leaving_)
        set_failure(
            concat(rank_of(0, launch_.size), " (", launch_.address, ") ended without a word"));
      return;
    }
  }
}

void Store::set_failure(const std::string& text) {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = text;
  }
  wake(failed_pipe_[1]);
}

std::optional<std::string> Store::failure(double seconds) const {
  if (seconds > 0) {
    pollfd entry{failed_pipe_[0], POLLIN, 0};
    ::poll(&entry, 1, static_cast<int>(seconds * 1000));
  }
  const std::lock_guard lock(mutex_);
  return failure_;
}

Message Store::ask(const Message& request, double seconds) {
  const std::lock_guard lock(asking_);
  send_message(*questions_, request, after(kAnswerSeconds));
  // A failure ends the waiting, too.
  pollfd entries[] = {{questions_->get(), POLLIN, 0}, {failed_pipe_[0], POLLIN, 0}};
  const Deadline deadline = after(seconds);
  while (::poll(entries, 2, milliseconds_to(deadline)) <= 0)
    check(Clock::now() < deadline, "no answer in time");
  if (entries[0].revents == 0) fail(failure().value_or("a rank failed"));
  return receive_message(*questions_, after(kAnswerSeconds));
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
  report_lost(rank(), reason);
}

void Store::report_lost(int rank, const std::string& how) {
  const std::string who = names_.empty() ? rank_of(rank, size()) : name_of(rank);
  tell_failure(concat(who, ' ', how));
}

void Store::tell_failure(const std::string& text) {
  try {
    const std::lock_guard lock(telling_);
    send_message(*news_, {"failed", text}, after(kAnswerSeconds));
  } catch (const Error&) {
    // Nobody is there to be told.
    set_failure(text);
  }
}

void Store::leave() {
  leaving_ = true;
  try {
    const std::lock_guard lock(telling_);
    send_message(*news_, {"leave"}, after(kAnswerSeconds));
  } catch (const Error&) {
    // Rank 0 has ended: this one has done its work all the same.
  }
}

}  // namespace binade::dist
