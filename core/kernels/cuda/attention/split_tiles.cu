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

// A lane's slots of a tile, ready for meets(), and the samples of the whole tile.
struct LaneSlots {
  Slot slots[kSlotsEach];
  int first, last;  // first > last: all are spare

  __device__ LaneSlots(bool asks, const Side& side, int batch, int tile) {
    int least = INT32_MAX, most = -1;
#pragma unroll
    for (int i = 0; i < kSlotsEach; ++i) {
      const int place = tile * kSplitTile + i * kWarp + static_cast<int>(threadIdx.x) % kWarp;
      const Slot slot = slot_or_spare(side.slots, batch, place, side.count);
      slots[i] = asks ? asking(slot) : asked(slot);
      if (slot.sample < 0) continue;
      least = min(least, slot.sample);
      most = max(most, slot.sample);
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
      const bool seen = own_asks ? meets(slot, other) : meets(other, slot);
      any |= seen;
      all &= seen;
    }
    if (i % 16 == 15 && __any_sync(0xffffffffu, any) && !__all_sync(0xffffffffu, all))
      return kMixed;
  }
  return __any_sync(0xffffffffu, any) ? kWhole : kNone;
}

// Lists that are to be made: for tiles of `own` those of `other`.
struct ListsToMake {
  Side own, other;
  bool own_asks;
  int tiles, others;
  int32_t* lists;
};

// Block (tile, row of the batch, side). Its warps take the other tiles in turn; the first one lists
// them.
__global__ void __launch_bounds__(kBlock) list_tiles(ListsToMake of_queries, ListsToMake of_keys) {
  const ListsToMake& make = blockIdx.z == 0 ? of_queries : of_keys;
  extern __shared__ uint8_t kinds[];  // of the other tiles
  __shared__ Slot of_warps[kWarps][kSplitTile];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int tile = static_cast<int>(blockIdx.x), batch = static_cast<int>(blockIdx.y);
  if (tile >= make.tiles) return;
  const LaneSlots own(make.own_asks, make.own, batch, tile);
  for (int other = warp; other < make.others; other += kWarps) {
    const LaneSlots theirs(!make.own_asks, make.other, batch, other);
    Kind kind = kNone;
    if (own.first <= theirs.last && theirs.first <= own.last) {
#pragma unroll
      for (int i = 0; i < kSlotsEach; ++i) of_warps[warp][i * kWarp + lane] = theirs.slots[i];
      __syncwarp();
      kind = kind_of(own, of_warps[warp], make.own_asks);
      __syncwarp();
    }
    if (lane == 0) kinds[other] = kind;
  }
  __syncthreads();
  if (warp != 0) return;
  const int others = make.others;
  int32_t* const list =
      make.lists + (static_cast<int64_t>(batch) * make.tiles + tile) * (1 + others);
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

SplitTiles::SplitTiles(const AttentionSplits& splits, bool of_keys)
    : batches_(static_cast<int>(splits.queries.size(0))),
      queries_(tiles_of(splits.queries)),
      keys_(tiles_of(splits.keys)),
      data_(size() + (of_keys ? int64_t{batches_} * keys_ * (1 + queries_) : 0)) {
  const auto side = [](const Array& slots) {
    return Side{slot_table(slots), static_cast<int>(slots.size(2))};
  };
  const Side queries = side(splits.queries), keys = side(splits.keys);
  const dim3 grid(static_cast<unsigned>(of_keys ? std::max(queries_, keys_) : queries_),
                  static_cast<unsigned>(batches_), of_keys ? 2 : 1);
  launch("split_tiles", list_tiles, grid, kBlock, static_cast<size_t>(std::max(queries_, keys_)),
         ListsToMake{queries, keys, true, queries_, keys_, data_.data()},
         ListsToMake{keys, queries, false, keys_, queries_, data_.data() + size()});
}

}  // namespace binade::kernels::cuda
