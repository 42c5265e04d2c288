// Sizes just beside those of vectors, warps, blocks and what kernels take together, and arrays that
// begin beside a vector, on the GPU against the CPU.
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/rearrange.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/selection.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

// The last two are whole vectors of each dtype, more than a block keeps in registers.
const std::vector<int64_t> kLengths{1,  2,   3,   7,   8,    9,    17,   32,
                                    33, 129, 256, 257, 1025, 4097, 4104, 8200};

struct Line {
  Shape shape;
  int dim;  // has the length
};
// Rows, columns, and columns that are neighbours.
std::vector<Line> lines_of(int64_t length, int64_t neighbours) {
  return {{{2, length}, 1}, {{length, 3}, 0}, {{length < 300 ? length : 33, neighbours}, 0}};
}

// `shift` elements behind where vectors begin.
Array placed(const Shape& shape, DType dtype, int64_t shift, Random& random) {
  const Array whole = Array::empty({shape.numel() + shift}, dtype);
  fill_random(whole, random);
  return whole.slice(0, shift).view(shape);
}

// Numbers whose sums and products stay where the dtype is precise.
Array gentle(const Shape& shape, DType dtype, int64_t shift, double center, double spread,
             Random& random) {
  const Array array = placed(shape, dtype, shift, random);
  if (is_floating(dtype))
    for (int64_t i = 0; i < array.numel(); ++i)
      write(array, i, center + std::fmod(read(array, i), spread));
  return array;
}

Array places_below(int64_t size, const Shape& shape, DType dtype, Random& random) {
  const Array index = Array::empty(shape, dtype);
  for (int64_t i = 0; i < index.numel(); ++i)
    write(index, i, static_cast<double>(random() % static_cast<uint64_t>(size)));
  return index;
}

}  // namespace

TEST_CASE("rearranged rows of all lengths agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(91);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::u8})
    for (const int64_t n : kLengths)
      for (const int64_t shift : {0, 1, 3, 9}) {
        const AxisMap maps[] = {
            {.size = n, .offset = n - 1, .reversed = true},
            {.size = n, .offset = n / 3, .beyond = Beyond::other_side},
            {.size = n, .offset = -(n / 2), .beyond = Beyond::other_side},
            {.size = n, .offset = n - 1, .beyond = Beyond::other_side},
            {.size = n, .repeats = 2},
            {.size = n, .repeats = 5},
            {.size = n, .offset = -4},
            {.size = n, .offset = n - 1, .beyond = Beyond::mirror},
            {.size = n, .offset = -17, .beyond = Beyond::edge},
        };
        const int64_t grown[] = {n, n, n, n, 2 * n, 5 * n, n + 7, n, n + 40};
        for (size_t kind = 0; kind < std::size(maps); ++kind) {
          INFO(dtype << ", length " << n << ", shift " << shift << ", kind " << kind);
          const AxisMap both[] = {{.size = 3, .offset = 2, .reversed = true}, maps[kind]};
          const Array x = placed({3, n}, dtype, shift, random);
          const Array y = placed({3, grown[kind]}, dtype, shift, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), rearrange(v[0], both, 3, v[1]));
              },
              {x, y});
          const bool has_gradient = !maps[kind].reversed && maps[kind].repeats == 1;
          if (!has_gradient || !is_floating(dtype)) continue;
          const AxisMap last[] = {{.size = 3}, maps[kind]};
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), rearrange_backward(v[1], last, v[0]));
              },
              {x, y}, 20);
        }
      }
}

TEST_CASE("many rearranged rows agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(98);
  // So many vectors that a thread has several, and rows that end in the midst of vectors.
  const Shape shape{2100, 2045}, out{2102, 2050};
  const std::vector<AxisMap> maps{{.size = shape[0], .offset = -1, .beyond = Beyond::mirror},
                                  {.size = shape[1], .offset = -2, .beyond = Beyond::mirror}};
  compare_devices(
      [&](const auto& v) { BINADE_DISPATCH(v[0].device(), rearrange(v[0], maps, 0, v[1])); },
      {placed(shape, DType::f16, 3, random), placed(out, DType::f16, 5, random)});
}

