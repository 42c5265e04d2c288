// The kernels of generation on the GPU against those on the CPU.
#include <binade/core/device_errors.h>
#include <binade/core/kernels/decode.h>

#include "core/cuda_compare.h"
#include "core/decode_cases.h"

using namespace binade;
using namespace binade::test;

namespace {

const std::vector<DType> kCacheDTypes = {DType::f32, DType::f16, DType::bf16};

}  // namespace

TEST_CASE("a cache on the GPU is written and compacted as on the CPU", "[decode][cuda]") {
  require_gpu();
  Random random(1);
  for (const DType dtype : kFloatingTypes) {
    for (const DecodeCase& c : kDecodeCases) {
      INFO(dtype << ", T " << c.tokens << ", D " << c.dim);
      compare_devices(
          [&](const std::vector<Array>& arrays) {
            const DecodeArrays a = DecodeArrays::of(arrays);
            BINADE_DISPATCH(a.q.device(),
                            cache_write(a.k, a.v, a.rows(c.first), a.cached_keys, a.cached_values));
          },
          decode_arrays(c, dtype, random).all());
    }
    const std::vector<Array> compacted = {random_array({2, 3, 2, 20, 8}, dtype, random),
                                          random_array({2, 3, 2, 20, 8}, dtype, random),
                                          i32_array({0, 2, 7, 5, 0, 0, 1, 1, 1}, {3, 3}),
                                          i32_array({4, 0, 9}, {3}),
                                          i32_array({2, 0, 1}, {3}),
                                          i32_array({3, 1, -1}, {3})};
    compare_devices(
        [](const std::vector<Array>& a) {
          const kernels::PassRows rows{a[3], a[4], a[5], {}, 0};
          BINADE_DISPATCH(a[0].device(), cache_compact(a[2], rows, a[0], a[1]));
          BINADE_DISPATCH(a[0].device(), cache_set_lengths(rows, true));
        },
        compacted);
  }
  check_device_faults(test_gpu());
}

TEST_CASE("attention against a cache on the GPU is the CPU's", "[decode][cuda]") {
  require_gpu();
  Random random(2);
  for (const DType dtype : kCacheDTypes) {
    for (const DecodeCase& c : kDecodeCases) {
      INFO(dtype << ", heads " << c.heads << '/' << c.key_heads << ", T " << c.tokens << ", D "
                 << c.dim << ", tree " << c.tree << ", first " << c.first);
      const float scale = 1 / std::sqrt(static_cast<float>(c.dim));
      for (const int64_t window : kDecodeWindows)
        compare_devices(
            [&](const std::vector<Array>& arrays) {
              const DecodeArrays a = DecodeArrays::of(arrays);
              const kernels::PassRows rows = a.rows(c.first);
              BINADE_DISPATCH(a.q.device(),
                              cache_write(a.k, a.v, rows, a.cached_keys, a.cached_values));
              BINADE_DISPATCH(a.q.device(),
                              cached_attention(a.q, a.cached_keys, a.cached_values, rows, a.visible,
                                               scale, window, a.out));
            },
            decode_arrays(c, dtype, random).all());
    }
  }
}

// Queries that see nothing of what another slot, or a token that was not accepted, has left behind.
TEST_CASE("attention on the GPU does not read what is not visible", "[decode][cuda]") {
  require_gpu();
  Random random(3);
  for (const DecodeCase& c : kDecodeCases) {
    const DecodeArrays a = decode_arrays(c, DType::f32, random);
    set_all(a.cached_values, NAN);
    for (int64_t slot = 0; slot < 5; ++slot) {
      const auto length = static_cast<int64_t>(read(a.lengths, slot)) + c.first;
      if (length > 0) set_all(a.cached_values.select(0, slot).slice(1, 0, length), 1);
    }
    // All visible values are 1, and so is their mean.
    set_all(a.v, 1);
    std::vector<Array> moved;
    for (const Array& array : a.all()) moved.push_back(on_device(array, test_gpu()));
    const DecodeArrays m = DecodeArrays::of(moved);
    BINADE_DISPATCH(test_gpu(),
                    cache_write(m.k, m.v, m.rows(c.first), m.cached_keys, m.cached_values));
    BINADE_DISPATCH(test_gpu(), cached_attention(m.q, m.cached_keys, m.cached_values,
                                                 m.rows(c.first), m.visible, 0.1f, 0, m.out));
    const Array out = m.out.to(Device::cpu());
    double worst = 0;
    for (int64_t d = 0; d < c.heads * c.dim; ++d)  // the first token of the running rows
      for (const int64_t b : {0, 1})
        worst = std::max(worst, std::abs(read(out.select(0, b).select(1, 0), d) - 1));
    CHECK(worst < 1e-5);
  }
}

TEST_CASE("positions on the GPU are the CPU's", "[decode][cuda]") {
  require_gpu();
  const std::vector<Array> arrays = {i32_array({10, 20, 30}, {3}),
                                     i32_array({2, 0, 1}, {3}),
                                     i32_array({1, 2, 2}, {3}),
                                     i32_array({1, 0, 1}, {3}),
                                     i32_array({1, 1, 2, 2, 3, 4}, {3, 2}),
                                     i32_array({0, 0, 0, 0, 0, 0}, {3, 2})};
  for (const bool tree : {false, true})
    compare_devices(
        [&](const std::vector<Array>& a) {
          const kernels::PassRows rows{a[0], a[1], a[2], a[3], 1};
          BINADE_DISPATCH(a[0].device(), cache_positions(rows, tree ? a[4] : Array(), 40, 0, a[5]));
        },
        arrays);
  check_device_faults(test_gpu());
}
