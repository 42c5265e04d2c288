// Choosing positions and folds by index on the GPU against those on the CPU.
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/selection.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

Array indices(const Shape& shape, int64_t low, int64_t high, DType dtype, Random& random) {
  const Array array = Array::empty(shape, dtype);
  for (int64_t i = 0; i < array.numel(); ++i)
    write(array, i, static_cast<double>(low + static_cast<int64_t>(random() % (high - low))));
  return array;
}

}  // namespace

TEST_CASE("what a mask selects agrees on both devices", "[cuda][selection]") {
  require_gpu();
  Random random(71);
  for (const int64_t count :
       {int64_t{1}, int64_t{100}, kMaskChunk, 5 * kMaskChunk + 17, 700 * kMaskChunk}) {
    const Array mask = Array::empty({count}, DType::boolean);
    fill_random(mask, random);
    const Array ends = Array::zeros({(count + kMaskChunk - 1) / kMaskChunk}, DType::i64);
    compare_devices([](const auto& v) { BINADE_DISPATCH(v[0].device(), count_mask(v[0], v[1])); },
                    {mask, ends});
    const auto total = static_cast<int64_t>(read(ends, ends.numel() - 1));
    for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::u8})
      for (const int64_t shift : {0, 1}) {  // from where vectors begin, or behind it
        INFO(count << ' ' << dtype << ", shift " << shift);
        const auto array = [&](int64_t size) {
          const Array whole = Array::empty({size + shift}, dtype);
          fill_random(whole, random);
          return whole.slice(0, shift);
        };
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(), mask_compact(v[0], v[1], v[2], v[3]));
            },
            {array(count), mask, ends, array(total)});
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(), mask_expand(v[0], v[1], v[2], v[3]));
            },
            {array(total), mask, ends, array(count)});
      }
  }
}

TEST_CASE("indices and classes agree on both devices", "[cuda][selection]") {
  require_gpu();
  Random random(72);
  for (const DType dtype : {DType::i64, DType::i32})
    for (const float beta : {0.0f, 1.0f})
      compare_devices(
          [&](const auto& v) {
            BINADE_DISPATCH(v[0].device(), flat_index(v[0], 40, 7, v[1], beta));
          },
          {indices({9, 31}, -40, 40, dtype, random), indices({9, 31}, 0, 100, DType::i64, random)});
  for (const DType dtype : kAllDTypes)
    compare_devices([](const auto& v) { BINADE_DISPATCH(v[0].device(), one_hot(v[0], v[1])); },
                    {indices({300}, 0, 21, DType::i64, random), Array::zeros({300, 21}, dtype)});
}

TEST_CASE("places in sorted rows agree on both devices", "[cuda][selection]") {
  require_gpu();
  Random random(73);
  for (const DType dtype :
       {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32})
    for (const int64_t rows : {1, 6})
      for (const bool right : {false, true}) {
        const Array sorted = random_array({rows, 1000}, dtype, random);
        fill_random(sorted, random);
        for (int64_t row = 0; row < rows; ++row) {
          std::vector<double> values;
          for (int64_t i = 0; i < 1000; ++i) values.push_back(read(sorted, row * 1000 + i));
          std::sort(values.begin(), values.end());
          for (int64_t i = 0; i < 1000; ++i) write(sorted, row * 1000 + i, values[i]);
        }
        for (const int64_t width : {70, 3000}) {  // 3000: a block keeps the list
          const Array wanted = Array::empty({6, width}, dtype);
          fill_random(wanted, random);
          for (int64_t i = 0; i < 70; ++i) write(wanted, i, read(sorted, 13 * i));
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), searchsorted(v[0], v[1], right, v[2]));
              },
              {sorted, wanted, Array::zeros({6, width}, DType::i64)});
        }
      }
}

