// What attention against a cache is told (private to this folder).
#pragma once

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

// On tensor cores (attend_tiles.cu): halves of 64 or 128 elements in whole rows, from compute
// capability 8.0 on.
bool suits_tiles(const AttendProblem& p, DType dtype);
void attend_tiles(AttendProblem p, const Array& q, const Array& keys, const Array& values,
                  const Array& out);

}  // namespace binade::kernels::cuda
