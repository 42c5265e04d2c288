// Compiled with -mavx512f: nothing here may run before strip_kernel() has asked the processor.
#include <binade/core/kernels/cpu/conv/strip_kernel_tile.h>

namespace binade::kernels::cpu {

// 28 sums, two vectors of b and one element of a fill the 32 registers.
constinit const StripKernel kStripKernelAvx512 =
    make_strip_kernel<64>(0.5, std::make_integer_sequence<int, StripKernel::kMostRows>());

}  // namespace binade::kernels::cpu
