// The order in which a running fold takes the positions of a row.
#pragma once

#include <cstdint>

namespace binade::kernels::cuda {

struct Walk {
  int64_t length;
  bool reverse;
  __device__ int64_t position(int64_t i) const { return reverse ? length - 1 - i : i; }
  // Which of `vectors` is the ith of the walk; −1: it is over.
  __device__ int64_t vector(int64_t i, int64_t vectors) const {
    return i >= vectors ? -1 : reverse ? vectors - 1 - i : i;
  }
  // Whether the walk's vectors [first, first + count) exist and are whole.
  __device__ bool whole_vectors(int64_t first, int64_t count, int vec) const {
    const int64_t complete = length / vec, partial = length % vec == 0 ? 0 : 1;
    return reverse ? first >= partial && first + count <= complete + partial
                   : first + count <= complete;
  }
};

}  // namespace binade::kernels::cuda
