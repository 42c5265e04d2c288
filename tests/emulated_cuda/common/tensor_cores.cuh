// In place of core/kernels/cuda/common/tensor_cores.cuh: the same functions, whose lanes exchange
// what the PTX manual says ("Matrix Fragments for mma.m16n8k16", "ldmatrix").
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <array>
#include <cstdint>

#include <binade/core/dtype.h>
#include <binade/core/error.h>

#include <binade/core/kernels/cuda/common/async_copy.cuh>

namespace binade::kernels::cuda {

template <class Body>
void visit_half(DType dtype, const char* name, const Body& body) {
  if (dtype == DType::f16) return body(__half{});
  if (dtype == DType::bf16) return body(__nv_bfloat16{});
  fail(name, " takes f16 and bf16, got ", name_of(dtype));
}

// What all lanes have.
inline std::array<uint64_t, 32> of_all_lanes(uint64_t value) {
  const ::emulated::Given& given =
      ::emulated::meet_warp({"tensor cores", std::source_location::current()}, ~0u, value);
  if (given.lanes != ~0u) ::emulated::fail_launch("a lane takes no part in a multiplication");
  std::array<uint64_t, 32> values;
  std::copy_n(given.values, 32, values.begin());
  return values;
}
inline uint64_t word_pair(uint32_t low, uint32_t high) {
  return low | uint64_t{high} << 32;
}

// Element of a pair of words: 0 and 1 lie in the first, 2 and 3 in the second.
template <class Half>
float element_of(uint64_t words, int element) {
  const auto bits = static_cast<uint16_t>(words >> (16 * element));
  Half half;
  memcpy(&half, &bits, sizeof(half));
  return static_cast<float>(half);
}

template <class Half>
void multiply_add(float (&c)[4], const Half*, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const auto upper = of_all_lanes(word_pair(a[0], a[2])),
             lower = of_all_lanes(word_pair(a[1], a[3])), right = of_all_lanes(word_pair(b0, b1));
  const int lane = ::emulated::lane_of_thread();
  for (int i = 0; i < 4; ++i) {
    const auto& left = i < 2 ? upper : lower;
    const int row = lane / 4, column = lane % 4 * 2 + i % 2;
    double sum = c[i];
    for (int k = 0; k < 16; ++k) {
      const int owner = k % 8 / 2, element = k / 8 * 2 + k % 2;
      sum += static_cast<double>(element_of<Half>(left[row * 4 + owner], element)) *
             element_of<Half>(right[column * 4 + owner], element);
    }
    c[i] = static_cast<float>(sum);
  }
}

inline const uint16_t* row_at(uint64_t address) {
  if (address % 16 != 0) ::emulated::fail_launch("a row of a matrix is not aligned");
  return reinterpret_cast<const uint16_t*>(at_shared_address(static_cast<uint32_t>(address)));
}
inline void load_matrices(uint32_t (&words)[4], uint32_t address) {
  const auto rows = of_all_lanes(address);
  const int lane = ::emulated::lane_of_thread();
  for (int i = 0; i < 4; ++i)
    memcpy(&words[i], row_at(rows[8 * i + lane / 4]) + lane % 4 * 2, sizeof(uint32_t));
}
inline void load_matrices_transposed(uint32_t (&words)[4], uint32_t address) {
  const auto rows = of_all_lanes(address);
  const int lane = ::emulated::lane_of_thread();
  for (int i = 0; i < 4; ++i) {
    const int first = 8 * i + lane % 4 * 2, column = lane / 4;
    words[i] = row_at(rows[first])[column] | uint32_t{row_at(rows[first + 1])[column]} << 16;
  }
}

}  // namespace binade::kernels::cuda
