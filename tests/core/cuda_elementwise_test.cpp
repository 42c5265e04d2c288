// Elementwise kernels on the GPU against those on the CPU.
#include <binade/core/kernels/elementwise.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

const std::vector<Shape> kShapes{{1}, {7}, {1029}, {5, 64}, {33, 17}, {2, 3, 4, 8}, {3, 1, 130}};

std::string label(int op, const Array& array) {
  return concat("op ", op, ", ", array.shape(), ' ', array.dtype(), ", strides ", array.strides());
}

}  // namespace

TEST_CASE("unary ops agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(1);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : kShapes)
      for (const Array& x : layouts(shape, dtype, random, true))
        for (int op = 0; op <= static_cast<int>(UnaryOp::round); ++op) {
          INFO(label(op, x));
          const auto which = static_cast<UnaryOp>(op);
          const bool positive = which == UnaryOp::log || which == UnaryOp::sqrt ||
                                which == UnaryOp::rsqrt || which == UnaryOp::log1p ||
                                which == UnaryOp::reciprocal;
          if (positive)
            for (int64_t i = 0; i < x.numel(); ++i) write(x, i, std::abs(read(x, i)) + 0.125);
          compare_devices(
              [&](const auto& a) { BINADE_DISPATCH(a[0].device(), unary(which, a[0], a[1])); },
              {x, random_array(shape, dtype, random)});
        }
}

TEST_CASE("unary ops write to any layout", "[cuda][elementwise]") {
  require_gpu();
  Random random(2);
  for (const DType dtype : kFloatingDTypes)
    for (const Array& out : layouts({6, 5, 16}, dtype, random))
      for (const Array& x : layouts({6, 5, 16}, dtype, random))
        compare_devices(
            [](const auto& a) {
              BINADE_DISPATCH(a[0].device(), unary(UnaryOp::gelu_tanh, a[0], a[1]));
            },
            {x, out});
}

TEST_CASE("unary ops of integers agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(3);
  for (const DType dtype : {DType::i64, DType::i32})
    for (const UnaryOp op : {UnaryOp::neg, UnaryOp::abs, UnaryOp::sign, UnaryOp::square})
      for (const Array& x : layouts({9, 31}, dtype, random, true))
        compare_devices(
            [&](const auto& a) { BINADE_DISPATCH(a[0].device(), unary(op, a[0], a[1])); },
            {x, Array::zeros({9, 31}, dtype)});
}

TEST_CASE("backward passes of activations agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(4);
  for (const DType dtype : kFloatingDTypes)
    for (const UnaryOp op :
         {UnaryOp::tanh, UnaryOp::sigmoid, UnaryOp::silu, UnaryOp::gelu, UnaryOp::gelu_tanh,
          UnaryOp::relu, UnaryOp::softplus, UnaryOp::hardswish, UnaryOp::logsigmoid, UnaryOp::mish})
      for (const float beta : {0.0f, 1.0f})
        for (const Array& x : layouts({5, 67}, dtype, random)) {
          INFO(label(static_cast<int>(op), x) << ", beta " << beta);
          const Array dx = random_array({5, 67}, dtype, random);
          if (beta == 0) set_all(dx, NAN);  // must not be read
          compare_devices(
              [&](const auto& a) {
                BINADE_DISPATCH(a[0].device(), unary_backward(op, a[0], a[1], a[2], beta));
              },
              {x, random_array({5, 67}, dtype, random), dx}, 2);
        }
}

TEST_CASE("functions with a number agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(41);
  for (const DType dtype : kFloatingDTypes)
    for (const ShapedOp op : {ShapedOp::leaky_relu, ShapedOp::elu, ShapedOp::softplus})
      for (const Array& x : layouts({5, 67}, dtype, random)) {
        INFO(label(static_cast<int>(op), x));
        compare_devices(
            [&](const auto& a) { BINADE_DISPATCH(a[0].device(), shaped(op, a[0], 0.7, a[1])); },
            {x, Array::zeros({5, 67}, dtype)}, 2);
        for (const float beta : {0.0f, 1.0f}) {
          const Array dx = random_array({5, 67}, dtype, random);
          if (beta == 0) set_all(dx, NAN);  // must not be read
          compare_devices(
              [&](const auto& a) {
                BINADE_DISPATCH(a[0].device(), shaped_backward(op, a[0], a[1], 0.7, a[2], beta));
              },
              {x, random_array({5, 67}, dtype, random), dx}, 2);
        }
      }
}

