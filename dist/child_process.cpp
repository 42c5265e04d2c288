#include <binade/dist/child_process.h>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <binade/core/error.h>
#include <binade/core/write_all.h>

namespace binade::dist {

namespace {

int signal_pipe = -1;  // its writing end, while a launcher runs

void on_signal(int number) {
  const int reason = errno;
  const auto byte = static_cast<unsigned char>(number);
  [[maybe_unused]] const ssize_t ignored = ::write(signal_pipe, &byte, 1);
  errno = reason;
}

}  // namespace

struct SignalPipe::Before {
  int number;
  struct sigaction action;
};

SignalPipe::SignalPipe() : pipe_(O_NONBLOCK) {
  signal_pipe = pipe_.in.get();
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) {
    Before& before = before_.emplace_back(Before{number, {}});
    sigaction(number, &action, &before.action);
    // As nohup ignores SIGHUP.
    if (number != SIGCHLD && before.action.sa_handler == SIG_IGN)
      sigaction(number, &before.action, nullptr);
  }
}

SignalPipe::~SignalPipe() {
  put_back();
  signal_pipe = -1;
}

int SignalPipe::take() const {
  unsigned char byte = 0;
  return ::read(pipe_.out.get(), &byte, 1) == 1 ? byte : 0;
}

void SignalPipe::put_back() const {
  for (const Before& before : before_) sigaction(before.number, &before.action, nullptr);
}

bool OutputStream::pass_on() {
  char buffer[16384];
  const ssize_t count = ::read(source.get(), buffer, sizeof buffer);
  if (count < 0 && errno == EINTR) return true;
  unfinished.append(buffer, static_cast<size_t>(std::max<ssize_t>(count, 0)));
  if (count <= 0 && !unfinished.empty() && unfinished.back() != '\n') unfinished += '\n';
  std::string text;
  size_t begin = 0;
  for (size_t end; (end = unfinished.find('\n', begin)) != std::string::npos; begin = end + 1)
    text += prefix + unfinished.substr(begin, end - begin) + '\n';
  unfinished.erase(0, begin);
  // Whether anybody reads it is not for the ranks to know.
  [[maybe_unused]] const bool written = write_all(target, text.data(), text.size());
  return count > 0;
}

namespace {

[[noreturn]] void become(const std::vector<std::string>& command, const Variables& variables,
                         int out, int err, int problem) {
  // What this program ignores for itself.
  for (const int number : {SIGPIPE, SIGXFSZ}) std::signal(number, SIG_DFL);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> arguments;
  for (const std::string& argument : command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  const int reason = errno;
  [[maybe_unused]] const ssize_t ignored = ::write(problem, &reason, sizeof reason);
  ::_exit(127);
}

}  // namespace

ChildProcess start_process(const std::vector<std::string>& command, const Variables& variables,
                           const std::string& prefix, const SignalPipe& signals) {
  Pipe out, err, problem;
  const pid_t parent = ::getpid(), id = ::fork();
  check(id >= 0, "cannot start a process: ", std::strerror(errno));
  if (id == 0) {
    // A launcher that is killed takes its ranks along; they save what they have.
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    signals.put_back();
    become(command, variables, out.in.get(), err.in.get(), problem.in.get());
  }
  problem.in = Socket();
  int reason = 0;
  ssize_t count = -1;
  do {
    count = ::read(problem.out.get(), &reason, sizeof reason);
  } while (count < 0 && errno == EINTR);
  if (count > 0) {
    ::waitpid(id, nullptr, 0);
    fail("cannot run ", command[0], ": ", std::strerror(reason));
  }
  ChildProcess started;
  started.id = id;
  started.out = {std::move(out.out), STDOUT_FILENO, prefix, {}};
  started.err = {std::move(err.out), STDERR_FILENO, prefix, {}};
  return started;
}

}  // namespace binade::dist
