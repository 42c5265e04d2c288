#include <binade/dist/local_ranks.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string_view>
#include <thread>

#include <binade/core/error.h>
#include <binade/core/write_all.h>
#include <binade/dist/socket.h>

namespace binade::dist {

namespace {

int signal_pipe = -1;  // its writing end, while a launcher runs

void on_signal(int number) {
  const int reason = errno;
  const auto byte = static_cast<unsigned char>(number);
  [[maybe_unused]] const ssize_t ignored = ::write(signal_pipe, &byte, 1);
  errno = reason;
}

constexpr int kCaught[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD};

struct Pipe {
  explicit Pipe(int flags = 0) {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC | flags) == 0, "cannot make a pipe: ", std::strerror(errno));
    out = Socket(ends[0]);
    in = Socket(ends[1]);
  }
  Socket out, in;
};

// Signals as bytes of a pipe, while it lives.
class Signals {
 public:
  Signals() : pipe_(O_NONBLOCK) {
    signal_pipe = pipe_.in.get();
    struct sigaction action {};
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    for (size_t i = 0; i < std::size(kCaught); ++i) {
      sigaction(kCaught[i], &action, &before_[i]);
      // As nohup ignores SIGHUP.
      if (kCaught[i] != SIGCHLD && before_[i].sa_handler == SIG_IGN)
        sigaction(kCaught[i], &before_[i], nullptr);
    }
  }
  ~Signals() {
    for (size_t i = 0; i < std::size(kCaught); ++i) sigaction(kCaught[i], &before_[i], nullptr);
    signal_pipe = -1;
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int descriptor() const { return pipe_.out.get(); }
  // The next one; 0: there is none.
  int take() const {
    unsigned char byte = 0;
    return ::read(pipe_.out.get(), &byte, 1) == 1 ? byte : 0;
  }
  // In a child: what this process began with.
  void put_back() const {
    for (size_t i = 0; i < std::size(kCaught); ++i) sigaction(kCaught[i], &before_[i], nullptr);
  }

 private:
  Pipe pipe_;
  struct sigaction before_[std::size(kCaught)];
};

// What a rank writes on one of its streams, passed on line by line.
struct Stream {
  Socket source;
  int target;  // descriptor of this process
  std::string prefix;
  std::string unfinished, last_line;

