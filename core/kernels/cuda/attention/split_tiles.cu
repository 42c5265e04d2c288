#include <binade/core/kernels/cuda/attention/split_tiles.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kWarps = kBlock / kWarp;
constexpr int kSlotsEach = kSplitTile / kWarp;  // of a tile, a lane
enum Kind : uint8_t { kNone, kWhole, kMixed };

struct Side {
  SlotTable slots;
  int count;
};

// A lane's slots of a tile, and the samples of the whole tile.
struct LaneSlots {
  Slot slots[kSlotsEach];
  int first, last;  // first > last: all are spare

  __device__ LaneSlots(const Side& side, int batch, int tile) {
    int least = INT32_MAX, most = -1;
#pragma unroll
    for (int i = 0; i < kSlotsEach; ++i) {
      const int place = tile * kSplitTile + i * kWarp + static_cast<int>(threadIdx.x) % kWarp;
      slots[i] = slot_or_spare(side.slots, batch, place, side.count);
      if (slots[i].sample < 0) continue;
      least = min(least, slots[i].sample);
      most = max(most, slots[i].sample);
    }
    first = __reduce_min_sync(0xffffffffu, least);
    last = __reduce_max_sync(0xffffffffu, most);
  }
};

// How the tile sees (own_asks) or is seen by a tile whose slots lie in `others`.
__device__ Kind kind_of(const LaneSlots& own, const Slot* others, bool own_asks) {
  bool any = false, all = true;
  for (int i = 0; i < kSplitTile; ++i) {
    const Slot other = others[i];
#pragma unroll
    for (const Slot& slot : own.slots) {
      const bool seen = own_asks ? sees(slot, other) : sees(other, slot);
      any |= seen;
      all &= seen;
    }
    if (i % 16 == 15 && __any_sync(0xffffffffu, any) && !__all_sync(0xffffffffu, all))
      return kMixed;
  }
  return __any_sync(0xffffffffu, any) ? kWhole : kNone;
}

// Block (tile, row of the batch). Its warps take the other tiles in turn; the first one lists them.
__global__ void __launch_bounds__(kBlock)
    list_tiles(Side own_side, Side other_side, bool own_asks, int others, int32_t* lists) {
  extern __shared__ uint8_t kinds[];  // of the other tiles
  __shared__ Slot of_warps[kWarps][kSplitTile];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int tile = static_cast<int>(blockIdx.x), batch = static_cast<int>(blockIdx.y);
  const LaneSlots own(own_side, batch, tile);
  for (int other = warp; other < others; other += kWarps) {
    const LaneSlots theirs(other_side, batch, other);
    Kind kind = kNone;
    if (own.first <= theirs.last && theirs.first <= own.last) {
#pragma unroll
      for (int i = 0; i < kSlotsEach; ++i) of_warps[warp][i * kWarp + lane] = theirs.slots[i];
      __syncwarp();
      kind = kind_of(own, of_warps[warp], own_asks);
      __syncwarp();
    }
    if (lane == 0) kinds[other] = kind;
  }
  __syncthreads();
  if (warp != 0) return;
  int32_t* const list = lists + (static_cast<int64_t>(batch) * gridDim.x + tile) * (1 + others);
  int count = 0;
  for (int first = 0; first < others; first += kWarp) {
    const int other = first + lane;
    const uint8_t kind = other < others ? kinds[other] : static_cast<uint8_t>(kNone);
    const unsigned listed = __ballot_sync(0xffffffffu, kind != kNone);
    if (kind != kNone)
      list[1 + count + __popc(listed & ((1u << lane) - 1))] = other * 2 + (kind == kMixed);
    count += __popc(listed);
  }
  if (lane == 0) list[0] = count;
}

int tiles_of(const Array& slots) {
  return static_cast<int>(ceil_div(slots.size(2), kSplitTile));
}

}  // namespace

SplitTiles::SplitTiles(const AttentionSplits& splits, Of of)
    : batches_(static_cast<int>(splits.queries.size(0))),
      tiles_(tiles_of(of == kQueries ? splits.queries : splits.keys)),
      others_(tiles_of(of == kQueries ? splits.keys : splits.queries)),
      data_(int64_t{batches_} * tiles_ * (1 + others_)) {
  const auto side = [](const Array& slots) {
    return Side{slot_table(slots), static_cast<int>(slots.size(2))};
  };
  const Side queries = side(splits.queries), keys = side(splits.keys);
  const bool asks = of == kQueries;
  launch("split_tiles", list_tiles,
         dim3(static_cast<unsigned>(tiles_), static_cast<unsigned>(batches_)), kBlock,
         static_cast<size_t>(others_), asks ? queries : keys, asks ? keys : queries, asks, others_,
         data_.data());
}

}  // namespace binade::kernels::cuda
