// The kernels of generation on the CPU against plain f64 sums.
#include <binade/core/kernels/decode.h>

#include <catch2/catch.hpp>

#include "core/decode_cases.h"

using namespace binade;
using namespace binade::test;
using kernels::PassRows;

namespace {

// A copy in f64 of an array of four dimensions, for loops over its elements.
class Values {
 public:
  explicit Values(const Array& array) : shape_(array.shape()), values_(values_of(array)) {}
  double operator()(int64_t a, int64_t b, int64_t c, int64_t d) const {
    return values_[static_cast<size_t>(((a * shape_[1] + b) * shape_[2] + c) * shape_[3] + d)];
  }

 private:
  Shape shape_;
  std::vector<double> values_;
};

// The definition of cached_attention, from a cache that was written.
std::vector<double> attention_by_hand(const DecodeCase& c, const DecodeArrays& a, float scale,
                                      int64_t window) {
  const Values queries(a.q), cached_keys(a.cached_keys), cached_values(a.cached_values);
  std::vector<double> out;
  for (int64_t b = 0; b < 3; ++b) {
    const auto slot = static_cast<int64_t>(read(a.slots, b));
    const auto length = static_cast<int64_t>(read(a.lengths, slot));
    const int64_t count = read(a.running, slot) > 0 ? static_cast<int64_t>(read(a.counts, b)) : 0;
    for (int64_t head = 0; head < c.heads; ++head) {
      const int64_t key_head = head / (c.heads / c.key_heads);
      for (int64_t t = 0; t < c.tokens; ++t) {
        std::vector<double> sums(static_cast<size_t>(c.dim), 0);
        double total = 0;
        std::vector<int64_t> keys;
        for (int64_t j = 0; t < count && j < length + c.first + c.tokens; ++j) {
          const int64_t pending = j - length;
          if (pending >= 0) {
            const int64_t word = c.own_trees ? b * c.tokens + t : t;
            const bool seen =
                c.tree ? a.visible.data<int64_t>()[word] >> pending & 1 : pending <= c.first + t;
            if (!seen) continue;
          }
          keys.push_back(j);
        }
        const auto hidden = window == 0 ? 0 : std::max<int64_t>(std::ssize(keys) - window, 0);
        keys.erase(keys.begin(), keys.begin() + hidden);
        for (const int64_t j : keys) {
          double score = 0;
          for (int64_t d = 0; d < c.dim; ++d)
            score += queries(b, head, t, d) * cached_keys(slot, key_head, j, d);
          const double weight = std::exp(score * scale);
          total += weight;
          for (int64_t d = 0; d < c.dim; ++d)
            sums[static_cast<size_t>(d)] += weight * cached_values(slot, key_head, j, d);
        }
        for (const double sum : sums) out.push_back(total == 0 ? 0 : sum / total);
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("a pass is written behind the lengths of its slots, nothing else", "[decode]") {
  Random random(1);
  for (const DType dtype : kFloatingTypes) {
    for (const DecodeCase& c : kDecodeCases) {
      const DecodeArrays a = decode_arrays(c, dtype, random);
      const Values before_keys(a.cached_keys), before_values(a.cached_values), k(a.k), v(a.v);
      kernels::cpu::cache_write(a.k, a.v, a.rows(c.first), a.cached_keys, a.cached_values);
      const Values cached_keys(a.cached_keys), cached_values(a.cached_values);
      int wrong = 0;
      for (int64_t slot = 0; slot < 5; ++slot) {
        const int64_t b = slot == 4 ? 0 : slot == 0 ? 1 : -1;  // slot 2 is not running
        const auto place = static_cast<int64_t>(read(a.lengths, slot)) + c.first;
        const int64_t count = b < 0 ? 0 : static_cast<int64_t>(read(a.counts, b));
        for (int64_t h = 0; h < c.key_heads; ++h)
          for (int64_t j = 0; j < c.capacity; ++j)
            for (int64_t d = 0; d < c.dim; ++d) {
              const bool fresh = j >= place && j < place + count;
              wrong += cached_keys(slot, h, j, d) !=
                       (fresh ? k(b, h, j - place, d) : before_keys(slot, h, j, d));
              wrong += cached_values(slot, h, j, d) !=
                       (fresh ? v(b, h, j - place, d) : before_values(slot, h, j, d));
            }
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("attention against a cache is a softmax over what a query may see", "[decode]") {
  Random random(2);
  for (const DType dtype : kFloatingTypes) {
    for (const DecodeCase& c : kDecodeCases) {
      INFO(dtype << ", heads " << c.heads << '/' << c.key_heads << ", T " << c.tokens << ", D "
                 << c.dim << ", tree " << c.tree << ", first " << c.first);
      const DecodeArrays a = decode_arrays(c, dtype, random);
      const float scale = 1 / std::sqrt(static_cast<float>(c.dim));
      kernels::cpu::cache_write(a.k, a.v, a.rows(c.first), a.cached_keys, a.cached_values);
      const double tolerance = dtype == DType::f64   ? 1e-13
                               : dtype == DType::f32 ? 2e-6
                                                     : 1.5 * epsilon_of(dtype);
      for (const int64_t window : kDecodeWindows) {
        INFO("window " << window);
        kernels::cpu::cached_attention(a.q, a.cached_keys, a.cached_values, a.rows(c.first),
                                       a.visible, scale, window, a.out);
        CHECK(worst_error(a.out, attention_by_hand(c, a, scale, window)) < tolerance);
      }
    }
  }
}

TEST_CASE("a pass stands behind the prefix by its depths", "[decode]") {
  const Array lengths = i32_array({10, 20, 30}, {3}), running = i32_array({1, 0, 1}, {3});
  const auto positions = [&](const PassRows& rows, const Array& depths) {
    const Array out = Array::empty({3, 2}, DType::i32);
    kernels::cpu::cache_positions(rows, depths, 33, 0, out);
    return out.to_vector<int32_t>();
  };
  PassRows rows;
  CHECK(positions(rows, {}) == std::vector<int32_t>{0, 1, 0, 1, 0, 1});
  rows.lengths = lengths;
  rows.running = running;
  CHECK(positions(rows, {}) == std::vector<int32_t>{10, 11, 0, 0, 30, 31});
  rows.first = 1;
  CHECK(positions(rows, {}) == std::vector<int32_t>{11, 12, 0, 0, 31, 32});
  CHECK(positions(rows, i32_array({1, 1}, {2})) == std::vector<int32_t>{11, 11, 0, 0, 31, 31});
  CHECK(positions(rows, i32_array({1, 1, 2, 2, 1, 2}, {3, 2})) ==
        std::vector<int32_t>{11, 11, 0, 0, 31, 32});
  rows.slots = i32_array({2, 0, 1}, {3});
  rows.first = 0;
  rows.counts = i32_array({1, 2, 2}, {3});
  CHECK(positions(rows, {}) == std::vector<int32_t>{30, 0, 10, 11, 0, 0});
  rows.first = 3;
  CHECK_THROWS_WITH(positions(rows, {}), Catch::Contains("full"));
}

TEST_CASE("accepted nodes move together in every layer", "[decode]") {
  Random random(3);
  for (const DType dtype : kFloatingTypes) {
    const Array keys = random_array({2, 3, 2, 20, 5}, dtype, random);
    const Array values = random_array({2, 3, 2, 20, 5}, dtype, random);
    const Array before_keys = keys.clone(), before_values = values.clone();
    PassRows rows;
    rows.lengths = i32_array({4, 0, 9}, {3});
    rows.slots = i32_array({2, 0, 1}, {3});
    rows.counts = i32_array({3, 1, -1}, {3});
    const std::vector<int32_t> nodes = {0, 2, 7, 5, 0, 0, 1, 1, 1};
    kernels::cpu::cache_compact(i32_array(nodes, {3, 3}), rows, keys, values);
    // Where each place of a slot now comes from.
    const auto source = [](int64_t slot, int64_t j) {
      if (slot == 2 && j == 10) return int64_t{11};
      if (slot == 2 && j == 11) return int64_t{16};
      if (slot == 0 && j == 4) return int64_t{9};
      return j;
    };
    int wrong = 0;
    for (int64_t layer = 0; layer < 2; ++layer)
      for (const auto& [array, old] :
           {std::pair{keys, before_keys}, std::pair{values, before_values}}) {
        const Values after(array.select(0, layer)), before(old.select(0, layer));
        for (int64_t slot = 0; slot < 3; ++slot)
          for (int64_t h = 0; h < 2; ++h)
            for (int64_t j = 0; j < 20; ++j)
              for (int64_t d = 0; d < 5; ++d)
                wrong += after(slot, h, j, d) != before(slot, h, source(slot, j), d);
      }
    CHECK(wrong == 0);
    kernels::cpu::cache_set_lengths(rows, true);
    CHECK(rows.lengths.to_vector<int32_t>() == std::vector<int32_t>{5, 0, 12});
    kernels::cpu::cache_set_lengths(rows, false);
    CHECK(rows.lengths.to_vector<int32_t>() == std::vector<int32_t>{1, 0, 3});
  }
}
