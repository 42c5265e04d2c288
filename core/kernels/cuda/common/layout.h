// How an elementwise kernel walks its operands: dimensions collapsed as far as all operands allow,
// and cut into items of a few neighbouring elements that move with one 16-byte access.
#pragma once

#include <initializer_list>

#include <binade/core/array.h>

namespace binade::kernels::cuda {

// n / divisor for 0 <= n < 2^31 by one multiplication (Granlund & Montgomery 1994).
struct FastDivisor {
  uint32_t multiplier = 1;
  uint32_t shift = 0;
  static FastDivisor of(int64_t divisor);
};

struct Layout {
  static constexpr int kMaxOperands = 5;

  int dims = 1;                   // at least 1; dimension 0 is the innermost
  int vec = 1;                    // elements of an item, along dimension 0
  bool narrow = true;             // items are few enough for the fast division
  bool splat[kMaxOperands] = {};  // the operand has one element for a whole item
  int64_t numel = 0;
  int64_t items = 0;
  int64_t sizes[kMaxDims] = {};                  // dimension 0 in items
  int64_t strides[kMaxOperands][kMaxDims] = {};  // in elements; of dimension 0 between items
  FastDivisor divisors[kMaxDims];
};

enum class Order : uint8_t {
  any,       // dimensions are walked in the order of the first operand's strides
  row_major  // item i holds the elements i·vec, i·vec + 1, ... of the row-major order
};

// For operands of one shape, the output first. Items have `vec` elements if all operands allow it
// (the inner dimension is contiguous or broadcast, rows are aligned), otherwise one. Only where a
// single dimension is left may the last item be partial.
Layout make_layout(std::initializer_list<const Array*> operands, int vec, Order order = Order::any);

}  // namespace binade::kernels::cuda
