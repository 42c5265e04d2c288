#include <binade/data/parallel.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <binade/core/start_thread.h>

namespace binade::data {

int thread_count(int requested) {
  if (requested > 0) return requested;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(int64_t count, int threads, const std::function<void(int64_t, int)>& work) {
  std::atomic<int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto worker = [&](int thread) {
    try {
      for (int64_t i = next++; i < count; i = next++) work(i, thread);
    } catch (...) {
      next = count;
      const std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  const auto workers = static_cast<int>(std::min<int64_t>(thread_count(threads), count));
  {
    std::vector<std::jthread> others;
    for (int thread = 1; thread < workers; ++thread)
      others.push_back(start_thread<std::jthread>(worker, thread));
    if (workers > 0) worker(0);
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace binade::data
