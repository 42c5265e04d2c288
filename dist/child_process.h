// INTERNAL. A process that this one starts, and what it writes.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include <binade/dist/remote_shell.h>
#include <binade/dist/socket.h>

namespace binade::dist {

// Signals as bytes of a pipe, while it lives: those that end a launcher, and SIGCHLD. One at a
// time.
class SignalPipe {
 public:
  SignalPipe();
  ~SignalPipe();
  SignalPipe(const SignalPipe&) = delete;
  SignalPipe& operator=(const SignalPipe&) = delete;

  int descriptor() const { return pipe_.out.get(); }
  int take() const;       // the next one; 0: there is none
  void put_back() const;  // in a child: what this process began with

 private:
  struct Before;
  Pipe pipe_;
  std::vector<Before> before_;
};

// What a process writes on one of its streams, passed on line by line.
struct OutputStream {
  // False: it has ended.
  bool pass_on();

  Socket source;
  int target = -1;  // descriptor of this process
  std::string prefix;
  std::string unfinished;
};

struct ChildProcess {
  pid_t id = -1;  // -1: it has ended
  OutputStream out, err;
};

// Starts a program, which is looked up in PATH, with these variables beside those of this process.
// Its lines come behind `prefix`. It gets SIGTERM when this process ends. Throws Error when it
// cannot be started.
ChildProcess start_process(const std::vector<std::string>& command, const Variables& variables,
                           const std::string& prefix, const SignalPipe& signals);

}  // namespace binade::dist
