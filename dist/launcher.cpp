#include <binade/dist/launcher.h>

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>
#include <thread>

#include <binade/core/error.h>
#include <binade/core/write_all.h>
#include <binade/dist/child_process.h>
#include <binade/dist/socket.h>
#include <binade/dist/store_server.h>

extern char** environ;

namespace binade::dist {

namespace {

struct Rank {
  std::string host;  // empty: this one
  ChildProcess process;
  int status = 0;  // of one that has ended: 128 + the signal that ended it
};

// Variables of this process that ranks on other hosts get as well.
Variables passed_on() {
  Variables all;
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string_view entry(*one);
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) continue;
    for (const std::string_view prefix : {"BINADE_", "OMP_", "NCCL_", "LD_LIBRARY_PATH="})
      if (entry.starts_with(prefix))
        all.emplace_back(entry.substr(0, equals), entry.substr(equals + 1));
  }
  return all;
}

// One attempt at a run.
class Run {
 public:
  Run(const RunOptions& options, const SignalPipe& signals, int attempt)
      : options_(options), signals_(signals) {
    const auto here = [](const std::string& host) { return is_this_host(host); };
    const auto remote = std::find_if_not(options.hosts.begin(), options.hosts.end(), here);
    const bool local = remote == options.hosts.end();
    Socket listener = listen_on(0, /*loopback=*/local);
    address_ = local                     ? "127.0.0.1"
               : options.address.empty() ? address_towards(*remote)
                                         : options.address;
    try {
      for (int rank = 0; rank < options.ranks; ++rank) start(rank, port_of(listener), attempt);
    } catch (...) {
      signal_all(SIGKILL);
      throw;
    }
    // Its thread begins when no more processes are started.
    server_.emplace(
        std::move(listener),
        ServerOptions{.ranks = options.ranks, .limits = options.limits, .told_of_ends = true});
  }
  ~Run() { signal_all(SIGKILL); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Stays until all have ended.
  void wait() {
    while (look_after()) {
    }
  }
  bool stopped() const { return stopped_; }  // by a signal to this process
  // Of the rank that failed first; empty and 0 where none did.
  std::string failure() const;
  int status() const { return first_failed_ < 0 ? 0 : ranks_[culprit()].status; }

 private:
  void start(int rank, int port, int attempt);
  Variables variables_of(int rank, int port, int attempt) const;
  bool look_after();
  void reap();
  size_t culprit() const;
  void signal_all(int number);
  int ranks_of_a_host() const {
    return options_.ranks / std::max(1, static_cast<int>(options_.hosts.size()));
  }

  const RunOptions& options_;
  const SignalPipe& signals_;
  std::string address_;
  std::vector<Rank> ranks_;
  std::optional<StoreServer> server_;
  int first_failed_ = -1;
  bool stopped_ = false;
  std::optional<Deadline> end_;  // when the ranks that are left are killed
};

Variables Run::variables_of(int rank, int port, int attempt) const {
  const auto number = [](double value) { return std::to_string(std::lround(value)); };
  const int processors = static_cast<int>(std::thread::hardware_concurrency());
  Variables all = {{"BINADE_RANK", std::to_string(rank)},
                   {"BINADE_LOCAL_RANK", std::to_string(rank % ranks_of_a_host())},
                   {"BINADE_RANKS", std::to_string(options_.ranks)},
                   {"BINADE_ADDRESS", address_},
                   {"BINADE_PORT", std::to_string(port)},
                   {"BINADE_SERVED", "1"},
                   {"BINADE_JOIN_SECONDS", number(options_.limits.join_seconds)},
                   {"BINADE_SILENT_SECONDS", number(options_.limits.silent_seconds)},
                   {"BINADE_STUCK_SECONDS", number(options_.limits.stuck_seconds)}};
  if (attempt > 0) all.emplace_back("BINADE_RESTART", std::to_string(attempt));
  if (std::getenv("OMP_NUM_THREADS") == nullptr)
    all.emplace_back("OMP_NUM_THREADS",
                     std::to_string(std::max(1, processors / ranks_of_a_host())));
  return all;
}

void Run::start(int rank, int port, int attempt) {
  Rank started;
  if (!options_.hosts.empty()) {
    const std::string& host = options_.hosts[static_cast<size_t>(rank / ranks_of_a_host())];
    if (!is_this_host(host)) started.host = host;
  }
  const Variables variables = variables_of(rank, port, attempt);
  const std::string prefix = options_.ranks > 1 ? concat('[', rank, "] ") : "";
  if (started.host.empty()) {
    started.process = start_process(options_.command, variables, prefix, signals_);
  } else {
    Variables all = passed_on();
    all.insert(all.end(), variables.begin(), variables.end());  // the last of a name counts
    const std::string folder = std::filesystem::current_path().string();
    started.process = start_process(
        on_host(started.host, shell_command(folder, all, options_.command)), {}, prefix, signals_);
  }
  ranks_.push_back(std::move(started));
}

// Processes on other hosts are told through the store, which they have joined.
void Run::signal_all(int number) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const Rank& one = ranks_[rank];
    if (one.process.id < 0) continue;
    if (!one.host.empty() && server_) server_->send_signal(static_cast<int>(rank), number);
    if (one.host.empty() || number == SIGKILL) ::kill(one.process.id, number);
  }
}