TEST_CASE("draws by weight are the same on both devices", "[cuda][selection]") {
  require_gpu();
  Random random(74);
  for (const DType dtype : kFloatingDTypes)
    for (const auto& [width, draws] : {std::pair(5, 3), std::pair(1000, 64), std::pair(50000, 9)})
      for (const bool replacement : {false, true}) {
        const Array weights = random_array({4, width}, dtype, random);
        for (int64_t i = 0; i < weights.numel(); ++i)
          write(weights, i, i % 7 == 3 && width > 5 ? 0 : std::abs(read(weights, i)) + 0.01);
        compare_devices(
            [&](const auto& v) {
              PhiloxKey key{9, Array::full({}, 3, DType::i64).to(v[0].device()), 5};
              BINADE_DISPATCH(v[0].device(), multinomial(v[0], key, replacement, v[1]));
            },
            {weights, Array::zeros({4, draws}, DType::i64)});
      }
}

TEST_CASE("folds by index agree on both devices", "[cuda][selection]") {
  require_gpu();
  Random random(75);
  for (const DType dtype :
       {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32})
    for (const ScatterFold fold : {ScatterFold::sum, ScatterFold::prod, ScatterFold::mean,
                                   ScatterFold::max, ScatterFold::min})
      for (const bool include_self : {true, false})
        for (const int dim : {0, 1}) {
          if (!is_floating(dtype) && (fold == ScatterFold::prod || fold == ScatterFold::mean))
            continue;
          INFO("fold " << static_cast<int>(fold) << ", dim " << dim << ' ' << dtype);
          const Shape shape{20, 33};
          const Array out = Array::empty(shape, dtype), source = Array::empty(shape, dtype);
          fill_random(out, random);
          fill_random(source, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(),
                                scatter_reduce(v[0], dim, v[1], v[2], fold, include_self));
              },
              {out, indices(shape, 0, shape[dim], DType::i64, random), source}, 20);
        }
}

TEST_CASE("gradients of extremes by index agree on both devices", "[cuda][selection]") {
  require_gpu();
  Random random(76);
  struct Size {
    Shape x, index;
    int dim;
  };
  // Columns, rows of a block, rows longer than a block keeps, x larger than index, no index.
  const Size sizes[] = {{{20, 33}, {41, 33}, 0},    {{70, 33}, {70, 129}, 1},
                        {{64, 9}, {64, 8200}, 1},   {{80, 40}, {70, 12}, 1},
                        {{4, 5, 6}, {3, 5, 20}, 2}, {{6, 7}, {6, 0}, 1}};
  for (const DType dtype : kFloatingDTypes)
    for (const Size& size : sizes)
      for (const bool largest : {true, false})
        for (const bool include_self : {true, false}) {
          const bool is_long = size.index[1] > 8000;  // one such case is enough
          if (is_long && (dtype != DType::f16 || largest)) continue;
          INFO(dtype << ' ' << size.x << " by " << size.index << ", dim " << size.dim << ", max "
                     << largest << ", include_self " << include_self);
          const auto few_values = [&](const Shape& shape) {  // many are equal
            const Array array = Array::empty(shape, dtype);
            for (int64_t i = 0; i < array.numel(); ++i)
              write(array, i, random() % 97 == 0 ? NAN : static_cast<double>(random() % 5));
            return array;
          };
          const Array x = few_values(size.x), source = few_values(size.index), y = x.clone();
          const Array index = indices(size.index, 0, size.x[size.dim], DType::i64, random);
          cpu::scatter_reduce(y, size.dim, index, source,
                              largest ? ScatterFold::max : ScatterFold::min, include_self);
          compare_devices(
              [&](const auto& v) {
                const Device device = v[0].device();
                BINADE_DISPATCH(device, scatter_extreme_backward(v[4], v[0], size.dim, v[1], v[2],
                                                                 v[3], include_self, v[5], v[6]));
                BINADE_DISPATCH(device,
                                scatter_extreme_backward(v[4], v[0], size.dim, v[1], v[2], v[3],
                                                         include_self, Array(), v[7]));
              },
              {x, index, source, y, random_array(size.x, dtype, random), few_values(size.x),
               few_values(size.index), few_values(size.index)});
        }
}
