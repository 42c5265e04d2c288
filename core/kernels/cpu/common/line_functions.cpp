#include <binade/core/kernels/cpu/common/line_functions.h>

#include <binade/core/kernels/cpu/common/line_functions_lanes.h>

namespace binade::kernels::cpu {

constinit const LineFunctions<float> kLineFunctionsAvx2 = make_line_functions<float>();

template <>
const LineFunctions<float>& line_functions() {
  static const LineFunctions<float>& best =
      __builtin_cpu_supports("avx512f") ? kLineFunctionsAvx512 : kLineFunctionsAvx2;
  return best;
}

template <>
const LineFunctions<double>& line_functions() {
  static constexpr LineFunctions<double> functions = make_line_functions<double>();
  return functions;
}

}  // namespace binade::kernels::cpu
