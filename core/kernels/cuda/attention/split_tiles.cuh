// Which tiles of 64 queries and 64 keys see each other, in rows that pack splits (private to this
// folder). The lists are made on the device: their sizes depend on shapes alone, so that a captured
// step works for whatever its rows hold.
#pragma once

#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/split_rules.h>

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

inline constexpr int kSplitTile = 64;

inline SlotTable slot_table(const Array& slots) {
  return {device_data<const int32_t>(slots), slots.stride(0), slots.stride(1)};
}

// A slot of a row of `count`; a spare one behind its end.
__device__ __forceinline__ Slot slot_or_spare(const SlotTable& slots, int64_t batch, int place,
                                              int count) {
  return place < count ? slots.at(batch, place) : Slot{-1, 0, 0, 0};
}

// A list's entry: a tile, and whether some of its pairs do not see each other.
struct SeenTile {
  int32_t code;
  __device__ __forceinline__ int first() const { return (code >> 1) * kSplitTile; }
  __device__ __forceinline__ bool mixed() const { return (code & 1) != 0; }
};

struct TileLists {
  const int32_t* data;  // (B, tiles, 1 + others): how many, and their codes in rising order
  int tiles, others;

  __device__ __forceinline__ const int32_t* at(int batch, int tile) const {
    return data + (static_cast<int64_t>(batch) * tiles + tile) * (1 + others);
  }
};

// The lists of a call, free again as a Workspace is.
class SplitTiles {
 public:
  // of_keys: lists for both sides, otherwise for the queries alone.
  SplitTiles(const AttentionSplits& splits, bool of_keys);
  // The keys that each tile of queries sees; the queries that see each tile of keys.
  TileLists of_queries() const { return {data_.data(), queries_, keys_}; }
  TileLists of_keys() const { return {data_.data() + size(), keys_, queries_}; }

 private:
  int64_t size() const { return int64_t{batches_} * queries_ * (1 + keys_); }
  int batches_, queries_, keys_;  // rows, tiles
  Workspace<int32_t> data_;
};

}  // namespace binade::kernels::cuda