TEST_CASE("folds of all lengths agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(92);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::i64, DType::u8})
    for (const int64_t n : kLengths)
      for (const int64_t shift : {0, 1})
        for (const auto& [shape, dim] : lines_of(n, 16)) {
          INFO(dtype << ' ' << shape << ", shift " << shift << ", dim " << dim);
          const Array x = gentle(shape, dtype, shift, 0, 0.5, random);
          Shape kept = shape;
          kept[dim] = 1;
          const DType wide = dtype == DType::f64  ? DType::f64
                             : is_floating(dtype) ? DType::f32
                                                  : DType::i64;
          for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::max_abs,
                                    ReduceOp::sum_squares, ReduceOp::nonzeros}) {
            if (op > ReduceOp::max && !is_floating(dtype)) continue;
            compare_devices(
                [&](const auto& v) { BINADE_DISPATCH(v[0].device(), reduce(op, v[0], v[1], 0)); },
                {x, Array::zeros(kept, op == ReduceOp::max ? dtype : wide)}, 20);
          }
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), arg_reduce(true, v[0], dim, v[1]));
                BINADE_DISPATCH(v[0].device(), arg_reduce(false, v[0], dim, v[2]));
              },
              {x, Array::zeros(kept, DType::i64), Array::zeros(kept, DType::i64)});
          if (!is_floating(dtype)) continue;
          const auto result = [&] { return Array::zeros(kept, wide); };
          const Array b = gentle(shape, dtype, shift, 0, 0.5, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), pair_products(v[0], v[1], v[2], v[3], v[4]));
                BINADE_DISPATCH(v[0].device(), moments(v[0], v[5], v[6]));
              },
              {x, b, result(), result(), result(), result(), result()}, 20);
        }
}

TEST_CASE("folds of many rows and of bools agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(98);
  for (const auto& [dtype, n] : {std::pair(DType::f32, 40), std::pair(DType::f16, 530)}) {
    INFO(dtype << " rows of " << n);
    const Array x = gentle({4100, n}, dtype, 0, 3, 0.5, random);
    const auto result = [](DType wide) { return Array::zeros({4100, 1}, wide); };
    compare_devices(
        [&](const auto& v) {
          BINADE_DISPATCH(v[0].device(), reduce(ReduceOp::sum_squares, v[0], v[1], 0));
          BINADE_DISPATCH(v[0].device(), moments(v[0], v[2], v[3]));
          BINADE_DISPATCH(v[0].device(), arg_reduce(true, v[0], 1, v[4]));
        },
        {x, result(DType::f32), result(DType::f32), result(DType::f32), result(DType::i64)}, 20);
  }
  for (const int64_t n : {1, 17, 256, 257, 4104})
    for (const auto& [shape, dim] : lines_of(n, 48))
      for (const int kind : {0, 1, 2}) {  // any, none, all
        INFO("bools " << shape << ", dim " << dim << ", kind " << kind);
        const Array x = placed(shape, DType::boolean, n % 2, random);
        if (kind > 0) x.copy_from(Array::full(shape, kind - 1, DType::boolean));
        Shape kept = shape;
        kept[dim] = 1;
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), reduce(ReduceOp::sum, v[0], v[1], 0));
              BINADE_DISPATCH(v[0].device(), reduce(ReduceOp::max, v[0], v[2], 0));
              BINADE_DISPATCH(v[0].device(), reduce(ReduceOp::min, v[0], v[3], 0));
            },
            {x, Array::zeros(kept, DType::i64), Array::zeros(kept, DType::boolean),
             Array::zeros(kept, DType::boolean)});
      }
}

TEST_CASE("scans down tiles of columns agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(99);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    for (const bool reverse : {false, true}) {
      INFO(dtype << ", reverse " << reverse);
      const Shape shape{2, 600, 144};
      const Array x = gentle(shape, dtype, 0, 0, 0.0625, random);
      const Array factors = gentle(shape, dtype, 0, 1, 0.0078125, random);
      const auto written = [&] { return placed(shape, dtype, 0, random); };
      compare_devices(
          [&](const auto& v) {
            BINADE_DISPATCH(v[0].device(), cumsum(v[0], 1, reverse, v[2]));
            BINADE_DISPATCH(v[0].device(), cumprod(v[1], 1, v[3]));
          },
          {x, factors, written(), written()}, 40);
    }
}

