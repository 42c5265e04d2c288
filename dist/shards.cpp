#include <binade/dist/shards.h>

#include <algorithm>

#include <binade/core/error.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::dist {

Shards::Shards(int64_t elements, int ranks, int64_t bucket, int64_t chunk)
    : elements_(elements), ranks_(ranks), chunk_(chunk) {
  check(elements > 0 && ranks > 0 && bucket > 0 && chunk > 0, "ranks share out a buffer of ",
        elements, " elements in buckets of ", bucket, " among ", ranks);
  const int64_t unit = ranks * chunk;
  bucket_ = (bucket + unit - 1) / unit * unit;
}

Slice Shards::bucket(int64_t index) const {
  return {index * bucket_, std::min(elements_, (index + 1) * bucket_)};
}

Slice Shards::slice(int64_t index, int rank) const {
  const Slice all = bucket(index);
  const Slice own = slices(all.end - all.begin, ranks_, chunk_)[static_cast<size_t>(rank)];
  return {all.begin + own.begin, all.begin + own.end};
}

int64_t Shards::owned_before(int rank, int64_t element) const {
  const int64_t full = element / bucket_;
  const int64_t owned = full * (bucket_ / ranks_);
  if (full >= buckets()) return owned;
  const Slice last = slice(full, rank);
  return owned + std::clamp(element, last.begin, last.end) - last.begin;
}

Shards Shards::of_chunks() const {
  return {(elements_ + chunk_ - 1) / chunk_, ranks_, bucket_ / chunk_, 1};
}

std::vector<std::pair<Array, Array>> Shards::views(const Array& whole, int rank,
                                                   const Array& shard) const {
  check(whole.size(0) == elements_ && shard.size(0) == owned(rank), "the shard of rank ", rank,
        " of ", elements_, " elements has ", owned(rank), ", got ", shard.shape(), " and ",
        whole.shape());
  const int64_t width = whole.numel() / elements_, full = elements_ / bucket_;
  const int64_t each = bucket_ / ranks_ * width;  // numbers of a full bucket's slice
  const Array all = whole.view({whole.numel()}), own = shard.view({shard.numel()});
  std::vector<std::pair<Array, Array>> views;
  if (full > 0)
    views.emplace_back(
        all.slice(0, 0, full * ranks_ * each).view({full, ranks_, each}).select(1, rank),
        own.slice(0, 0, full * each).view({full, each}));
  if (full < buckets()) {
    const Slice last = slice(full, rank);
    if (last.end > last.begin)
      views.emplace_back(all.slice(0, last.begin * width, last.end * width),
                         own.slice(0, full * each, own.numel()));
  }
  return views;
}

void Shards::take(const Array& whole, int rank, const Array& shard) const {
  for (const auto& [there, here] : views(whole, rank, shard))
    BINADE_DISPATCH(shard.device(), copy(there, here));
  shard.bump_version();
}

void Shards::put(const Array& shard, int rank, const Array& whole) const {
  for (const auto& [there, here] : views(whole, rank, shard))
    BINADE_DISPATCH(shard.device(), copy(here, there));
  whole.bump_version();
}

std::vector<Communicator::Block> Shards::blocks(const Array& whole, int64_t index) const {
  std::vector<Communicator::Block> blocks;
  for (int rank = 0; rank < ranks_; ++rank) {
    const Slice part = slice(index, rank);
    const Array theirs = whole.slice(0, part.begin, part.end);
    blocks.push_back({theirs.data(), theirs.bytes()});
  }
  return blocks;
}

void Shards::all_gather(Communicator& ranks, const Array& whole) const {
  for (int64_t index = 0; index < buckets(); ++index) ranks.all_gather(blocks(whole, index));
  whole.bump_version();
}

}  // namespace binade::dist
