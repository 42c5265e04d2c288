#include <binade/core/error.h>
#include <binade/data/prefetcher.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace binade::data {

// Outlives the prefetcher while batches are kept: they return their buffers to it.
struct Prefetcher::Shared {
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::unique_ptr<Batch>> idle;
  std::deque<std::unique_ptr<Batch>> ready;
  std::exception_ptr failure;  // of the batch behind the ready ones
  int64_t next_batch = 0;      // to hand out
  int in_use = 0;              // handed out and not yet returned
  int depth = 0;
  bool stop = false;
  std::thread thread;

  void run(const Fill& fill, int64_t number);
};

void Prefetcher::Shared::run(const Fill& fill, int64_t number) {
  for (std::unique_lock lock(mutex);; ++number) {
    changed.wait(lock, [&] { return stop || !idle.empty(); });
    if (stop) return;
    std::unique_ptr<Batch> batch = std::move(idle.back());
    idle.pop_back();
    lock.unlock();
    std::exception_ptr error;
    try {
      batch->number = number;
      const auto size = static_cast<size_t>(batch->tokens);
      fill(number, {batch->inputs.get(), size}, {batch->targets.get(), size});
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error) {
      failure = error;
    } else {
      ready.push_back(std::move(batch));
    }
    changed.notify_all();
    if (error) return;
  }
}

Prefetcher::Prefetcher(Fill fill, int64_t tokens_per_batch, const PrefetchOptions& options)
    : shared_(std::make_shared<Shared>()) {
  check(options.depth >= 1, "a prefetcher must hold at least one batch, not ", options.depth);
  check(tokens_per_batch >= 1, "a batch must have at least one token, not ", tokens_per_batch);
  const auto allocate = [&] {
    return options.allocate ? options.allocate(tokens_per_batch)
                            : std::shared_ptr<int32_t[]>(new int32_t[tokens_per_batch]);
  };
  shared_->depth = options.depth;
  shared_->next_batch = options.first_batch;
  for (int i = 0; i < options.depth; ++i) {
    shared_->idle.push_back(
        std::make_unique<Batch>(Batch{0, allocate(), allocate(), tokens_per_batch}));
  }
  shared_->thread = std::thread([shared = shared_.get(), fill = std::move(fill),
                                 first = options.first_batch] { shared->run(fill, first); });
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->changed.notify_all();
  shared_->thread.join();
}

std::shared_ptr<const Batch> Prefetcher::next() {
  std::unique_lock lock(shared_->mutex);
  check(shared_->in_use < shared_->depth, "all ", shared_->depth,
        " batches of the prefetcher are kept; release one before asking for the next");
  shared_->changed.wait(lock, [&] { return !shared_->ready.empty() || shared_->failure; });
  if (shared_->ready.empty()) std::rethrow_exception(shared_->failure);
  std::unique_ptr<Batch> batch = std::move(shared_->ready.front());
  shared_->ready.pop_front();
  ++shared_->in_use;
  ++shared_->next_batch;
  lock.unlock();
  const auto give_back = [shared = shared_](const Batch* returned) {
    std::unique_ptr<Batch> owner(const_cast<Batch*>(returned));
    {
      const std::lock_guard guard(shared->mutex);
      shared->idle.push_back(std::move(owner));
      --shared->in_use;
    }
    shared->changed.notify_all();
  };
  return {batch.release(), give_back};
}

int64_t Prefetcher::next_batch() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->next_batch;
}

}  // namespace binade::data
