// Logits and rules to sample with, for the tests of both devices.
#pragma once

#include <binade/core/kernels/decode.h>

#include "core/kernel_arrays.h"

namespace binade::test {

struct SampleArrays {
  Array logits, tokens, status, drawn, limits, places;
  kernels::SampleState state() const { return {tokens, status, drawn, limits, places}; }
  std::vector<Array> all() const { return {logits, tokens, status, drawn, limits, places}; }
  static SampleArrays of(const std::vector<Array>& a) {
    return {a[0], a[1], a[2], a[3], a[4], a[5]};
  }
};

inline SampleArrays sample_arrays(const Array& logits, int32_t drawn) {
  const int64_t rows = logits.size(0);
  const auto full = [&](int32_t value) { return Array::full({rows}, value, DType::i32); };
  return {logits,      full(-7),      full(kernels::kRunning),
          full(drawn), full(1 << 30), Array::arange(rows, DType::i32)};
}

// Rows of all kinds: spread out, peaked, with many equals, with −∞ and zeros of both signs.
inline Array logits_of_all_kinds(int64_t rows, int64_t vocabulary, DType dtype, Random& random) {
  const Array logits = random_array({rows, vocabulary}, dtype, random, 3);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < vocabulary; ++i) {
      const int64_t place = row * vocabulary + i;
      const double x = read(logits, place);
      if (row % 4 == 1) write(logits, place, i == vocabulary / 2 ? 30 : 2 * x);
      if (row % 4 == 2) write(logits, place, std::round(x));
      if (row % 4 == 3) write(logits, place, i % 3 == 0 ? -INFINITY : i % 3 == 1 ? -0.0 : x);
    }
  }
  return logits;
}

inline std::vector<kernels::SampleRules> sample_rules(int64_t vocabulary) {
  std::vector<kernels::SampleRules> rules;
  for (const double temperature : {0.0, 0.3, 1.0, 5.0})
    for (const int64_t top_k : {int64_t{0}, int64_t{1}, int64_t{7}, vocabulary})
      for (const double top_p : {1.0, 0.9, 0.3, 1e-9})
        rules.push_back({.temperature = temperature, .top_k = top_k, .top_p = top_p, .seed = 11});
  return rules;
}

}  // namespace binade::test
