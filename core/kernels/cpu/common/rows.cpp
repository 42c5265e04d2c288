#include <binade/core/kernels/cpu/common/rows.h>

namespace binade::kernels::cpu {
namespace {

StridedLoop loop_without(std::initializer_list<Array> arrays, int dim) {
  std::vector<View> views;
  for (const Array& array : arrays) views.push_back(View(array).without(dim));
  return StridedLoop(views);
}

}  // namespace

LineLoop::LineLoop(std::initializer_list<Array> arrays, int dim, int64_t length)
    : operands_(static_cast<int>(arrays.size())),
      grain_(row_grain(length)),
      lines_(loop_without(arrays, arrays.begin()->shape().wrap_dim(dim))) {}

}  // namespace binade::kernels::cpu
