// Where the ranks of a run meet: texts under keys, kept by rank 0, and news of ranks that ended.
//
// Every rank has a thread that says each second that it is there and hears at once when another one
// failed, ended or went silent: what it hears first is what every rank reports.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <binade/dist/launch.h>

namespace binade::dist {

class Socket;
class StoreServer;

struct StoreOptions {
  double join_seconds = 120;   // for all ranks to come
  double silent_seconds = 20;  // without a word, after which a rank counts as lost
};

class Store {
 public:
  // Rank 0 serves the others. Returns when every rank is there; throws Error telling who came when
  // one did not.
  explicit Store(const Launch& launch, const StoreOptions& options = {});
  // Of a rank that did not leave(), the others are told that it ended. Rank 0 first gives them some
  // seconds to hear of a failure.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  int rank() const { return launch_.rank; }
  int size() const { return launch_.size; }
  // "rank 2 of 4 (node7, process 71)"
  const std::string& name_of(int rank) const { return names_.at(static_cast<size_t>(rank)); }

  void set(const std::string& key, const std::string& value);
  // Waits until somebody sets it. Throws Error when that takes too long or a rank failed.
  std::string get(const std::string& key, double seconds);

  // Tells all ranks that this one failed, unless something failed before.
  void report_failure(const std::string& reason);
  // Tells all ranks that rank `rank` was lost, as above.
  void report_lost(int rank, const std::string& how);
  // What went wrong first, naming the rank; nothing so far. With `seconds` waits so long for it.
  std::optional<std::string> failure(double seconds = 0) const;
  // A descriptor that poll() finds readable once there is a failure.
  int failure_descriptor() const { return failed_pipe_[0]; }
  // The last word of a rank that has done its work.
  void leave();

 private:
  void watch();
  void set_failure(const std::string& text);
  void tell_failure(const std::string& text);
  std::vector<std::string> ask(const std::vector<std::string>& request, double seconds);
  void stop_watching();

  Launch launch_;
  StoreOptions options_;
  std::vector<std::string> names_;
  std::unique_ptr<StoreServer> server_;       // at rank 0
  std::unique_ptr<Socket> questions_, news_;  // connections to it
  std::mutex asking_, telling_;
  mutable std::mutex mutex_;
  std::optional<std::string> failure_;
  int failed_pipe_[2] = {-1, -1}, stop_pipe_[2] = {-1, -1};
  std::atomic<bool> leaving_ = false;
  std::thread watcher_;
};

}  // namespace binade::dist