TEST_CASE("scans of all lengths and their gradients agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(93);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::i64})
    for (const int64_t n : kLengths)
      for (const int64_t shift : {0, 1})
        for (const auto& [shape, dim] : lines_of(n, 72)) {
          INFO(dtype << ' ' << shape << ", shift " << shift << ", dim " << dim);
          const auto written = [&] { return placed(shape, dtype, shift, random); };
          const Array x = gentle(shape, dtype, shift, 0, 0.0625, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), cumsum(v[0], dim, false, v[1]));
                BINADE_DISPATCH(v[0].device(), cumsum(v[0], dim, true, v[2]));
              },
              {x, written(), written()}, 10);
          if (!is_floating(dtype)) continue;
          const Array factors = gentle(shape, dtype, shift, 1, 0.03125, random);
          if (n > 3) write(factors, factors.numel() / 2, 0);
          Shape kept = shape;
          kept[dim] = 1;
          compare_devices(
              [&](const auto& v) {
                const Device device = v[0].device();
                BINADE_DISPATCH(device, cumprod(v[0], dim, v[1]));
                BINADE_DISPATCH(device, cumprod_backward(v[0], v[2], dim, v[3]));
                BINADE_DISPATCH(device, prod_backward(v[0], v[4], dim, v[5]));
              },
              {factors, written(), gentle(shape, dtype, shift, 0, 0.0625, random), written(),
               random_array(kept, dtype, random), written()},
              200);
        }
}

TEST_CASE("gradients of running products down tiles of columns agree on both devices",
          "[cuda][sizes]") {
  require_gpu();
  Random random(100);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : {Shape{2, 130, 296}, Shape{1, 64, 8}, Shape{1, 65, 9}})
      for (const int64_t shift : {0, 1}) {
        INFO(dtype << ' ' << shape << ", shift " << shift);
        const Array x = gentle(shape, dtype, shift, 1, 0.03125, random);
        write(x, x.numel() / 2, 0);
        Shape one = shape;
        one[2] = 1;
        for (const Array& dy : {gentle(shape, dtype, shift, 0, 0.0625, random),
                                gentle(one, dtype, shift, 0, 0.0625, random).expand(shape)})
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), cumprod_backward(v[0], v[1], 1, v[2]));
              },
              {x, dy, placed(shape, dtype, shift, random)}, 200);
      }
}

