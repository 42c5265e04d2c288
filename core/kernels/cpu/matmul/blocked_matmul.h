// Large matmuls: all threads share blocks of b, packed into panels, and each takes blocks of rows
// of a. The panels are those of packed_panels.h (f32 vectors) or of bf16_split.h (BF16 tiles).
// Private to this folder.
#pragma once

#include <binade/core/kernels/cpu/matmul/matmul_problem.h>

namespace binade::kernels::cpu {

// Whether packing the operands pays: one large matmul of f32, f16 or bf16.
bool worth_packing(const MatmulProblem& problem);
// With the micro-kernel.
void blocked_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue);
// On BF16 tiles, where tile_kernel() is not null.
void bf16_split_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue);

}  // namespace binade::kernels::cpu
