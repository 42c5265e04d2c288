// INTERNAL. WriteLog: which storages a stretch of work writes. A captured graph writes them with
// every replay, when no host code runs that could tell those who watch versions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>

namespace binade {

class Storage;

class WriteLog {
 public:
  // While it lives, the storages that this thread writes in place or allocates are noted in `log`.
  // At its end those that are gone are forgotten.
  class Scope {
   public:
    explicit Scope(WriteLog& log);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    WriteLog& log_;
    WriteLog* previous_;
    uint64_t previous_number_;
  };

  // Says that all of it was written once more: bumps the versions of the storages that still live.
  // The log keeps none of them alive.
  void bump_versions() const;
  size_t size() const { return storages_.size(); }

  // A number of the thread's present Scope, unlike that of any other; 0 outside of all. What is
  // computed inside a scope is not to be relied on outside: its values come with the replay.
  static uint64_t current_scope();
  static void note(Storage& storage);  // in the thread's present log, if there is one

 private:
  std::set<std::weak_ptr<Storage>, std::owner_less<std::weak_ptr<Storage>>> storages_;
};

}  // namespace binade