  // False: it has ended.
  bool pass_on() {
    char buffer[16384];
    const ssize_t count = ::read(source.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) return true;
    unfinished.append(buffer, static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (count <= 0 && !unfinished.empty() && unfinished.back() != '\n') unfinished += '\n';
    std::string text;
    size_t begin = 0;
    for (size_t end; (end = unfinished.find('\n', begin)) != std::string::npos; begin = end + 1) {
      last_line = unfinished.substr(begin, end - begin);
      text += prefix + last_line + '\n';
    }
    unfinished.erase(0, begin);
    // Whether anybody reads it is not for the ranks to know.
    [[maybe_unused]] const bool written = write_all(target, text.data(), text.size());
    return count > 0;
  }
};

struct Rank {
  int number = 0;
  pid_t process = -1;  // -1: it has ended
  Stream out, err;
};

// Of a process that has ended.
int exit_status(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

class Run {
 public:
  Run(const LocalRanks& options, const Signals& signals, int attempt)
      : options_(options), signals_(signals) {
    Socket listener = listen_on(0, /*loopback=*/true);
    try {
      for (int rank = 0; rank < options.ranks; ++rank) start(rank, listener, attempt);
    } catch (...) {
      kill_all(SIGKILL);
      throw;
    }
  }
  ~Run() { kill_all(SIGKILL); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Stays until all have ended; their status.
  int wait() {
    while (look_after()) {
    }
    return status_;
  }
  bool stopped() const { return stopped_; }  // by a signal to this process
  const std::string& failure() const { return failure_; }

 private:
  void start(int rank, const Socket& listener, int attempt);
  [[noreturn]] void become(int rank, const Socket& listener, int attempt, const Pipe& out,
                           const Pipe& err, const Pipe& problem);
  bool look_after();
  void reap();
  void note_failure(const Rank& rank, int status);
  void kill_all(int number) const {
    for (const Rank& rank : ranks_)
      if (rank.process > 0) ::kill(rank.process, number);
  }

  const LocalRanks& options_;
  const Signals& signals_;
  std::vector<Rank> ranks_;
  int status_ = 0;
  bool by_signal_ = false;  // the first failure
  bool stopped_ = false;
  std::string failure_;
  std::optional<Deadline> end_;  // when the ranks that are left are killed
};

void Run::start(int rank, const Socket& listener, int attempt) {
  Pipe out, err, problem;
  const pid_t parent = ::getpid(), process = ::fork();
  check(process >= 0, "cannot start rank ", rank, ": ", std::strerror(errno));
  if (process == 0) {
    // A launcher that is killed takes its ranks along; they save what they have.
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    become(rank, listener, attempt, out, err, problem);
  }
  problem.in = Socket();
  int reason = 0;
  ssize_t count = -1;
  do {
    count = ::read(problem.out.get(), &reason, sizeof reason);
  } while (count < 0 && errno == EINTR);
  if (count > 0) {
    ::waitpid(process, nullptr, 0);
    fail("cannot run ", options_.command[0], ": ", std::strerror(reason));
  }
  const std::string prefix = options_.ranks > 1 ? concat('[', rank, "] ") : "";
  Rank started;
  started.number = rank;
  started.process = process;
  started.out = {std::move(out.out), STDOUT_FILENO, prefix, {}, {}};
  started.err = {std::move(err.out), STDERR_FILENO, prefix, {}, {}};
  ranks_.push_back(std::move(started));
}

void Run::become(int rank, const Socket& listener, int attempt, const Pipe& out, const Pipe& err,
                 const Pipe& problem) {
  signals_.put_back();
  // What this program ignores for itself.
  for (const int number : {SIGPIPE, SIGXFSZ}) std::signal(number, SIG_DFL);
  ::dup2(out.in.get(), STDOUT_FILENO);
  ::dup2(err.in.get(), STDERR_FILENO);
  const auto set = [](const char* name, int value, int over = 1) {
    ::setenv(name, std::to_string(value).c_str(), over);
  };
  set("BINADE_RANK", rank);
  set("BINADE_LOCAL_RANK", rank);
  set("BINADE_RANKS", options_.ranks);
  set("BINADE_PORT", port_of(listener));
  ::setenv("BINADE_ADDRESS", "127.0.0.1", 1);
  if (options_.join_seconds) set("BINADE_JOIN_SECONDS", *options_.join_seconds);
  if (attempt > 0) set("BINADE_RESTART", attempt);
  const auto processors = static_cast<int>(std::thread::hardware_concurrency());
  set("OMP_NUM_THREADS", std::max(1, processors / options_.ranks), /*over=*/0);
  ::unsetenv("BINADE_LISTENER");
  if (rank == 0) {
    ::fcntl(listener.get(), F_SETFD, 0);
    set("BINADE_LISTENER", listener.get());
  }
  std::vector<char*> arguments;
  for (const std::string& argument : options_.command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  const int reason = errno;
  [[maybe_unused]] const ssize_t ignored = ::write(problem.in.get(), &reason, sizeof reason);
  ::_exit(127);
}

// One turn; false when all is over.
bool Run::look_after() {
  std::vector<pollfd> entries = {{signals_.descriptor(), POLLIN, 0}};
  std::vector<Stream*> streams;
  for (Rank& rank : ranks_)
    for (Stream* stream : {&rank.out, &rank.err})
      if (stream->source) {
        entries.push_back({stream->source.get(), POLLIN, 0});
        streams.push_back(stream);
      }
  const bool running =
      std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.process > 0; });
  // Somebody else may hold a stream of a rank that has ended: that is not waited for.
  const int count = ::poll(entries.data(), entries.size(),
                           !running ? 0
                           : end_   ? milliseconds_to(*end_)
                                    : -1);
  bool more = false;
  for (size_t i = 0; i < streams.size() && count > 0; ++i) {
    if (entries[i + 1].revents == 0) continue;
    more = true;
    if (!streams[i]->pass_on()) streams[i]->source = Socket();
  }
  if (!running) return more;
  while (const int number = signals_.take()) {
    if (number == SIGCHLD) continue;
    stopped_ = true;
    kill_all(number);
  }
  reap();
  if (end_ && Clock::now() >= *end_) kill_all(SIGKILL);
  return true;
}

void Run::reap() {
  for (Rank& rank : ranks_) {
    int status = 0;
    if (rank.process <= 0 || ::waitpid(rank.process, &status, WNOHANG) != rank.process) continue;
    rank.process = -1;
    if (exit_status(status) != 0) note_failure(rank, status);
    if ((exit_status(status) != 0 || stopped_) && !end_) end_ = after(options_.grace_seconds);
  }
}

void Run::note_failure(const Rank& rank, int status) {
  // Of a rank that a signal has ended the others may be known to have failed before it is; what
  // this process has killed in the end is no cause.
  const bool by_signal = WIFSIGNALED(status);
  const bool killed_here = end_ && Clock::now() >= *end_;
  if (!failure_.empty() && (!by_signal || by_signal_ || killed_here)) return;
  by_signal_ = by_signal;
  status_ = exit_status(status);
  failure_ = concat("rank ", rank.number, " of ", options_.ranks);
  if (by_signal) {
    const int number = WTERMSIG(status);
    failure_ += concat(" was ended by signal ", number, " (", ::strsignal(number), ')');
  } else {
    failure_ += concat(" ended with status ", status_);
  }
}

}  // namespace

int run_local_ranks(const LocalRanks& options) {
  check(options.ranks > 0, "a run has at least one rank, got ", options.ranks);
  check(!options.command.empty(), "there is no program to run");
  const Signals signals;
  for (int attempt = 0;; ++attempt) {
    Run run(options, signals, attempt);
    const int status = run.wait();
    if (status == 0) return 0;
    const bool again = attempt < options.restarts && !run.stopped();
    std::string text = run.failure() + '\n';
    if (again) text += concat("starting again (", attempt + 1, " of ", options.restarts, ")\n");
    [[maybe_unused]] const bool written = write_all(STDERR_FILENO, text.data(), text.size());
    if (!again) return status;
  }
}

}  // namespace binade::dist
