// Printing of arrays.
#include <cmath>
#include <iomanip>
#include <ostream>
#include <string>

#include <binade/core/array.h>
#include <binade/core/text.h>

namespace binade {

namespace {

constexpr int64_t kEdge = 3;        // elements shown at each end of a long dimension
constexpr int64_t kShowWhole = 64;  // arrays up to this many elements are shown whole

// The one element of an array on the CPU.
std::string format_element(const Array& array) {
  TextStream text;
  visit_all(array.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T value = *array.data<T>();
    if constexpr (std::is_same_v<T, bool>)
      text << (value ? "true" : "false");
    else if constexpr (std::is_integral_v<T>)
      text << static_cast<int64_t>(value);
    else if constexpr (is_half(dtype_of<T>()))
      text << std::setprecision(5) << static_cast<float>(value);
    else
      text << std::setprecision(5) << value;
  });
  return std::move(text).str();
}

void print_level(std::ostream& out, const Array& array, bool whole, int indent) {
  if (array.dims() == 0) {
    out << format_element(array);
    return;
  }
  if (array.numel() == 0) {
    out << "[]";
    return;
  }
  const int64_t size = array.size(0);
  const bool innermost = array.dims() == 1;
  out << '[';
  for (int64_t i = 0; i < size; ++i) {
    if (i > 0) {
      out << (innermost ? ", " : ",\n");
      if (!innermost) out << std::string(static_cast<size_t>(indent), ' ');
    }
    if (!whole && size > 2 * kEdge && i == kEdge) {
      out << "...";
      i = size - kEdge - 1;
      continue;
    }
    print_level(out, array.select(0, i), whole, indent + 1);
  }
  out << ']';
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Array& array) {
  if (!array.defined()) return out << "Array(undefined)";
  out << "Array" << array.shape() << ' ' << array.dtype() << ' ' << array.device() << '\n';
  const bool whole = array.numel() <= kShowWhole;
  print_level(out, array.to(Device::cpu()), whole, 1);
  return out;
}

}  // namespace binade