TEST_CASE("images of all widths agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(94);
  for (const DType dtype : {DType::f32, DType::f16})
    for (const int64_t n : {1, 2, 3, 7, 8, 9, 16, 17, 33})
      for (const int64_t shift : {0, 1}) {
        const Shape in{1, 2, n, n + 1};
        for (const PoolParams& p : {PoolParams{3, 3, 1, 1, 1, 1}, PoolParams{2, 5, 3, 2, 1, 2},
                                    PoolParams{.adaptive = true}}) {
          Shape out = in;
          out[2] = p.adaptive ? (n + 1) / 2 : (n + 2 * p.padding_h - p.kernel_h) / p.stride_h + 1;
          out[3] = p.adaptive ? 3 : (n + 1 + 2 * p.padding_w - p.kernel_w) / p.stride_w + 1;
          INFO(dtype << ' ' << in << " to " << out << ", shift " << shift);
          compare_devices(
              [&](const auto& v) {
                const Device device = v[0].device();
                BINADE_DISPATCH(device, max_pool2d(v[0], p, v[1], v[2]));
                BINADE_DISPATCH(device, max_pool2d_backward(v[1], v[2], p, v[3]));
                BINADE_DISPATCH(device, avg_pool2d(v[0], p, v[4]));
                BINADE_DISPATCH(device, avg_pool2d_backward(v[4], p, v[5]));
              },
              {placed(in, dtype, shift, random), placed(out, dtype, shift, random),
               Array::zeros(out, DType::i32), placed(in, dtype, shift, random),
               placed(out, dtype, shift, random), placed(in, dtype, shift, random)},
              4);
        }
        const Shape even{1, 2, n + 2, 32};  // pairs of columns
        for (const PoolParams& p :
             {PoolParams{}, PoolParams{3, 2, 1, 2, 1, 0}, PoolParams{2, 2, 2, 2, 1, 0, 2, 1},
              PoolParams{.adaptive = true}}) {
          Shape out = even;
          out[3] = 16;
          const int64_t extent = (p.kernel_h - 1) * p.dilation_h + 1;
          out[2] = p.adaptive ? n : (even[2] + 2 * p.padding_h - extent) / p.stride_h + 1;
          if (out[2] < 1) continue;
          INFO(dtype << ' ' << even << " to " << out << ", shift " << shift);
          compare_devices(
              [&](const auto& v) {
                const Device device = v[0].device();
                BINADE_DISPATCH(device, max_pool2d(v[0], p, v[1], v[2]));
                BINADE_DISPATCH(device, max_pool2d_backward(v[1], v[2], p, v[3]));
                if (p.dilation_h > 1) return;
                BINADE_DISPATCH(device, avg_pool2d(v[0], p, v[4]));
                BINADE_DISPATCH(device, avg_pool2d_backward(v[4], p, v[5]));
              },
              {placed(even, dtype, shift, random), placed(out, dtype, shift, random),
               Array::zeros(out, DType::i32), placed(even, dtype, shift, random),
               placed(out, dtype, shift, random), placed(even, dtype, shift, random)},
              4);
        }
        for (const Shape& out : {Shape{1, 2, n + 3, 2 * n + 2}, Shape{1, 2, 2, 5}})
          for (const InterpolateParams& params :
               {InterpolateParams{}, InterpolateParams{true, false},
                InterpolateParams{true, true}}) {
            INFO(dtype << ' ' << in << " to " << out << ", shift " << shift);
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), interpolate(v[0], params, v[1]));
                  BINADE_DISPATCH(v[0].device(), interpolate_backward(v[2], params, v[3]));
                },
                {placed(in, dtype, shift, random), placed(out, dtype, shift, random),
                 placed(out, dtype, shift, random), placed(in, dtype, shift, random)},
                20);
          }
      }
}

TEST_CASE("masks and draws of all lengths agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(95);
  for (const int64_t n : {int64_t{1}, int64_t{15}, int64_t{16}, int64_t{17}, int64_t{129},
                          kMaskChunk - 1, kMaskChunk, kMaskChunk + 1, 3 * kMaskChunk + 5})
    for (const int64_t shift : {0, 1, 8})
      for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::u8}) {
        INFO(n << ' ' << dtype << ", shift " << shift);
        const Array mask = placed({n}, DType::boolean, shift, random);
        const Array ends = Array::zeros({(n + kMaskChunk - 1) / kMaskChunk}, DType::i64);
        compare_devices(
            [](const auto& v) { BINADE_DISPATCH(v[0].device(), count_mask(v[0], v[1])); },
            {mask, ends});
        const auto total = static_cast<int64_t>(read(ends, ends.numel() - 1));
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(), mask_compact(v[1], v[0], v[2], v[3]));
              BINADE_DISPATCH(v[0].device(), mask_expand(v[3], v[0], v[2], v[4]));
            },
            {mask, placed({n}, dtype, shift, random), ends, placed({total}, dtype, shift, random),
             placed({n}, dtype, shift, random)});
      }
  for (const int64_t n : kLengths)
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool replacement : {false, true}) {
        INFO(n << " weights, " << dtype << ", replacement " << replacement);
        const Array weights = random_array({3, n}, dtype, random);
        for (int64_t i = 0; i < weights.numel(); ++i)
          write(weights, i, i % 5 == 3 && n > 9 ? 0 : std::abs(read(weights, i)) + 0.01);
        compare_devices(
            [&](const auto& v) {
              const PhiloxKey key{9, Array::full({}, 3, DType::i64).to(v[0].device()), 5};
              BINADE_DISPATCH(v[0].device(), multinomial(v[0], key, replacement, v[1]));
            },
            {weights, Array::zeros({3, std::min<int64_t>(n, 6)}, DType::i64)});
      }
}

