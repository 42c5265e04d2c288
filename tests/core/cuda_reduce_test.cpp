// Reductions, scans, softmax and orderings on the GPU against those on the CPU.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/softmax.h>
#include <binade/core/kernels/sort.h>

#include <limits>

#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

Shape reduced_shape(const Shape& shape, unsigned dims) {
  Shape out = shape;
  for (int d = 0; d < shape.dims(); ++d)
    if (dims >> d & 1) out[d] = 1;
  return out;
}

// The dtype that the op's result has in the library.
DType result_dtype(ReduceOp op, DType dtype) {
  const bool grows = op == ReduceOp::sum || op == ReduceOp::prod;
  return grows && !is_floating(dtype) ? DType::i64 : dtype;
}

// Rows of numbers in [-0.5, 0.5), so that a sum of many stays where its dtype is precise.
void soften(const Array& x) {
  if (!is_floating(x.dtype())) return;
  for (int64_t i = 0; i < x.numel(); ++i) write(x, i, std::fmod(read(x, i), 0.5));
}

}  // namespace

TEST_CASE("reductions agree on both devices", "[cuda][reduce]") {
  require_gpu();
  Random random(21);
  for (const DType dtype : kAllDTypes)
    for (const Shape& shape :
         {Shape{1}, Shape{700}, Shape{5, 1031}, Shape{65, 48}, Shape{4, 9, 16}})
      for (const Array& x : layouts(shape, dtype, random, true)) {
        soften(x);
        for (unsigned dims = 1; dims < 1u << shape.dims(); ++dims)
          for (const ReduceOp op :
               {ReduceOp::sum, ReduceOp::mean, ReduceOp::max, ReduceOp::min, ReduceOp::prod,
                ReduceOp::sum_abs, ReduceOp::sum_squares, ReduceOp::max_abs, ReduceOp::nonzeros}) {
            const bool of_any_dtype = op == ReduceOp::sum || op == ReduceOp::max ||
                                      op == ReduceOp::min || op == ReduceOp::prod;
            if (!of_any_dtype && !is_floating(dtype)) continue;
            INFO("op " << static_cast<int>(op) << ", dims " << dims << ", " << x.shape() << ' '
                       << dtype << ", strides " << x.strides());
            const Array out = Array::zeros(reduced_shape(shape, dims), result_dtype(op, dtype));
            compare_devices(
                [&](const auto& v) { BINADE_DISPATCH(v[0].device(), reduce(op, v[0], v[1], 0)); },
                {x, out}, dtype == DType::f32 ? 4 : 1);
          }
      }
}

TEST_CASE("long and wide reductions agree on both devices", "[cuda][reduce]") {
  require_gpu();
  Random random(22);
  struct Case {
    Shape shape;
    unsigned dims;
  };
  // One long row, few long rows, many rows into columns, one column apart, everything.
  for (const auto& [shape, dims] :
       {Case{{300001}, 1}, Case{{3, 50000}, 2}, Case{{5000, 64}, 1}, Case{{5000, 3}, 1},
        Case{{20, 30, 500}, 7}, Case{{20, 30, 500}, 5}})
    for (const DType dtype : {DType::f32, DType::f16}) {
      const Array x = random_array(shape, dtype, random, 0.5);
      for (const float beta : {0.0f, 1.0f}) {
        INFO(shape << ' ' << dtype << ", beta " << beta);
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), reduce(ReduceOp::sum, v[0], v[1], beta));
            },
            {x, Array::full(reduced_shape(shape, dims), 2, DType::f32)}, 20);
      }
    }
}

TEST_CASE("sums on the GPU have the same bits each time", "[cuda][reduce]") {
  require_gpu();
  Random random(23);
  const Array x = on_device(random_array({70, 5003}, DType::f32, random), test_gpu());
  for (const Shape& shape : {Shape{70, 1}, Shape{1, 5003}, Shape{1, 1}}) {
    std::vector<float> first;
    for (int run = 0; run < 3; ++run) {
      const Array out = Array::zeros(shape, DType::f32, test_gpu());
      BINADE_DISPATCH(x.device(), reduce(ReduceOp::sum, x, out, 0));
      if (run == 0) first = out.to_vector<float>();
      CHECK(out.to_vector<float>() == first);
    }
  }
}

