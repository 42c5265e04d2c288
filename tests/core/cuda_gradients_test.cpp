// Kernels that make gradients, and what they share plans with, on the GPU against those on the CPU.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/rearrange.h>
#include <binade/core/kernels/reduce.h>

#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

// Odd tails, one row, one column, no elements.
const std::vector<Shape> kShapes{{7}, {1029}, {5, 64}, {33, 17}, {1, 130}, {130, 1}, {4, 0}};

std::string label(int op, const Array& array) {
  return concat("op ", op, ", ", array.shape(), ' ', array.dtype(), ", strides ", array.strides());
}

// All 65,536 numbers of a type of 16 bits but its NaNs.
Array every_number(DType dtype) {
  std::vector<double> numbers;
  for (int bits = 0; bits < 65536; ++bits) {
    const auto word = static_cast<uint16_t>(bits);
    Half half;
    BFloat16 brain;
    half.bits = brain.bits = word;
    const float value = dtype == DType::f16 ? static_cast<float>(half) : static_cast<float>(brain);
    if (!std::isnan(value)) numbers.push_back(value);
  }
  return test::array_of(numbers, {static_cast<int64_t>(numbers.size())}, dtype);
}

}  // namespace

TEST_CASE("gradients of all functions agree on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(71);
  for (const DType dtype : kFloatingDTypes)
    for (int op = 0; op < static_cast<int>(UnaryOp::floor); ++op) {
      const auto which = static_cast<UnaryOp>(op);
      if (which == UnaryOp::neg || which == UnaryOp::sign) continue;
      for (const Shape& shape : {Shape{5, 64}, Shape{1029}})
        for (const Array& x : layouts(shape, dtype, random)) {
          INFO(label(op, x));
          for (int64_t i = 0; i < x.numel(); ++i)
            write(x, i, std::fmod(std::abs(read(x, i)), 1.3) + 0.125);
          compare_devices(
              [&](const auto& a) {
                BINADE_DISPATCH(a[0].device(), unary_backward(which, a[0], a[1], a[2], 0));
              },
              {x, random_array(shape, dtype, random), Array::zeros(shape, dtype)}, 4);
        }
    }
}

TEST_CASE("functions of every number of 16 bits are its neighbours at most", "[cuda][gradients]") {
  require_gpu();
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Array x = every_number(dtype);
    for (const UnaryOp op :
         {UnaryOp::exp, UnaryOp::exp2, UnaryOp::expm1, UnaryOp::log1p, UnaryOp::tan,
          UnaryOp::sigmoid, UnaryOp::silu, UnaryOp::softplus, UnaryOp::logsigmoid, UnaryOp::mish}) {
      const Array on_gpu = on_device(x, test_gpu());
      const Array y = Array::empty(x.shape(), dtype, test_gpu());
      BINADE_DISPATCH(y.device(), unary(op, on_gpu, y));
      const Array wide = x.to(DType::f64), exact = Array::empty(x.shape(), DType::f64);
      cpu::unary(op, wide, exact);
      const Array got = on_device(y, Device::cpu()), rounded = exact.to(dtype);
      int64_t wrong = 0;
      for (int64_t i = 0; i < x.numel(); ++i) {
        const double want = read(exact, i), value = read(got, i), nearest = read(rounded, i);
        if (value == nearest || (std::isnan(value) && std::isnan(nearest))) continue;
        // A rounding the other way, where the exact value lies (nearly) in the middle.
        const double gap = std::abs(value - nearest), off = std::abs(value - want);
        if (!(off <= 0.57 * gap)) ++wrong;
      }
      INFO("op " << static_cast<int>(op) << ' ' << dtype);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("gradients of two and three operands agree on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(72);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : kShapes)
      for (const Array& a : layouts(shape, dtype, random, true)) {
        const auto made = [&] { return random_array(shape, dtype, random); };
        if (a.numel() > 3) write(a, 3, NAN);
        const Array b = made(), c = made();
        const Array number = random_array({1}, dtype, random).expand(shape);
        for (int op = 0; op <= static_cast<int>(BinaryOp::distance); ++op) {
          const auto which = static_cast<BinaryOp>(op);
          if (which < BinaryOp::div || which == BinaryOp::pow) continue;
          INFO(label(op, a));
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(),
                                binary_backward(which, v[0], v[1], v[2], v[3], v[4]));
                BINADE_DISPATCH(v[0].device(),
                                binary_backward(which, v[0], v[1], v[2], Array(), v[5]));
              },
              {a, b, made(), made(), made(), made()}, 4);
        }
        for (const TernaryOp op : {TernaryOp::lerp, TernaryOp::addcmul, TernaryOp::clamp}) {
          INFO("ternary " << label(static_cast<int>(op), a));
          for (const Array& third : {c, number})
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), ternary_backward(op, v[0], v[1], v[2], 0.7, v[3],
                                                                  v[4], v[5], v[6]));
                },
                {a, b, third, made(), made(), made(), made()}, 4);
        }
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), clamp_backward(v[0], -0.5, 1, v[1], v[2]));
            },
            {a, b, made()});
      }
}

