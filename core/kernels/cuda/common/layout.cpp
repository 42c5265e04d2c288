#include <binade/core/kernels/cuda/common/layout.h>

#include <algorithm>
#include <bit>

namespace binade::kernels::cuda {

namespace {

bool allows_items(const Layout& layout, std::initializer_list<const Array*> operands, int vec) {
  if (layout.dims > 1 && layout.sizes[0] % vec != 0) return false;
  int k = 0;
  for (const Array* operand : operands) {
    const int64_t* strides = layout.strides[k++];
    if (strides[0] == 0 && k > 1) continue;  // a broadcast input; an output is never one
    if (strides[0] != 1) return false;
    if (reinterpret_cast<uintptr_t>(operand->data()) %
            static_cast<uintptr_t>(vec * size_of(operand->dtype())) !=
        0)
      return false;
    for (int d = 1; d < layout.dims; ++d)
      if (strides[d] % vec != 0) return false;
  }
  return true;
}

}  // namespace

FastDivisor FastDivisor::of(int64_t divisor) {
  const auto d = static_cast<uint64_t>(divisor);
  const auto shift = static_cast<uint32_t>(std::bit_width(d - 1));  // 2^shift >= d
  const uint64_t multiplier = (uint64_t{1} << 32) * ((uint64_t{1} << shift) - d) / d + 1;
  return {static_cast<uint32_t>(multiplier), shift};
}

Layout make_layout(std::initializer_list<const Array*> operands, int vec, Order order) {
  const int count = static_cast<int>(operands.size());
  check(count <= Layout::kMaxOperands, "an elementwise kernel has at most ", Layout::kMaxOperands,
        " operands, got ", count);
  const Array& out = **operands.begin();
  if (out.numel() == 0) return Layout();  // no items: there is nothing to divide by
  for (const Array* operand : operands)
    check(operand->shape() == out.shape(),
          "an elementwise kernel needs operands of one shape, got ", operand->shape(), " and ",
          out.shape());

  Shape walk;  // dimensions of more than one element, innermost first
  for (int d = out.dims() - 1; d >= 0; --d)
    if (out.size(d) != 1) walk.push_back(d);
  if (order == Order::any)
    std::stable_sort(const_cast<int64_t*>(walk.begin()), const_cast<int64_t*>(walk.end()),
                     [&](int64_t a, int64_t b) {
                       return out.stride(static_cast<int>(a)) < out.stride(static_cast<int>(b));
                     });

  Layout layout;
  layout.numel = out.numel();
  layout.dims = 0;
  for (const int64_t dim : walk) {
    const int d = static_cast<int>(dim);
    const int last = layout.dims - 1;
    bool merges = layout.dims > 0;
    int k = 0;
    for (const Array* operand : operands) {
      const int64_t* strides = layout.strides[k++];
      merges = merges && operand->stride(d) == strides[last] * layout.sizes[last];
    }
    if (merges) {
      layout.sizes[last] *= out.size(d);
      continue;
    }
    layout.sizes[layout.dims] = out.size(d);
    k = 0;
    for (const Array* operand : operands) layout.strides[k++][layout.dims] = operand->stride(d);
    ++layout.dims;
  }
  if (layout.dims == 0) {  // a single element
    layout.dims = 1;
    layout.sizes[0] = 1;
    for (int k = 0; k < count; ++k) layout.strides[k][0] = 1;
  }

  if (vec > 1 && allows_items(layout, operands, vec)) {
    layout.vec = vec;
    for (int k = 0; k < count; ++k) {
      layout.splat[k] = layout.strides[k][0] == 0;
      layout.strides[k][0] *= vec;
    }
    layout.sizes[0] = (layout.sizes[0] + vec - 1) / vec;
  }
  layout.items = 1;
  for (int d = 0; d < layout.dims; ++d) layout.items *= layout.sizes[d];
  layout.narrow = layout.items <= INT32_MAX;
  if (layout.narrow)
    for (int d = 0; d < layout.dims; ++d) layout.divisors[d] = FastDivisor::of(layout.sizes[d]);
  return layout;
}

}  // namespace binade::kernels::cuda
