// The rows of a pass as a kernel reads them (private to this folder).
#pragma once

#include <binade/core/cuda/faults.h>
#include <binade/core/kernels/decode.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

inline const int32_t* i32_or_null(const Array& array) {
  return array.defined() ? device_data<const int32_t>(array) : nullptr;
}

struct PassView {
  const int32_t *lengths, *slots, *counts, *running;
  int first, tokens;

  // `row_tokens` a row.
  PassView(const PassRows& rows, int64_t row_tokens)
      : lengths(i32_or_null(rows.lengths)),
        slots(i32_or_null(rows.slots)),
        counts(i32_or_null(rows.counts)),
        running(i32_or_null(rows.running)),
        first(static_cast<int>(rows.first)),
        tokens(static_cast<int>(row_tokens)) {}

  __device__ __forceinline__ int slot(int row) const { return slots ? slots[row] : row; }
  __device__ __forceinline__ int length(int row) const { return lengths ? lengths[slot(row)] : 0; }
  // Where the row's first token goes.
  __device__ __forceinline__ int begin(int row) const { return length(row) + first; }
  __device__ __forceinline__ int count(int row) const {
    if (running && running[slot(row)] <= 0) return 0;
    return counts ? max(0, min(counts[row], tokens)) : tokens;
  }
};

}  // namespace binade::kernels::cuda