TEST_CASE("sums that statistics scale agree on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(73);
  for (const DType dtype : kFloatingDTypes) {
    const DType wide = dtype == DType::f64 ? dtype : DType::f32;
    for (const Shape& shape : {Shape{5, 64}, Shape{33, 17}, Shape{3, 0}, Shape{3, 1029}})
      for (const Array& x : layouts(shape, dtype, random))
        for (const Shape& narrow : {Shape{shape[0], 1}, Shape{1, shape[1]}}) {
          INFO(label(0, x) << ", statistics " << narrow);
          const auto statistic = [&] { return random_array(narrow, wide, random).expand(shape); };
          compare_devices(
              [&](const auto& v) {
                const auto& [x, a, y, b, out] = std::tie(v[0], v[1], v[2], v[3], v[4]);
                BINADE_DISPATCH(x.device(), weighted_sum(x, Array(), a, Array(), Array(), out));
                BINADE_DISPATCH(x.device(), weighted_sum(x, b, a, Array(), Array(), v[5]));
                BINADE_DISPATCH(x.device(), weighted_sum(x, Array(), a, y, b, v[6]));
              },
              {x, statistic(), random_array(shape, dtype, random), statistic(),
               random_array(shape, dtype, random), random_array(shape, dtype, random),
               random_array(shape, dtype, random)});
        }
  }
}

TEST_CASE("sums of pairs agree on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(74);
  for (const DType dtype : kFloatingDTypes) {
    const DType wide = dtype == DType::f64 ? dtype : DType::f32;
    for (const Shape& shape :
         {Shape{700}, Shape{5, 1031}, Shape{65, 48}, Shape{4, 9, 16}, Shape{3000, 8}})
      for (const Array& a : layouts(shape, dtype, random, true))
        for (unsigned dims = 1; dims < 1u << shape.dims(); ++dims) {
          Shape kept = shape;
          for (int d = 0; d < shape.dims(); ++d)
            if (dims >> d & 1) kept[d] = 1;
          INFO(label(0, a) << ", dims " << dims);
          const auto result = [&] { return Array::zeros(kept, wide); };
          const Array b = random_array(shape, dtype, random, 0.5);
          for (const PairOp op : {PairOp::product, PairOp::distance})
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), reduce_pairs(op, v[0], v[1], v[2]));
                },
                {a, b, result()}, 20);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), pair_products(v[0], v[1], v[2], v[3], v[4]));
              },
              {a, b, result(), result(), result()}, 20);
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), moments(v[0], v[1], v[2])); },
              {a, result(), result()}, 20);
        }
  }
}

TEST_CASE("moments keep their digits beside a large mean on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(78);
  for (const Shape& shape : {Shape{3, 8192}, Shape{3, 8193}, Shape{9000, 16}})
    for (const int dim : {0, 1}) {
      const Array x = random_array(shape, DType::f32, random);
      for (int64_t i = 0; i < x.numel(); ++i) write(x, i, 1000 + read(x, i));
      Shape kept = shape;
      kept[dim] = 1;
      INFO(shape << ", dim " << dim);
      compare_devices(
          [&](const auto& v) { BINADE_DISPATCH(v[0].device(), moments(v[0], v[1], v[2])); },
          {x, Array::zeros(kept, DType::f32), Array::zeros(kept, DType::f32)}, 20);
    }
}

TEST_CASE("gradients of padding agree on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(79);
  struct Case {
    Beyond beyond;
    int64_t before, behind;
  };
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape :
         {Shape{1}, Shape{9}, Shape{5, 64}, Shape{2, 3, 33}, Shape{3, 2, 8, 16}})
      for (const Case& pad :
           {Case{Beyond::mirror, 1, 2}, Case{Beyond::mirror, 4, 0}, Case{Beyond::edge, 3, 5},
            Case{Beyond::edge, 0, 17}, Case{Beyond::other_side, 2, 1}, Case{Beyond::number, 2, 3}})
        for (const bool last_alone : {false, true}) {
          std::vector<AxisMap> maps;
          Shape padded = shape;
          for (int d = 0; d < shape.dims(); ++d) {
            const int64_t least = pad.beyond == Beyond::mirror ? 5
                                  : pad.beyond == Beyond::edge ? 1
                                                               : 2;
            const bool plain = shape[d] < least || (last_alone && d + 1 < shape.dims());
            maps.push_back(
                {.size = shape[d], .offset = plain ? 0 : -pad.before, .beyond = pad.beyond});
            if (!plain) padded[d] += pad.before + pad.behind;
          }
          for (const Array& dy : layouts(padded, dtype, random, true)) {
            INFO(label(static_cast<int>(pad.beyond), dy) << ", dx " << shape);
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), rearrange_backward(v[0], maps, v[1]));
                },
                {dy, random_array(shape, dtype, random)}, 20);
          }
        }
}