TEST_CASE("extrema keep NaN, and nothing has a sum of zero", "[cuda][reduce]") {
  require_gpu();
  Random random(24);
  for (const int64_t length : {5, 40, 3000}) {
    const Array x = random_array({4, length}, DType::f16, random);
    write(x, length - 1, NAN);
    write(x, length, INFINITY);
    write(x, 2 * length, -INFINITY);
    for (const ReduceOp op : {ReduceOp::max, ReduceOp::min})
      compare_devices(
          [&](const auto& v) { BINADE_DISPATCH(v[0].device(), reduce(op, v[0], v[1], 0)); },
          {x, Array::zeros({4, 1}, DType::f16)});
  }
  const Array out = Array::full({3, 1}, 7, DType::f32, test_gpu());
  const Array nothing = Array::empty({3, 0}, DType::f32, test_gpu());
  BINADE_DISPATCH(out.device(), reduce(ReduceOp::sum, nothing, out, 0));
  CHECK(out.to_vector<float>() == std::vector<float>{0, 0, 0});
}

TEST_CASE("positions of extrema agree on both devices", "[cuda][reduce]") {
  require_gpu();
  Random random(25);
  for (const DType dtype : kAllDTypes)
    for (const Shape& shape : {Shape{1}, Shape{40, 33}, Shape{3, 2000}, Shape{2, 7, 5}})
      for (const Array& x : layouts(shape, dtype, random, true))
        for (int dim = 0; dim < shape.dims(); ++dim)
          for (const bool largest : {false, true}) {
            INFO(x.shape() << ' ' << dtype << ", strides " << x.strides() << ", dim " << dim);
            if (is_floating(dtype) && shape.numel() > 100 && largest) write(x, 60, NAN);
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), arg_reduce(largest, v[0], dim, v[1]));
                },
                {x, Array::zeros(reduced_shape(shape, 1u << dim), DType::i64)});
          }
}

TEST_CASE("logsumexp agrees on both devices", "[cuda][reduce]") {
  require_gpu();
  Random random(26);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : {Shape{40, 33}, Shape{3, 3000}, Shape{2, 7, 5}})
      for (const Array& x : layouts(shape, dtype, random))
        for (int dim = 0; dim < shape.dims(); ++dim) {
          write(x, 3, -INFINITY);
          write(x, x.numel() - 1, 80);  // exp(80 + ...) would overflow without the shift
          const DType out = dtype == DType::f64 ? DType::f64 : DType::f32;
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), logsumexp(v[0], dim, v[1])); },
              {x, Array::zeros(reduced_shape(shape, 1u << dim), out)});
        }
}

TEST_CASE("running sums agree on both devices", "[cuda][reduce]") {
  require_gpu();
  Random random(27);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::i64, DType::i32})
    for (const Shape& shape :
         {Shape{1}, Shape{3, 20}, Shape{4, 257}, Shape{3, 1500}, Shape{40, 1200}})
      for (const Array& x : layouts(shape, dtype, random))
        for (int dim = 0; dim < shape.dims(); ++dim)
          for (const bool reverse : {false, true}) {
            soften(x);
            INFO(x.shape() << ' ' << dtype << ", strides " << x.strides() << ", dim " << dim);
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), cumsum(v[0], dim, reverse, v[1]));
                },
                {x, Array::zeros(shape, dtype)}, dtype == DType::f32 ? 10 : 1);
          }
}

TEST_CASE("softmax agrees on both devices", "[cuda][softmax]") {
  require_gpu();
  Random random(28);
  const auto run = [](bool log, const Array& x, const Array& y) {
    if (log)
      BINADE_DISPATCH(x.device(), log_softmax(x, y));
    else
      BINADE_DISPATCH(x.device(), softmax(x, y));
  };
  for (const int64_t length : {1, 5, 64, 1000, 1025, 4096})
    for (const DType from : kFloatingDTypes)
      for (const DType to : kFloatingDTypes)
        for (const bool strided : {false, true})
          for (const bool log : {false, true}) {
            INFO("length " << length << ", " << from << " to " << to << ", strided " << strided
                           << ", log " << log);
            Array x = random_array({2, 3, length + 3 * strided}, from, random);
            if (strided) x = x.slice(2, 2, 2 + length);
            if (length > 1) write(x, 0, -INFINITY);
            // Below f64 the rows are computed in f32, whatever the output holds.
            const bool narrow = to == DType::f64 && from != DType::f64;
            const double slack = narrow ? tolerance_of(DType::f32) / tolerance_of(to) : 1;
            compare_devices([&](const auto& v) { run(log, v[0], v[1]); },
                            {x, Array::zeros({2, 3, length}, to)}, 2 * slack);
          }
}

TEST_CASE("backward passes of softmax agree on both devices", "[cuda][softmax]") {
  require_gpu();
  Random random(29);
  for (const int64_t length : {1, 7, 64, 1001, 4096})
    for (const DType dtype : kFloatingDTypes)
      for (const DType to : {dtype, DType::f16})
        for (const float beta : {0.0f, 1.0f}) {
          INFO("length " << length << ", " << dtype << " to " << to << ", beta " << beta);
          const Array y = random_array({5, length}, dtype, random, 0.1);
          const Array dy =
              random_array({5, length + 8}, dtype, random, 0.5).slice(1, 8, 8 + length);
          const Array dx = random_array({5, length}, to, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), softmax_backward(v[0], v[1], v[2], beta));
              },
              {y, dy, dx}, 4);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), log_softmax_backward(v[0], v[1], v[2], beta));
              },
              {y, dy, dx}, dtype == DType::f32 ? 20 : 4);
        }
}