TEST_CASE("ops of three operands agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(42);
  for (const DType dtype : kFloatingDTypes)
    for (const TernaryOp op : {TernaryOp::lerp, TernaryOp::addcmul, TernaryOp::clamp})
      for (const Array& a : layouts({6, 48}, dtype, random, true)) {
        INFO(label(static_cast<int>(op), a));
        const Array b = random_array({6, 48}, dtype, random),
                    c = random_array({48}, dtype, random).expand({6, 48});
        write(a, 7, NAN);
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), ternary(op, v[0], v[1], v[2], 0.5, v[3]));
            },
            {a, b, c, Array::zeros({6, 48}, dtype)}, 2);
      }
}

TEST_CASE("triangles agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(43);
  for (const DType dtype : kAllDTypes)
    for (const Shape& shape : {Shape{33, 40}, Shape{3, 17, 9}, Shape{2, 64, 64}})
      for (const Array& x : layouts(shape, dtype, random))
        for (const bool lower : {true, false})
          for (const int64_t diagonal : {-50, -3, 0, 5, 50}) {
            INFO(x.shape() << ' ' << dtype << ", diagonal " << diagonal);
            compare_devices(
                [&](const auto& a) {
                  BINADE_DISPATCH(a[0].device(), triangle(a[0], diagonal, lower, a[1]));
                },
                {x, Array::zeros(shape, dtype)});
          }
}

TEST_CASE("copies from views read backwards agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(44);
  for (const DType dtype : {DType::f32, DType::f16, DType::u8}) {
    const Array x = random_array({7, 64}, dtype, random);
    compare_devices(
        [](const auto& a) {
          const Array from = Array::view_of(a[0].storage(), a[0].dtype(), a[0].shape(), {-64, -1},
                                            a[0].numel() - 1);
          a[1].copy_from(from);
        },
        {x, Array::zeros({7, 64}, dtype)});
  }
}

TEST_CASE("SwiGLU agrees on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(5);
  for (const DType dtype : kFloatingDTypes)
    for (const int64_t width : {40, 33}) {
      const auto half_of_packed = [&](int64_t start) {  // rows (gate | up) of one matmul
        return random_array({7, 2 * width}, dtype, random).slice(1, start, start + width);
      };
      const Array out = random_array({7, width}, dtype, random);
      compare_devices(
          [](const auto& a) { BINADE_DISPATCH(a[0].device(), swiglu(a[0], a[1], a[2])); },
          {half_of_packed(0), half_of_packed(width), out}, 2);
      for (const float beta : {0.0f, 1.0f})
        compare_devices(
            [&](const auto& a) {
              BINADE_DISPATCH(a[0].device(), swiglu_backward(a[0], a[1], a[2], a[3], a[4], beta));
            },
            {half_of_packed(0), half_of_packed(width), out, half_of_packed(0),
             half_of_packed(width)},
            4);
    }
}

// Division is tested apart.
bool takes_integers(BinaryOp op) {
  return op != BinaryOp::pow && op != BinaryOp::div && op != BinaryOp::atan2;
}

TEST_CASE("binary ops agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(6);
  for (const DType dtype : kAllDTypes)
    for (const Shape& shape : {Shape{1031}, Shape{6, 48}, Shape{3, 5, 7}})
      for (const Array& a : layouts(shape, dtype, random, true)) {
        const std::vector<Array> seconds = layouts(shape, dtype, random, true);
        const Array& b = seconds[random() % seconds.size()];
        for (int op = 0; op <= static_cast<int>(BinaryOp::minimum); ++op) {
          INFO(label(op, a) << " and " << b.strides());
          const auto which = static_cast<BinaryOp>(op);
          if (!is_floating(dtype) && !takes_integers(which)) continue;
          if (which == BinaryOp::pow)
            for (int64_t i = 0; i < a.numel(); ++i) write(a, i, std::abs(read(a, i)) + 0.125);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), binary(which, v[0], v[1], v[2]));
              },
              {a, b, Array::zeros(shape, dtype)}, which == BinaryOp::pow ? 8 : 1);
        }
      }
}