TEST_CASE("reading and writing by index in rows of all lengths agrees on both devices",
          "[cuda][sizes]") {
  require_gpu();
  Random random(96);
  for (const DType dtype : {DType::f32, DType::f16, DType::i64})
    for (const int64_t n : {1, 7, 8, 33, 257})
      for (const int64_t shift : {0, 1})
        for (const DType by : {DType::i64, DType::i32}) {
          INFO(dtype << ", length " << n << ", shift " << shift << ", by " << by);
          const Shape shape{66, n}, picked{66, n + 5};
          const Array x = placed(shape, dtype, shift, random);
          const Array index = places_below(n, picked, by, random);
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), gather(v[0], 1, v[1], v[2])); },
              {x, index, placed(picked, dtype, shift, random)});
          const Array source = placed(picked, dtype, shift, random);
          for (const bool add : {false, true})
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), scatter(v[0], 1, v[1], v[2], add));
                },
                {x, index, source}, 10);
          for (const ScatterFold fold : {ScatterFold::max, ScatterFold::mean}) {
            if (fold == ScatterFold::mean && !is_floating(dtype)) continue;
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), scatter_reduce(v[0], 1, v[1], v[2], fold, false));
                },
                {x, index, source}, 10);
          }
          for (const int dim : {0, 1}) {
            Shape added = shape;
            added[dim] = 41;
            const Array rows = places_below(shape[dim], {41}, by, random);
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), index_add(v[0], dim, v[1], v[2], 1));
                  BINADE_DISPATCH(v[0].device(), index_select(v[0], dim, v[1], v[3]));
                },
                {x, rows, placed(added, dtype, shift, random), placed(added, dtype, shift, random)},
                10);
          }
        }
}

TEST_CASE("vectors of length 1 and gradients of cosines agree on both devices", "[cuda][sizes]") {
  require_gpu();
  Random random(97);
  for (const DType dtype : kFloatingDTypes) {
    const DType wide = dtype == DType::f64 ? dtype : DType::f32;
    for (const int64_t n : kLengths)
      for (const int64_t shift : {0, 1})
        for (const auto& [shape, dim] : lines_of(n, 8)) {
          INFO(dtype << ' ' << shape << ", shift " << shift << ", dim " << dim);
          const Array x = placed(shape, dtype, shift, random);
          for (int64_t i = 0; i < shape[dim]; ++i)  // a vector of zeros
            write(x, dim == 1 ? i : i * shape[1], 0);
          Shape kept = shape;
          kept[dim] = 1;
          const auto written = [&] { return placed(shape, dtype, shift, random); };
          compare_devices(
              [&](const auto& v) {
                const Device device = v[0].device();
                BINADE_DISPATCH(device, normalize(v[0], dim, 1e-3, v[1], v[2]));
                BINADE_DISPATCH(device, normalize_backward(v[0], v[3], v[1], dim, 1e-3, v[4]));
              },
              {x, Array::zeros(kept, wide), written(), written(), written()}, 20);
          const auto shares = [&] { return random_array(kept, wide, random).expand(shape); };
          compare_devices(
              [&](const auto& v) {
                const Device device = v[0].device();
                BINADE_DISPATCH(device, weighted_pair(v[0], v[1], v[2], v[3], v[4], v[5], v[6]));
                BINADE_DISPATCH(device, weighted_pair(v[0], v[1], v[2], v[3], v[4], Array(), v[7]));
              },
              {x, written(), shares(), shares(), shares(), written(), written(), written()}, 4);
          const auto lengths = [&](DType of) {  // some 0, some below eps
            const Array array = placed(kept, of, shift, random);
            for (int64_t i = 0; i < array.numel(); ++i)
              write(array, i, i % 3 == 0 ? 0 : std::abs(read(array, i)));
            return array;
          };
          const auto factors = [&] { return placed(kept, wide, shift, random); };
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(),
                                cosine_scales(v[0], v[1], v[2], v[3], 0.1, v[4], v[5], v[6]));
              },
              {factors(), lengths(wide), lengths(wide), factors(), factors(), factors(), factors()},
              4);
        }
  }
}
