// INTERNAL
// What rank 0 runs for the others (store.h): one thread that keeps texts, knows who came, and
// passes on the first failure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <binade/dist/socket.h>

namespace binade::dist {

class StoreServer {
 public:
  StoreServer(Socket listener, int ranks, double silent_seconds);
  // Ends when all ranks that came have left or gone, after some seconds in any case.
  ~StoreServer();
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;

  // The names of the ranks that have joined the server there; none where there is no server.
  static std::vector<std::string> who_came(const std::string& address, int port);

 private:
  struct Connection {
    Socket socket;
    std::string received;
    std::optional<Message> waiting;  // a question that cannot be answered yet
    int rank = -1;                   // of its news; -1: it asks questions
    bool left = false;
    Deadline heard{};
  };

  void serve();
  bool read(Connection& connection);  // false: it ended
  void take(Connection& connection, const Message& message);
  bool answer(Connection& connection, const Message& question);  // false: not yet
  void join(Connection& connection, const Message& message);
  void set_failure(const std::string& text);
  bool all_gone() const;

  Socket listener_;
  size_t ranks_;
  double silent_seconds_;
  std::map<std::string, std::string> values_;
  std::map<int, std::string> names_;  // of the ranks that joined
  std::vector<Connection> connections_;
  std::optional<std::string> failure_;
  int stop_pipe_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace binade::dist
