// Element types of arrays.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string_view>
#include <type_traits>

#include <binade/core/error.h>
#include <binade/core/half.h>

namespace binade {

enum class DType : uint8_t { f64, f32, f16, bf16, i64, i32, u8, boolean };

// Bytes of one element.
constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    default:
      return 1;
  }
}

constexpr bool is_floating(DType dtype) {
  return dtype <= DType::bf16;
}
constexpr bool is_half(DType dtype) {
  return dtype == DType::f16 || dtype == DType::bf16;
}
constexpr bool is_integral(DType dtype) {
  return dtype >= DType::i64 && dtype <= DType::u8;
}

std::string_view name_of(DType dtype);  // "f32", "f16", "i64", "bool", ...
std::ostream& operator<<(std::ostream& out, DType dtype);

// The dtype that holds both operands of an arithmetic op: bool < u8 < i32 < i64 < floating;
// f16 with bf16 gives f32; otherwise the wider floating type.
DType promote(DType a, DType b);

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, Half>) return DType::f16;
  if constexpr (std::is_same_v<T, BFloat16>) return DType::bf16;
  if constexpr (std::is_same_v<T, int64_t>) return DType::i64;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::u8;
  if constexpr (std::is_same_v<T, bool>) return DType::boolean;
}

// Calls visitor(T{}) with the C++ type of a floating dtype; `op` names the caller in the error.
template <class Visitor>
decltype(auto) visit_floating(DType dtype, const char* op, Visitor&& visitor) {
  switch (dtype) {
    case DType::f64:
      return visitor(double{});
    case DType::f32:
      return visitor(float{});
    case DType::f16:
      return visitor(Half{});
    case DType::bf16:
      return visitor(BFloat16{});
    default:
      fail(op, " needs a floating-point dtype, got ", name_of(dtype));
  }
}

// Calls visitor(T{}) with the C++ type of any dtype.
template <class Visitor>
decltype(auto) visit_all(DType dtype, Visitor&& visitor) {
  switch (dtype) {
    case DType::i64:
      return visitor(int64_t{});
    case DType::i32:
      return visitor(int32_t{});
    case DType::u8:
      return visitor(uint8_t{});
    case DType::boolean:
      return visitor(bool{});
    default:
      return visit_floating(dtype, "visit_all", visitor);
  }
}

// Calls visitor(T{}) with the C++ type of an index dtype (i64 or i32).
template <class Visitor>
decltype(auto) visit_index(DType dtype, const char* op, Visitor&& visitor) {
  switch (dtype) {
    case DType::i64:
      return visitor(int64_t{});
    case DType::i32:
      return visitor(int32_t{});
    default:
      fail(op, " needs indices of dtype i32 or i64, got ", name_of(dtype));
  }
}

}  // namespace binade