// One turn; false when all is over.
bool Run::look_after() {
  std::vector<pollfd> entries = {{signals_.descriptor(), POLLIN, 0}};
  std::vector<OutputStream*> streams;
  for (Rank& rank : ranks_)
    for (OutputStream* stream : {&rank.process.out, &rank.process.err})
      if (stream->source) {
        entries.push_back({stream->source.get(), POLLIN, 0});
        streams.push_back(stream);
      }
  const bool running =
      std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& one) { return one.process.id > 0; });
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
    signal_all(number);
  }
  reap();
  if (end_ && Clock::now() >= *end_) signal_all(SIGKILL);
  return true;
}

void Run::reap() {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    Rank& one = ranks_[rank];
    int status = 0;
    if (one.process.id <= 0 || ::waitpid(one.process.id, &status, WNOHANG) != one.process.id)
      continue;
    one.process.id = -1;
    const bool by_signal = WIFSIGNALED(status);
    one.status = by_signal ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (one.status != 0) {
      if (first_failed_ < 0) first_failed_ = static_cast<int>(rank);
      std::string how = by_signal ? concat("was ended by signal ", WTERMSIG(status), " (",
                                           ::strsignal(WTERMSIG(status)), ')')
                                  : concat("ended with status ", one.status);
      if (!one.host.empty()) how += concat(" (ssh to ", one.host, ')');
      server_->ended(static_cast<int>(rank), how);
    }
    if ((one.status != 0 || stopped_) && !end_) end_ = after(options_.grace_seconds);
  }
}

// Others may have ended before the rank that failed first.
size_t Run::culprit() const {
  const auto failure = server_->failure();
  const int rank = failure && failure->rank >= 0 ? failure->rank : first_failed_;
  return static_cast<size_t>(ranks_[static_cast<size_t>(rank)].status != 0 ? rank : first_failed_);
}

std::string Run::failure() const {
  const auto failure = server_->failure();
  return failure ? failure->text
                 : concat("rank ", first_failed_, " of ", options_.ranks, " failed");
}

}  // namespace

int run_ranks(const RunOptions& options) {
  check(options.ranks > 0, "a run has at least one rank, got ", options.ranks);
  check(!options.command.empty(), "there is no program to run");
  const auto hosts = static_cast<int>(options.hosts.size());
  check(hosts == 0 || options.ranks % hosts == 0, options.ranks,
        " ranks cannot be shared out among ", hosts, " hosts; each gets as many as the others");
  const SignalPipe signals;
  for (int attempt = 0;; ++attempt) {
    Run run(options, signals, attempt);
    run.wait();
    if (run.status() == 0) return 0;
    const bool again = attempt < options.restarts && !run.stopped();
    std::string text = run.failure() + '\n';
    if (again) text += concat("starting again (", attempt + 1, " of ", options.restarts, ")\n");
    [[maybe_unused]] const bool written = write_all(STDERR_FILENO, text.data(), text.size());
    if (!again) return run.status();
  }
}

}  // namespace binade::dist
