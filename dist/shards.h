// Shards: which elements of a buffer each rank of a run owns.
#pragma once

#include <cstdint>
#include <vector>

#include <binade/core/array.h>
#include <binade/core/update.h>
#include <binade/dist/communicator.h>

namespace binade::dist {

// The buffer is cut into buckets, and each rank owns a slice of every bucket: so the gradients of a
// bucket go to all owners at once, when backward has written that part of the buffer. What a rank
// owns of all buckets, in order, is its shard. Slices are whole chunks of gradients
// (kGradientChunk, core/update.h), but for the last of a buffer.
class Shards {
 public:
  // Of a buffer of one element each; buckets have about `bucket` elements: a multiple of
  // ranks·chunk, the last one what is left.
  Shards(int64_t elements, int ranks, int64_t bucket, int64_t chunk = kGradientChunk);

  int64_t elements() const { return elements_; }
  int ranks() const { return ranks_; }
  int64_t buckets() const { return (elements_ + bucket_ - 1) / bucket_; }
  // The elements of a bucket; those of them that a rank owns.
  Slice bucket(int64_t index) const;
  Slice slice(int64_t index, int rank) const;
  // How many elements a rank owns, of all and of those in front of `element`.
  int64_t owned(int rank) const { return owned_before(rank, elements_); }
  int64_t owned_before(int rank, int64_t element) const;
  // The shards of a buffer that has one row for every chunk.
  Shards of_chunks() const;

  // shard (owned(rank), ...) ← what the rank owns of whole (elements(), ...), and back. Contiguous,
  // of one dtype, and on one device; a handful of copies whatever the number of buckets.
  void take(const Array& whole, int rank, const Array& shard) const;
  void put(const Array& shard, int rank, const Array& whole) const;
  // Where the ranks' elements of a bucket lie in `whole` (elements()).
  std::vector<Communicator::Block> blocks(const Array& whole, int64_t index) const;
  // Every rank's elements of `whole` become what that rank has there. For all ranks.
  void all_gather(Communicator& ranks, const Array& whole) const;

 private:
  // Places of a rank's elements in the buffer and in its shard, as views of equal shapes.
  std::vector<std::pair<Array, Array>> views(const Array& whole, int rank,
                                             const Array& shard) const;

  int64_t elements_;
  int ranks_;
  int64_t bucket_, chunk_;
};

}  // namespace binade::dist
