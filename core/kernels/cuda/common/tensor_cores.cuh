// Tensor cores' m16n8k16 multiplications, and loads of their operands from shared memory. Of a
// product's 16 rows a lane has rows lane / 4 and 8 more, of each 8 columns those at 2 · (lane % 4)
// and 1 more: c[0], c[1] of the upper row, c[2], c[3] of the lower one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include <binade/core/dtype.h>
#include <binade/core/error.h>

namespace binade::kernels::cuda {

// Calls body with a value of the type that dtype names.
template <class Body>
void visit_half(DType dtype, const char* name, const Body& body) {
  if (dtype == DType::f16) return body(__half{});
  if (dtype == DType::bf16) return body(__nv_bfloat16{});
  fail(name, " takes f16 and bf16, got ", name_of(dtype));
}

// c += a · b; the pointer says what the words hold two of.
__device__ __forceinline__ void multiply_add(float (&c)[4], const __half*, const uint32_t (&a)[4],
                                             uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void multiply_add(float (&c)[4], const __nv_bfloat16*,
                                             const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four matrices of 8 × 8 halves from shared memory, of which lane 8 · i + r gives the address of
// row r of matrix i (16-byte aligned): a lane gets of each the elements at row lane / 4 and columns
// 2 · (lane % 4) + {0, 1}, or at those rows and that column.
__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&words)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

}  // namespace binade::kernels::cuda
