#include <binade/core/kernels/cpu/common/convert.h>

#include <immintrin.h>

#include <bit>
#include <cstring>

namespace binade::kernels::cpu {
namespace {

// The float between which and its neighbour `value` lies, with the last bit set if inexact:
// rounding it to a shorter type then gives what rounding `value` itself would ("round to odd";
// Boldo & Melquiond, IEEE Trans. Computers 2008).
float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double difference = value - static_cast<double>(nearest);
  if (difference == 0 || difference != difference) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (bits & 1u) return nearest;
  const bool away = (difference > 0) == (value > 0);
  return std::bit_cast<float>(away ? bits + 1 : bits - 1);
}

template <class To, class From>
To cast(From value) {
  constexpr bool from_half = std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>;
  constexpr bool to_half = std::is_same_v<To, Half> || std::is_same_v<To, BFloat16>;
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (from_half) {
    return cast<To>(static_cast<float>(value));
  } else if constexpr (to_half) {
    if constexpr (std::is_same_v<From, double> || std::is_same_v<From, int64_t> ||
                  std::is_same_v<From, int32_t>)
      return To(round_to_odd(static_cast<double>(value)));
    else
      return To(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From{0};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (value >= static_cast<From>(0x1p63)) return static_cast<To>(INT64_MAX);
    return static_cast<To>(static_cast<int64_t>(value));  // through i64: narrow types wrap
  } else {
    return static_cast<To>(value);
  }
}

template <class From, class To>
void convert_run(const From* from, To* to, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = cast<To>(from[i]);
}

void convert_run(const Half* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(bits));
  }
  for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

void convert_run(const float* from, Half* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), bits);
  }
  for (; i < count; ++i) to[i] = Half(from[i]);
}

void convert_run(const BFloat16* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i,
                     _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
  }
  for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

void convert_run(const float* from, BFloat16* to, int64_t count) {
  // As BFloat16 rounds: to nearest, ties to even; NaN stays quiet NaN.
  const auto round = [](const float* x) {
    const __m256 value = _mm256_loadu_ps(x);
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 is_nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan)), 16);
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i packed = _mm256_packus_epi32(round(from + i), round(from + i + 8));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0)));
  }
  for (; i < count; ++i) to[i] = BFloat16(from[i]);
}

}  // namespace

void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t count) {
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, static_cast<size_t>(count * size_of(from_dtype)));
    return;
  }
  visit_all(from_dtype, [&](auto from_zero) {
    visit_all(to_dtype, [&](auto to_zero) {
      convert_run(static_cast<const decltype(from_zero)*>(from),
                  static_cast<decltype(to_zero)*>(to), count);
    });
  });
}

void gather_run(const std::byte* from, int64_t stride, int64_t item, std::byte* to, int64_t count) {
  visit_item(item, [&](auto zero) {
    using T = decltype(zero);
    const int64_t step = stride / static_cast<int64_t>(sizeof(T));
    const T* source = reinterpret_cast<const T*>(from);
    T* target = reinterpret_cast<T*>(to);
    for (int64_t i = 0; i < count; ++i) target[i] = source[i * step];
  });
}

void scatter_run(const std::byte* from, std::byte* to, int64_t stride, int64_t item,
                 int64_t count) {
  visit_item(item, [&](auto zero) {
    using T = decltype(zero);
    const int64_t step = stride / static_cast<int64_t>(sizeof(T));
    const T* source = reinterpret_cast<const T*>(from);
    T* target = reinterpret_cast<T*>(to);
    for (int64_t i = 0; i < count; ++i) target[i * step] = source[i];
  });
}

}  // namespace binade::kernels::cpu
