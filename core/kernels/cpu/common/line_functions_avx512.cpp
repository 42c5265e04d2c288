// Compiled with -mavx512f: nothing here may run before line_functions() has asked the processor.
#include <binade/core/kernels/cpu/common/line_functions.h>
#include <binade/core/kernels/cpu/common/line_functions_lanes.h>

namespace binade::kernels::cpu {

constinit const LineFunctions<float> kLineFunctionsAvx512 = make_line_functions<float>();

}  // namespace binade::kernels::cpu
