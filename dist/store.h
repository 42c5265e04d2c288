// INTERNAL
// Where the ranks of a run meet: texts under keys, kept by binade-run or by rank 0, and news of
// ranks that ended.
//
// Every rank has a thread that says each second that it is there and how far it is, and hears at
// once when another one failed, ended, went silent or got stuck: what it hears first is what every
// rank reports.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <binade/dist/launch.h>
#include <binade/dist/progress.h>
#include <binade/dist/socket.h>

namespace binade::dist {

class StoreServer;

class Store {
 public:
  // Returns when every rank is there; throws Error telling who came when one did not.
  // `listener`: rank 0's, where it listens already.
  explicit Store(const Launch& launch, const Limits& limits = {}, Socket listener = {});
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
  int failure_descriptor() const { return failed_.out.get(); }

  // ---- how far this rank is, for what failures say and for finding out who is stuck -------------
  void note_step(int64_t step) {  // which it begins, counted from 1
    if (step_.exchange(step) != step) ++begun_;
  }
  void note_checkpoint(int64_t step) { checkpoint_ = step; }
  void note_exchange() { ++exchanges_; }
  void note_finished(int64_t step) { finished_ = step; }  // counted from 1, by the device
  // Between these it does what takes as long as it takes: others wait without a limit.
  void begin_busy();
  void end_busy() { --busy_; }

  // The last word of a rank that has done its work.
  void leave();

 private:
  void watch();
  bool hear(std::string& received);  // false: nobody is there any more
  void beat();
  Progress progress() const;
  void set_failure(const std::string& what, const std::string& reason = "",
                   const Progress& others = {});
  void tell_failure(int rank, const std::string& what, const std::string& reason = "");
  std::vector<std::string> ask(const std::vector<std::string>& request, double seconds);
  [[noreturn]] void tell_who_came();
  void stop_watching();
  std::string server_name() const;

  Launch launch_;
  Limits limits_;
  std::vector<std::string> names_;
  std::unique_ptr<StoreServer> server_;  // at rank 0, unless the launcher has it
  Socket questions_, news_;              // connections to it
  std::mutex asking_, telling_;
  mutable std::mutex mutex_;
  std::optional<std::string> failure_;
  std::atomic<int64_t> step_ = 0, begun_ = 0, checkpoint_ = 0, exchanges_ = 0, finished_ = -1;
  std::atomic<int> busy_ = 0;
  std::atomic<bool> leaving_ = false;
  Pipe failed_, stop_;
  std::thread watcher_;
};

}  // namespace binade::dist
