// Batches of tokens made ready by a thread of their own, in buffers that are used again: an
// OrderedPrefetcher (data/ordered_prefetcher.h) that allocates nothing on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include <binade/data/ordered_prefetcher.h>

namespace binade::data {

// One batch: inputs and targets, `tokens` of each.
struct Batch {
  int64_t number = 0;
  std::shared_ptr<int32_t[]> inputs, targets;
  int64_t tokens = 0;
};

struct PrefetchOptions {
  int depth = 3;            // batches that may be ready or in use at once, at least 1
  int64_t first_batch = 0;  // where to go on when a run is resumed
  // Gives room for `count` integers, freed by the pointer's deleter; pinned memory, for example.
  // Called by the constructor, 2 * depth times. Plain memory if empty.
  std::function<std::shared_ptr<int32_t[]>(int64_t count)> allocate;
};

// Hands out batches first_batch, first_batch + 1, ... in this order, filled in the background.
// next() is for one thread at a time.
class Prefetcher {
 public:
  // Fills the inputs and targets of batch `number`. Runs on the prefetcher's thread.
  using Fill =
      std::function<void(int64_t number, std::span<int32_t> inputs, std::span<int32_t> targets)>;

  // Error when depth or tokens_per_batch is less than 1.
  Prefetcher(Fill fill, int64_t tokens_per_batch, const PrefetchOptions& options = {});
  ~Prefetcher();  // stops the thread after the batch that it is filling

  // The next batch; waits for it. Its buffers are filled again only when the last copy of the
  // pointer is gone: keep it until an asynchronous copy from them is done. With `depth` batches
  // kept, next() would wait forever and throws Error instead. Rethrows what `fill` threw for this
  // batch; the same again if called again.
  std::shared_ptr<const Batch> next();

  // The number of the batch that next() gives: the state to save.
  int64_t next_batch() const;

 private:
  struct Buffers;
  std::shared_ptr<Buffers> buffers_;
  std::optional<OrderedPrefetcher<std::shared_ptr<Batch>>> batches_;
};

}  // namespace binade::data