TEST_CASE("sorting agrees on both devices, ties and NaN included", "[cuda][sort]") {
  require_gpu();
  Random random(30);
  for (const DType dtype : kAllDTypes)
    for (const Shape& shape : {Shape{1}, Shape{3000}, Shape{20, 33}, Shape{4, 6, 11}})
      for (const Array& x : layouts(shape, dtype, random))
        for (int dim = 0; dim < shape.dims(); ++dim)
          for (const bool descending : {false, true}) {
            if (is_floating(dtype) && x.numel() > 100) {
              for (int64_t i = 0; i < x.numel(); i += 3) write(x, i, std::round(read(x, i)));
              write(x, 5, NAN);
              write(x, 50, NAN);
              write(x, 7, -0.0);
              write(x, 8, 0.0);
              write(x, 9, -INFINITY);
            }
            INFO(x.shape() << ' ' << dtype << ", strides " << x.strides() << ", dim " << dim);
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), sort(v[0], dim, descending, v[1], v[2]));
                },
                {x, Array::zeros(shape, dtype), Array::zeros(shape, DType::i64)});
            Shape some = shape;
            some[dim] = (shape[dim] + 2) / 3;
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), topk(v[0], some[dim], dim, v[1], v[2]));
                },
                {x, Array::zeros(some, dtype), Array::zeros(some, DType::i64)});
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), topk(v[0], some[dim], dim, v[1], v[2], false));
                },
                {x, Array::zeros(some, dtype), Array::zeros(some, DType::i64)});
          }
}

TEST_CASE("running products and their gradients agree on both devices", "[cuda][reduce]") {
  require_gpu();
  Random random(31);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : {Shape{5, 1000}, Shape{1500, 40}, Shape{3, 7, 20}, Shape{3, 9216},
                               Shape{2, 8197}, Shape{2, 130, 328}})
      for (const Array& x : layouts(shape, dtype, random)) {
        // Factors around 1, a few 0: products neither vanish nor leave the range.
        for (int64_t i = 0; i < x.numel(); ++i)
          write(x, i, i % 997 == 3 ? 0 : 1 + std::fmod(read(x, i), 0.0625));
        for (int dim = 0; dim < shape.dims(); ++dim) {
          INFO(x.shape() << ' ' << dtype << ", strides " << x.strides() << ", dim " << dim);
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), cumprod(v[0], dim, v[1])); },
              {x, Array::zeros(shape, dtype)}, 100);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), cumprod_backward(v[0], v[1], dim, v[2]));
              },
              {x, random_array(shape, dtype, random), Array::zeros(shape, dtype)}, 200);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), prod_backward(v[0], v[1], dim, v[2]));
              },
              {x, random_array(reduced_shape(shape, 1u << dim), dtype, random),
               Array::zeros(shape, dtype)},
              200);
        }
      }
}

TEST_CASE("gradients of running products down columns have the same bits each time",
          "[cuda][reduce]") {
  require_gpu();
  Random random(32);
  const Array x = gpu_random({1000, 72}, DType::f16, random),
              dy = gpu_random({1000, 72}, DType::f16, random);
  const Array dx = gpu_empty(x.shape(), DType::f16);
  check_same_bits([&] { BINADE_DISPATCH(x.device(), cumprod_backward(x, dy, 0, dx)); }, {dx});
}

TEST_CASE("an infinite factor leaves the gradients beside it as they are", "[cuda][reduce]") {
  require_gpu();
  for (const int dim : {0, 1}) {  // dy of the last product alone: dx = dy · Π of the others
    const Shape shape = dim == 0 ? Shape{200, 8} : Shape{8, 200};
    const Array x = Array::full(shape, 1, DType::f32), dx = Array::zeros(shape, DType::f32);
    write(x, dim == 0 ? 100 * 8 : 100, INFINITY);
    const Array dy = Array::full(dim == 0 ? Shape{1, 8} : Shape{8, 1}, 2, DType::f32);
    const Array given = on_device(x, test_gpu()), taken = on_device(dx, test_gpu());
    BINADE_DISPATCH(given.device(), prod_backward(given, on_device(dy, test_gpu()), dim, taken));
    const Array result = taken.to(Device::cpu());
    for (int64_t i = 0; i < 200; ++i) {
      INFO("dim " << dim << ", position " << i);
      CHECK(read(result, dim == 0 ? i * 8 : i) == (i == 100 ? 2 : INFINITY));
    }
  }
}