TEST_CASE("integers divide towards zero on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(7);
  for (const DType dtype : {DType::i64, DType::i32}) {
    const Array a = Array::empty({200}, dtype), b = Array::empty({200}, dtype);
    fill_random(a, random);
    for (int64_t i = 0; i < 200; ++i) write(b, i, i % 2 == 0 ? 3 : -4);
    compare_devices(
        [](const auto& v) {
          BINADE_DISPATCH(v[0].device(), binary(BinaryOp::div, v[0], v[1], v[2]));
        },
        {a, b, Array::zeros({200}, dtype)});
  }
}

TEST_CASE("a binary op may write over its operand", "[cuda][elementwise]") {
  require_gpu();
  Random random(8);
  for (const int64_t size : {1024, 1021})
    compare_devices(
        [](const auto& v) {
          BINADE_DISPATCH(v[0].device(), binary(BinaryOp::add, v[0], v[1], v[0]));
        },
        {random_array({size}, DType::f16, random), random_array({size}, DType::f16, random)});
}

TEST_CASE("ops with a number agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(9);
  for (const DType dtype : kAllDTypes)
    for (const bool value_first : {false, true})
      for (int op = 0; op <= static_cast<int>(BinaryOp::minimum); ++op) {
        const auto which = static_cast<BinaryOp>(op);
        if (!is_floating(dtype) && !takes_integers(which)) continue;
        for (const Array& a : layouts({5, 48}, dtype, random)) {
          INFO(label(op, a) << ", value first: " << value_first);
          if (which == BinaryOp::pow || which == BinaryOp::div)
            for (int64_t i = 0; i < a.numel(); ++i) write(a, i, std::abs(read(a, i)) + 0.25);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), binary_scalar(which, v[0], 3, value_first, v[1]));
              },
              {a, Array::zeros({5, 48}, dtype)}, 8);
        }
      }
}

TEST_CASE("comparisons and tests agree on both devices, specials included", "[cuda][elementwise]") {
  require_gpu();
  Random random(10);
  for (const DType dtype : kAllDTypes) {
    for (const Array& a : layouts({3, 80}, dtype, random, true)) {
      const Array b = on_device(a, Device::cpu());
      for (int64_t i = 0; i < b.numel(); i += 3) write(b, i, 1);
      if (is_floating(dtype)) {
        write(a, 1, NAN);
        write(a, 2, INFINITY);
        write(a, a.numel() - 1, -INFINITY);
        write(b, 1, NAN);
      }
      for (int op = 0; op <= static_cast<int>(CompareOp::logical_or); ++op) {
        INFO(label(op, a));
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), compare(static_cast<CompareOp>(op), v[0], v[1], v[2]));
            },
            {a, b, Array::zeros({3, 80}, DType::boolean)});
      }
      for (int op = 0; op <= static_cast<int>(TestOp::logical_not); ++op) {
        INFO("test " << label(op, a));
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), test(static_cast<TestOp>(op), v[0], v[1]));
            },
            {a, Array::zeros({3, 80}, DType::boolean)});
      }
    }
  }
}

TEST_CASE("where and clamp agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(11);
  for (const DType dtype : kAllDTypes)
    for (const Array& a : layouts({5, 32}, dtype, random, true)) {
      INFO(label(0, a));
      for (const Array& condition : layouts({5, 32}, DType::boolean, random, true))
        compare_devices(
            [](const auto& v) { BINADE_DISPATCH(v[0].device(), where(v[0], v[1], v[2], v[3])); },
            {condition, a, Array::full({5, 32}, 1, dtype), Array::zeros({5, 32}, dtype)});
      if (is_floating(dtype)) write(a, 0, NAN);
      compare_devices(
          [](const auto& v) { BINADE_DISPATCH(v[0].device(), clamp(v[0], 0, 1, v[1])); },
          {a, Array::zeros({5, 32}, dtype)});
    }
}

