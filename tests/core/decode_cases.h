// Arrays for the kernels of generation, which the tests of both devices take.
#pragma once

#include <binade/core/kernels/decode.h>

#include "core/kernel_arrays.h"

namespace binade::test {

inline Array i32_array(const std::vector<int32_t>& values, const Shape& shape) {
  return Array::from(values, shape);
}

struct DecodeCase {
  int64_t heads, key_heads, tokens, dim, capacity, first;
  bool tree, own_trees;  // a mask at all; one a row
};

inline const std::vector<DecodeCase> kDecodeCases = {
    {1, 1, 1, 8, 40, 0, false, false},    {4, 2, 1, 16, 300, 0, false, false},
    {9, 3, 1, 64, 700, 0, false, false},  {4, 4, 5, 24, 90, 0, false, false},
    {6, 2, 7, 80, 200, 0, true, false},   {4, 1, 6, 128, 150, 3, true, true},
    {4, 2, 2, 256, 100, 0, false, false}, {2, 2, 64, 32, 260, 0, true, true},
    {3, 1, 4, 12, 70, 2, false, false},   {9, 3, 64, 64, 900, 0, true, false},
    {8, 2, 5, 128, 1100, 2, true, true},  {4, 4, 16, 64, 80, 0, false, false},
    {16, 2, 1, 128, 40, 3, true, true},   {5, 5, 9, 64, 4200, 0, true, true},
};

// Windows: none, inside the pending tokens, inside the prefix.
inline const std::vector<int64_t> kDecodeWindows = {0, 3, 37};

// A pass of three rows into the slots 4, 0 and 2 of five, one of which is not running.
struct DecodeArrays {
  Array q, k, v, cached_keys, cached_values, lengths, slots, counts, running, visible, out;

  kernels::PassRows rows(int64_t first) const { return {lengths, slots, counts, running, first}; }
  // In the order of the members.
  std::vector<Array> all() const {
    std::vector<Array> arrays = {q,       k,     v,      cached_keys, cached_values,
                                 lengths, slots, counts, running,     out};
    if (visible.defined()) arrays.push_back(visible);
    return arrays;
  }
  static DecodeArrays of(const std::vector<Array>& a) {
    return {a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a.size() > 10 ? a[10] : Array(),
            a[9]};
  }
};

inline DecodeArrays decode_arrays(const DecodeCase& c, DType dtype, Random& random) {
  DecodeArrays a;
  // Views into packed projections, as a model gives them.
  const auto packed = [&](int64_t heads) {
    return random_array({3, c.tokens, heads, c.dim}, dtype, random).transpose(1, 2);
  };
  a.q = packed(c.heads);
  a.k = packed(c.key_heads);
  a.v = packed(c.key_heads);
  a.cached_keys = random_array({5, c.key_heads, c.capacity, c.dim}, dtype, random);
  a.cached_values = random_array({5, c.key_heads, c.capacity, c.dim}, dtype, random);
  const auto most = static_cast<int32_t>(c.capacity - c.first - c.tokens);
  a.lengths = i32_array({most, 1, 0, 3, most / 2}, {5});
  a.slots = i32_array({4, 0, 2}, {3});
  const auto tokens = static_cast<int32_t>(c.tokens);
  a.counts = i32_array({tokens, std::max(1, tokens - 1), tokens}, {3});
  a.running = i32_array({1, 1, 0, 1, 1}, {5});
  if (c.tree) {
    // Each token sees itself and some of those before it.
    std::vector<int64_t> words;
    const int64_t rows = c.own_trees ? 3 : 1;
    for (int64_t i = 0; i < rows * c.tokens; ++i) {
      const int64_t own = c.first + i % c.tokens;
      const uint64_t before = (uint64_t{1} << own) - 1;
      words.push_back(static_cast<int64_t>((random() & before) | uint64_t{1} << own));
    }
    a.visible = Array::from(words, c.own_trees ? Shape{3, c.tokens} : Shape{c.tokens});
  }
  a.out = random_array({3, c.tokens, c.heads, c.dim}, dtype, random).transpose(1, 2);
  return a;
}

}  // namespace binade::test
