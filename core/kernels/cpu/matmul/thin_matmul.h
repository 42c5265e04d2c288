// A matmul of a few rows with a large matrix whose columns are contiguous, as a weight (N, K) is
// when decoding multiplies by its transpose. The time is that of reading the matrix, so it is read
// once and in its own dtype. Private to this folder.
#pragma once

#include <binade/core/kernels/cpu/matmul/matmul_problem.h>

namespace binade::kernels::cpu {

// Whether it is such a problem: one matrix of f32, f16 or bf16, and at most 16 rows.
bool is_thin(const MatmulProblem& problem);
// Sums are f32. A row's sums do not depend on how many rows there are, bit by bit.
void thin_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue);

// gemm (block_gemm.h) of at most 16 rows of a with a b that lies by columns, on the calling thread.
void thin_gemm(int64_t m, int64_t n, int64_t k, Block<const float> a, Block<const float> columns,
               bool accumulate, float* c, int64_t leading_c);

}  // namespace binade::kernels::cpu