TEST_CASE("axpy agrees on both devices for all pairs of dtypes", "[cuda][elementwise]") {
  require_gpu();
  Random random(12);
  for (const DType from : kFloatingDTypes)
    for (const DType to : kFloatingDTypes)
      for (const Array& x : layouts({4, 72}, from, random, true)) {
        INFO(label(0, x) << " to " << to);
        compare_devices(
            [](const auto& v) { BINADE_DISPATCH(v[0].device(), axpy(-0.75, v[0], v[1])); },
            {x, random_array({4, 72}, to, random)});
      }
}

TEST_CASE("copies convert alike on both devices for all pairs of dtypes", "[cuda][elementwise]") {
  require_gpu();
  Random random(13);
  for (const DType from : kAllDTypes)
    for (const DType to : kAllDTypes) {
      for (const Array& x : layouts({6, 40}, from, random, true)) {
        if (to == DType::u8)  // negative numbers have no meaning there
          for (int64_t i = 0; i < x.numel(); ++i) write(x, i, std::abs(read(x, i)));
        INFO(label(0, x) << " to " << to);
        compare_devices([](const auto& v) { BINADE_DISPATCH(v[0].device(), copy(v[0], v[1])); },
                        {x, Array::zeros({6, 40}, to)});
      }
      for (const Array& out : layouts({6, 40}, to, random)) {
        const Array x = Array::full({6, 40}, 1, from);
        compare_devices([](const auto& v) { BINADE_DISPATCH(v[0].device(), copy(v[0], v[1])); },
                        {x, out});
      }
    }
}

TEST_CASE("halves round alike on both devices, subnormals and overflow included",
          "[cuda][elementwise]") {
  require_gpu();
  Random random(14);
  const Array x = Array::empty({4096}, DType::f32);
  for (int64_t i = 0; i < x.numel(); ++i)
    write(x, i,
          std::ldexp(1.0 + static_cast<double>(random() % 8192) / 8192,
                     static_cast<int>(random() % 48) - 30));
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Array out = Array::zeros({4096}, dtype);
    const Array device_out = on_device(out, test_gpu());
    out.copy_from(x);
    device_out.copy_from(on_device(x, test_gpu()));
    CHECK(difference(out, on_device(device_out, Device::cpu())) == 0);
  }
}

TEST_CASE("fills and ranges agree on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(15);
  for (const DType dtype : kAllDTypes) {
    for (const Array& out : layouts({3, 45}, dtype, random)) {
      INFO(label(0, out));
      compare_devices([](const auto& v) { BINADE_DISPATCH(v[0].device(), fill(v[0], 1.25)); },
                      {out});
    }
    compare_devices([](const auto& v) { BINADE_DISPATCH(v[0].device(), arange(v[0], 2, 3)); },
                    {Array::zeros({70}, dtype)});
  }
}

TEST_CASE("elementwise kernels take arrays without elements", "[cuda][elementwise]") {
  require_gpu();
  const Array x = Array::empty({0, 4}, DType::f32, test_gpu());
  BINADE_DISPATCH(x.device(), unary(UnaryOp::exp, x, x));
  BINADE_DISPATCH(x.device(), binary(BinaryOp::add, x, x, x));
  BINADE_DISPATCH(x.device(), copy(x, x));
  BINADE_DISPATCH(x.device(), fill(x, 1));
  CHECK_NOTHROW(synchronize(test_gpu()));
}

TEST_CASE("numbers of several dtypes join alike on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(11);
  for (const int count : {0, 1, 7, 64, 65, 200}) {
    std::vector<Array> arrays;
    int64_t elements = 0;
    for (int i = 0; i < count; ++i) {
      const DType dtype = kAllDTypes[static_cast<size_t>(i) % kAllDTypes.size()];
      arrays.push_back(random_array({i % 5 == 4 ? 37 : i % 3}, dtype, random));
      elements += arrays.back().numel();
    }
    arrays.push_back(Array::zeros({elements}, DType::f64));
    INFO(count);
    compare_devices(
        [](const auto& a) {
          const std::vector<Array> parts(a.begin(), a.end() - 1);
          BINADE_DISPATCH(a.back().device(), join(parts, a.back()));
        },
        arrays);
  }
}
