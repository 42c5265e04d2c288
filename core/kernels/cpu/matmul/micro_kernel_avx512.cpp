// Compiled with -mavx512f: nothing here may run before micro_kernel() has asked the processor.
#include <binade/core/kernels/cpu/matmul/micro_kernel_tile.h>

namespace binade::kernels::cpu {

// 28 sums, two vectors of b and one element of a fill the 32 registers.
constinit const MicroKernel kMicroKernelAvx512 =
    make_micro_kernel<64, 2, 1>(std::make_integer_sequence<int, MicroKernel::kMostRows>());

}  // namespace binade::kernels::cpu
