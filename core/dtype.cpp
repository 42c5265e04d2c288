#include <binade/core/dtype.h>

#include <array>
#include <ostream>
#include <utility>

namespace binade {

std::string_view name_of(DType dtype) {
  constexpr std::array<std::string_view, 8> names = {"f64", "f32", "f16", "bf16",
                                                     "i64", "i32", "u8",  "bool"};
  return names[static_cast<size_t>(dtype)];
}

std::ostream& operator<<(std::ostream& out, DType dtype) {
  return out << name_of(dtype);
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  if (is_floating(a) && is_floating(b)) {
    if (is_half(a) && is_half(b)) return DType::f32;
    return std::min(a, b);  // f64 < f32 < half in the enum's order
  }
  if (is_floating(a)) return a;
  if (is_floating(b)) return b;
  return std::min(a, b);  // i64 < i32 < u8 < bool
}

}  // namespace binade
