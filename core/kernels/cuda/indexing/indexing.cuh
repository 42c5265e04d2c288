// What the kernels that read or write by index share.
#pragma once

#include <bit>

#include <binade/core/cuda/faults.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

inline constexpr int64_t kBadIndex = -1;

// Indices of dtype i32 or i64 into a dimension of `size` positions.
struct IndexReader {
  const void* data;
  bool wide;  // i64
  int64_t size;
  uint32_t* fault;

  IndexReader(const Array& index, int64_t target_size)
      : data(device_pointer(index)),
        wide(index.dtype() == DType::i64),
        size(target_size),
        fault(::binade::cuda::fault_word()) {
    check(wide || index.dtype() == DType::i32, "indices need dtype i32 or i64, got ",
          name_of(index.dtype()));
  }

  __device__ __forceinline__ int64_t read(int64_t offset) const {
    return wide ? static_cast<const int64_t*>(data)[offset]
                : static_cast<const int32_t*>(data)[offset];
  }
  // kBadIndex, and a note in the fault word, if the index is out of range.
  __device__ __forceinline__ int64_t checked(int64_t index) const {
    if (index >= 0 && index < size) return index;
    note_fault(fault, DeviceFault::index_out_of_range);
    return kBadIndex;
  }
  // The checked index at `offset`.
  __device__ __forceinline__ int64_t at(int64_t offset) const { return checked(read(offset)); }
};

// out[i0..][j][..] = x[i0..][index[i0..][j][..]][..] along `dim`, converted, for index of out's
// shape.
void gather_any(const char* name, const Array& x, int dim, const Array& index, const Array& out);
// The same for one dtype by way of shared memory; false, and nothing is done, where rows of x do
// not fit there, are not contiguous, or it does not pay.
bool gather_in_rows(const char* name, const Array& x, int dim, const Array& index,
                    const Array& out);

// out = beta·out, rows along `dim` += rows of source by the vector `index`.
void add_rows(const char* name, const Array& out, int dim, const Array& index, const Array& source,
              float beta);

}  // namespace binade::kernels::cuda
