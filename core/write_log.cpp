#include <binade/core/write_log.h>

#include <atomic>
#include <utility>

#include <binade/core/array.h>

namespace binade {

namespace {

std::atomic<uint64_t> next_scope{1};
thread_local WriteLog* current_log = nullptr;
thread_local uint64_t scope_number = 0;

}  // namespace

WriteLog::Scope::Scope(WriteLog& log)
    : log_(log),
      previous_(std::exchange(current_log, &log)),
      previous_number_(std::exchange(scope_number, next_scope.fetch_add(1))) {}

WriteLog::Scope::~Scope() {
  current_log = previous_;
  scope_number = previous_number_;
  std::erase_if(log_.storages_, [](const auto& storage) { return storage.expired(); });
}

void WriteLog::bump_versions() const {
  for (const auto& noted : storages_)
    if (const auto storage = noted.lock()) storage->bump_version();
}

uint64_t WriteLog::current_scope() {
  return scope_number;
}

void WriteLog::note(Storage& storage) {
  if (current_log != nullptr) current_log->storages_.insert(storage.weak_from_this());
}

}  // namespace binade
