// Large products of packed operands. Private to this folder.
#pragma once

#include <binade/core/kernels/cpu/matmul/matmul_problem.h>

namespace binade::kernels::cpu {

// Whether packing the operands pays: one large product of f32, f16 or bf16.
bool worth_packing(const MatmulProblem& problem);
// With the micro-kernel.
void packed_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue);
// On BF16 tiles, where tile_kernel() is not null.
void split_matmul(const MatmulProblem& problem, const MatmulEpilogue& epilogue);

}  // namespace binade::kernels::cpu
