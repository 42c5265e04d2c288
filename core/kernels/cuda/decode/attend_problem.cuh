// What attention against a cache is told (private to this folder).
#pragma once

#include <algorithm>

#include <binade/core/kernels/cuda/decode/attend.cuh>

namespace binade::kernels::cuda {

struct AttendStrides {
  int64_t batch, head, row;
};

struct AttendProblem {
  PassView pass;
  int heads, key_heads, dim, capacity;
  AttendStrides q, cache_k, cache_v, out;
  const int64_t* visible;  // null: causal
  int visible_row;         // words of a row: 0 or T
  float scale;             // with log2(e)
  int window;              // 0: none
  int shares;              // of the keys, a power of two
  bool whole;              // rows may be read and written in vectors

  __host__ __device__ int group() const { return heads / key_heads; }
  // Queries of a row of the pass that read a key head.
  __host__ __device__ int queries() const { return group() * pass.tokens; }
};

// Chooses how many blocks share the keys of a tile of queries, so that there are
// `blocks_per_processor` and a share is worth its start, and gives the grid: (shares, tiles of all
// key heads, rows of the pass). Devices without clusters have one share. The number follows from
// the capacity and the batch, never from the lengths, which only the device knows.
inline dim3 share_keys(AttendProblem& p, int64_t batch, int64_t tile_queries,
                       int64_t blocks_per_processor, int64_t least_share) {
  const int64_t tiles = p.key_heads * ceil_div(p.queries(), tile_queries);
  check(tiles <= 65535 && batch <= 65535,
        "cached attention takes batches and heads · queries below 65536, got a batch of ", batch,
        " and ", tiles, " tiles");
  const auto& device = ::binade::cuda::device_properties();
  const int64_t wanted = std::min(blocks_per_processor * device.multiprocessors / (batch * tiles),
                                  ceil_div(p.capacity, 2 * least_share));
  p.shares = 1;
  while (device.major >= 9 && p.shares < std::min<int64_t>(wanted, kMostShares)) p.shares *= 2;
  return dim3(static_cast<unsigned>(p.shares), static_cast<unsigned>(tiles),
              static_cast<unsigned>(batch));
}

// On tensor cores (attend_tiles.cu): halves of 64 or 128 elements in whole rows, from compute
// capability 8.0 on.
bool suits_tiles(const AttendProblem& p, DType dtype);
void attend_tiles(AttendProblem p, const Array& q, const Array& keys, const Array& values,
                  const Array& out);

}  // namespace binade::kernels::cuda
