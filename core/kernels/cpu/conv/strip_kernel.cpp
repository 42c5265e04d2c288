#include <binade/core/kernels/cpu/conv/strip_kernel.h>

#include <binade/core/kernels/cpu/conv/strip_kernel_tile.h>

namespace binade::kernels::cpu {

// 12 sums, two vectors of b and one element of a in 16 registers.
constinit const StripKernel kStripKernelAvx2 =
    make_strip_kernel<32>(2.0 / 3, std::make_integer_sequence<int, 6>());

const StripKernel& strip_kernel() {
  static const StripKernel& best =
      __builtin_cpu_supports("avx512f") ? kStripKernelAvx512 : kStripKernelAvx2;
  return best;
}

}  // namespace binade::kernels::cpu
