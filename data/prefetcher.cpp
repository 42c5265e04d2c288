#include <binade/data/prefetcher.h>

#include <condition_variable>
#include <mutex>
#include <vector>

#include <binade/core/error.h>

namespace binade::data {

// The batches' buffers, which go round. Outlives the prefetcher while batches are kept.
struct Prefetcher::Buffers {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::unique_ptr<Batch>> idle;
  int in_use = 0;  // handed out and not yet returned
  int depth = 0;
  bool stop = false;

  // A batch to fill, which comes back here; waits for one.
  static std::shared_ptr<Batch> take(const std::shared_ptr<Buffers>& all) {
    std::unique_lock lock(all->mutex);
    all->changed.wait(lock, [&] { return all->stop || !all->idle.empty(); });
    check(!all->stop, "the prefetcher stops");  // nobody is going to ask for this batch
    std::unique_ptr<Batch> batch = std::move(all->idle.back());
    all->idle.pop_back();
    return {batch.release(), [all](Batch* returned) {
              std::unique_ptr<Batch> owner(returned);
              {
                const std::lock_guard guard(all->mutex);
                all->idle.push_back(std::move(owner));
              }
              all->changed.notify_all();
            }};
  }
};

Prefetcher::Prefetcher(Fill fill, int64_t tokens_per_batch, const PrefetchOptions& options)
    : buffers_(std::make_shared<Buffers>()) {
  check(options.depth >= 1, "a prefetcher must hold at least one batch, not ", options.depth);
  check(tokens_per_batch >= 1, "a batch must have at least one token, not ", tokens_per_batch);
  const auto allocate = [&] {
    return options.allocate ? options.allocate(tokens_per_batch)
                            : std::shared_ptr<int32_t[]>(new int32_t[tokens_per_batch]);
  };
  buffers_->depth = options.depth;
  for (int i = 0; i < options.depth; ++i)
    buffers_->idle.push_back(
        std::make_unique<Batch>(Batch{0, allocate(), allocate(), tokens_per_batch}));
  batches_.emplace(
      [fill = std::move(fill), buffers = buffers_](int64_t number) {
        std::shared_ptr<Batch> batch = Buffers::take(buffers);
        batch->number = number;
        const auto size = static_cast<size_t>(batch->tokens);
        fill(number, {batch->inputs.get(), size}, {batch->targets.get(), size});
        return batch;
      },
      PrefetchWorkers{.workers = 1, .ahead = options.depth, .first = options.first_batch});
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(buffers_->mutex);
    buffers_->stop = true;
  }
  buffers_->changed.notify_all();
}

std::shared_ptr<const Batch> Prefetcher::next() {
  {
    const std::lock_guard lock(buffers_->mutex);
    check(buffers_->in_use < buffers_->depth, "all ", buffers_->depth,
          " batches of the prefetcher are kept; release one before asking for the next");
  }
  std::shared_ptr<Batch> batch = batches_->next();
  const std::lock_guard lock(buffers_->mutex);
  ++buffers_->in_use;
  return {batch.get(), [buffers = buffers_, batch](const Batch*) mutable {
            {
              const std::lock_guard guard(buffers->mutex);
              --buffers->in_use;
            }
            batch.reset();
          }};
}

int64_t Prefetcher::next_batch() const {
  return batches_->next_number();
}

}  // namespace binade::data