TEST_CASE("rearranged copies agree on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(75);
  for (const DType dtype : kAllDTypes)
    for (const Shape& shape : {Shape{7}, Shape{5, 64}, Shape{2, 3, 9}, Shape{3, 2, 8, 16}})
      for (const Array& x : layouts(shape, dtype, random, true))
        for (int kind = 0; kind < 7; ++kind) {
          std::vector<AxisMap> maps;
          Shape out = shape;
          for (int d = 0; d < shape.dims(); ++d) {
            const int64_t size = shape[d];
            const bool plain = kind == 6 && d + 1 < shape.dims();  // the last dimension alone
            const AxisMap kinds[] = {{.size = size, .offset = size - 1, .reversed = true},
                                     {.size = size, .offset = -1, .beyond = Beyond::other_side},
                                     {.size = size, .repeats = 3},
                                     {.size = size, .offset = -2},
                                     {.size = size, .offset = -1, .beyond = Beyond::mirror},
                                     {.size = size, .offset = -5, .beyond = Beyond::edge},
                                     {.size = size, .offset = 1}};
            const int64_t grown[] = {size, size, 3 * size, size + 5, size + 2, size + 9, size - 1};
            const bool fits = kind != 4 || size > 2;
            maps.push_back(plain || !fits ? AxisMap{.size = size} : kinds[kind]);
            if (!plain && fits) out[d] = grown[kind];
          }
          INFO(label(kind, x));
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), rearrange(v[0], maps, 3, v[1]));
              },
              {x, Array::zeros(out, dtype)});
        }
}

TEST_CASE("folds and scans of long columns agree on both devices", "[cuda][gradients]") {
  require_gpu();
  Random random(76);
  for (const DType dtype : {DType::f32, DType::f16, DType::boolean})
    for (const Shape& shape : {Shape{5000, 64}, Shape{3001, 3}, Shape{2, 4100, 40}, Shape{600, 2},
                               Shape{40, 4}, Shape{30, 8}, Shape{2, 9000}}) {
      Array x = Array::empty(shape, dtype);
      fill_random(x, random);
      const int dim = shape.dims() - 2;
      Shape kept = shape;
      kept[dim] = 1;
      INFO(shape << ' ' << dtype);
      for (const ReduceOp op : {ReduceOp::max, ReduceOp::sum_squares, ReduceOp::sum_abs}) {
        if (op != ReduceOp::max && !is_floating(dtype)) continue;
        for (const int along : {dim, shape.dims() - 1}) {
          Shape out = shape;
          out[along] = 1;
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), reduce(op, v[0], v[1], 0)); },
              {x, Array::zeros(out, is_floating(dtype) ? DType::f32 : dtype)}, 20);
        }
      }
      for (const bool largest : {true, false})
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), arg_reduce(largest, v[0], dim, v[1]));
            },
            {x, Array::zeros(kept, DType::i64)});
      if (!is_floating(dtype)) continue;
      for (int64_t i = 0; i < x.numel(); ++i) write(x, i, std::fmod(read(x, i), 0.0625));
      for (const bool reverse : {false, true})
        for (const int along : {dim, shape.dims() - 1})
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), cumsum(v[0], along, reverse, v[1]));
              },
              {x, Array::zeros(shape, dtype)}, 8);
    }
}

TEST_CASE("gradient kernels have the same bits each time and in a graph", "[cuda][gradients]") {
  require_gpu();
  Random random(77);
  const Array x = gpu_random({3000, 72}, DType::f16, random),
              y = gpu_random({3000, 72}, DType::f16, random);
  const Array by_column = gpu_empty({1, 72}, DType::f32), by_row = gpu_empty({3000, 1}, DType::f32);
  const Array places = gpu_empty({1, 72}, DType::i64);
  const Array scanned = gpu_empty({3000, 72}, DType::f16), run = gpu_empty({3000, 72}, DType::f16);
  check_same_bits(
      [&] {
        BINADE_DISPATCH(x.device(), reduce(ReduceOp::sum_squares, x, by_column, 0));
        BINADE_DISPATCH(x.device(), reduce_pairs(PairOp::product, x, y, by_row));
        BINADE_DISPATCH(x.device(), arg_reduce(true, x, 0, places));
        BINADE_DISPATCH(x.device(), cumsum(x, 0, false, scanned));
        BINADE_DISPATCH(x.device(), cumsum(x, 1, true, run));
      },
      {by_column, by_row, places, scanned, run});
}
