// INTERNAL
// What one process runs for all ranks (store.h): binade-run, or rank 0. A thread that keeps texts,
// knows who came and how far they are, and passes on the first failure.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <binade/dist/launch.h>
#include <binade/dist/progress.h>
#include <binade/dist/socket.h>

namespace binade::dist {

struct ServerOptions {
  int ranks = 1;
  Limits limits;
  // Whether this process is told how ranks end, by their launcher (ended()): a connection that
  // breaks is then explained in a moment.
  bool told_of_ends = false;
};

class StoreServer {
 public:
  StoreServer(Socket listener, const ServerOptions& options);
  // Ends when all ranks that came have left or gone, after some seconds in any case.
  ~StoreServer();
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;

  // The names of the ranks that have joined the server there; none where there is no server.
  static std::vector<std::string> who_came(const std::string& address, int port);

  // ---- for the launcher, from its own thread ----------------------------------------------------
  // The process of this rank has ended, not as it should: "was ended by signal 9 (Killed)".
  void ended(int rank, const std::string& how);
  struct Failure {
    int rank = -1;  // that failed; -1: none in particular
    std::string text;
  };
  // The first one, with what is known by now of steps and checkpoints.
  std::optional<Failure> failure() const;
  // Sends a signal to the process of a rank that has joined, on any host.
  void send_signal(int rank, int number);

 private:
  struct Connection {
    Socket socket;
    std::string received;
    std::optional<Message> waiting;  // a question that cannot be answered yet
    int rank = -1;                   // of its news; -1: it asks questions
    bool left = false;
    Deadline heard{};
  };
  struct First {
    int rank;
    std::string what, reason;
  };

  void serve();
  bool read(Connection& connection);  // false: it ended
  void take(Connection& connection, const Message& message);
  bool answer(Connection& connection, const Message& question);  // false: not yet
  void join(Connection& connection, const Message& message);
  void take_progress(int rank, const Progress& progress);
  void look_for_lost();
  void look_for_stuck();
  double stuck_seconds() const;
  Progress furthest() const;  // of all ranks
  Message failed_message() const;
  void set_failure(int rank, const std::string& what, const std::string& reason = "");
  void send_to(int rank, const Message& message);
  std::string name_of(int rank) const;
  bool all_gone() const;

  Socket listener_;
  ServerOptions options_;
  std::map<std::string, std::string> values_;
  std::map<int, std::string> names_;  // of the ranks that joined
  std::vector<Connection> connections_;
  std::map<int, Deadline> lost_;  // ranks whose connection broke: until when to wait for a word
  Clock::time_point moved_{}, first_moved_{};  // when any rank made progress, and the first step
  int64_t first_step_ = 0;
  bool any_left_ = false;

  mutable std::mutex mutex_;  // of what two threads use
  std::map<int, Progress> progress_;
  std::optional<First> failure_;
  std::vector<std::pair<int, std::string>> endings_;  // that were told and not looked at
  std::vector<std::pair<int, int>> signals_;          // to be sent, with their ranks

  Pipe news_, stop_;
  std::thread thread_;
};

}  // namespace binade::dist
