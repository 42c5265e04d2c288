#include <binade/core/kernels/cpu/matmul/micro_kernel.h>

#include <binade/core/kernels/cpu/matmul/micro_kernel_tile.h>

namespace binade::kernels::cpu {

// 12 sums, two vectors of b and one element of a in 16 registers. Steps are short: counting each of
// them costs a tenth of the time.
constinit const MicroKernel kMicroKernelAvx2 =
    make_micro_kernel<32, 2, MicroKernel::kFetchSteps>(std::make_integer_sequence<int, 6>());

const MicroKernel& micro_kernel() {
  static const MicroKernel& best =
      __builtin_cpu_supports("avx512f") ? kMicroKernelAvx512 : kMicroKernelAvx2;
  return best;
}

}  // namespace binade::kernels::cpu
