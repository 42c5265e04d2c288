// Hopper's matmuls with GELU and SwiGLU (fused_matmul.h): against the CPU's, to the last bits of
// the activation, and as the kernels use them.
#include <binade/core/kernels/cuda/matmul/fused_matmul.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/matmul.h>

#include "core/column_sums.h"
#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using kernels::MatmulEpilogue;

namespace {

// On the CPU the formula that it promises, by matmul; on the GPU the matmul itself.
void run_gelu(const Array& x, const Array& weight, const Array& bias, const Array& pre,
              const Array& out) {
  if (x.device().is_cpu()) {
    MatmulEpilogue epilogue;
    epilogue.bias = bias;
    epilogue.gelu = true;
    epilogue.pre_activation = pre;
    kernels::cpu::matmul(x, weight.transpose(0, 1), out, epilogue);
  } else if constexpr (kCudaBuilt) {
    const cuda::DeviceScope scope(x.device());
    REQUIRE(kernels::cuda::fused_matmul_gelu(x, weight, bias, pre, out));
  }
}

void run_gelu_backward(const Array& dy, const Array& weight, const Array& pre, const Array& out,
                       const Array& sums, const Array& again) {
  if (dy.device().is_cpu()) {
    MatmulEpilogue epilogue;
    epilogue.dgelu = true;
    epilogue.pre_activation = pre;
    epilogue.out_sums = sums;
    epilogue.recomputed_gelu = again;
    kernels::cpu::matmul(dy, weight, out, epilogue);
  } else if constexpr (kCudaBuilt) {
    const cuda::DeviceScope scope(dy.device());
    REQUIRE(kernels::cuda::fused_matmul_gelu_backward(dy, weight, pre, out, sums, again));
  }
}

void run_swiglu(const Array& x, const Array& weight, const Array& pre, const Array& hidden) {
  if (x.device().is_cpu()) {
    kernels::cpu::matmul_swiglu(x, weight, pre, hidden);
  } else if constexpr (kCudaBuilt) {
    const cuda::DeviceScope scope(x.device());
    REQUIRE(kernels::cuda::fused_matmul_swiglu(x, weight, pre, hidden));
  }
}

void run_swiglu_backward(const Array& dy, const Array& weight, const Array& gate, const Array& up,
                         const Array& dgate, const Array& dup) {
  if (dy.device().is_cpu()) {
    // dh stays f32 in the GPU's.
    const Array dh = Array::empty(gate.shape(), DType::f32);
    kernels::cpu::matmul(dy, weight, dh, {});
    const Array wide[2] = {Array::empty(gate.shape(), DType::f32),
                           Array::empty(gate.shape(), DType::f32)};
    kernels::cpu::swiglu_backward(gate.to(DType::f32), up.to(DType::f32), dh, wide[0], wide[1], 0);
    kernels::cpu::copy(wide[0], dgate);
    kernels::cpu::copy(wide[1], dup);
  } else if constexpr (kCudaBuilt) {
    const cuda::DeviceScope scope(dy.device());
    REQUIRE(kernels::cuda::fused_matmul_swiglu_backward(dy, weight, gate, up, dgate, dup));
  }
}

// Skips the test where fused_matmul.h has no kernels: on other GPUs, or without CUTLASS.
void require_kernels() {
  require_gpu();
  if constexpr (kCudaBuilt) {
    const Array x = Array::zeros({8, 8}, DType::f16, test_gpu());
    const cuda::DeviceScope scope(test_gpu());
    if (!kernels::cuda::fused_matmul_gelu(x, x, {}, {}, gpu_empty({8, 8}, DType::f16)))
      skip("the matmuls with activations are built with CUTLASS and run on compute capability 9.0");
  }
}

struct Size {
  int64_t m, n, k;
};
// One tile and less, tails in every dimension, a cluster's tile beyond the last row, more tiles
// than a device has multiprocessors.
const Size kSizes[] = {{1, 8, 8},       {128, 128, 64},  {129, 8, 520},   {200, 136, 72},
                       {1000, 392, 40}, {257, 1160, 24}, {1800, 1992, 80}};

// Rows with a gap, or none.
Array rows(int64_t m, int64_t n, DType dtype, Random& random, bool gap, double spread = 1) {
  return gap ? random_array({m, n + 8}, dtype, random, spread).slice(1, 8)
             : random_array({m, n}, dtype, random, spread);
}

double ulp(double value, DType dtype) {
  const int least = dtype == DType::f16 ? -14 : -126, bits = dtype == DType::f16 ? 10 : 7;
  const int exponent = value == 0 ? least : std::max(std::ilogb(value), least);
  return std::ldexp(1.0, exponent - bits);
}

// Every finite f16 number and 0s, as (8192, 8).
Array all_halves(DType dtype) {
  const Array x = Array::empty({8192, 8}, dtype);
  for (int i = 0; i < 65536; ++i) {
    const float value = detail::half_bits_to_float(static_cast<uint16_t>(i));
    write(x, i, std::isfinite(value) ? value : 0);
  }
  return x;
}

double sigmoid_of_gelu(double x) {
  return 1 / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

}  // namespace

TEST_CASE("matmuls with GELU for Hopper agree with the CPU's", "[cuda][matmul]") {
  require_kernels();
  Random random(1);
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const auto& [m, n, k] : kSizes)
      for (int variant = 0; variant < 4; ++variant) {
        const bool biased = variant != 1, saved = variant != 2, gap = variant == 3;
        INFO(dtype << ' ' << m << ' ' << n << ' ' << k << ", variant " << variant);
        compare_devices(
            [&](const auto& v) {
              run_gelu(v[0], v[1], biased ? v[2] : Array(), saved ? v[3] : Array(), v[4]);
            },
            {rows(m, k, dtype, random, gap, 0.3), rows(n, k, dtype, random, gap, 0.3),
             random_array({n}, dtype, random), rows(m, n, dtype, random, gap),
             rows(m, n, dtype, random, gap)},
            2);
      }
}

TEST_CASE("matmuls with GELU's derivative for Hopper agree with the CPU's", "[cuda][matmul]") {
  require_kernels();
  Random random(2);
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const auto& [m, n, k] : kSizes)
      for (const bool gap : {false, true}) {
        INFO(dtype << ' ' << m << ' ' << n << ' ' << k << (gap ? ", rows with gaps" : ""));
        const std::vector<Array> arrays = {
            rows(m, k, dtype, random, gap, 0.3), rows(k, n, dtype, random, gap, 0.3),
            rows(m, n, dtype, random, gap, 2), rows(m, n, dtype, random, gap),
            rows(m, n, dtype, random, gap)};
        std::vector<Array> on_gpu;
        for (const Array& array : arrays) on_gpu.push_back(on_device(array, test_gpu()));
        for (const bool stored : {false, true}) {
          INFO(dtype << (stored ? ", with GELU again" : ", alone"));
          const auto again = [&](const Array& array) { return stored ? array : Array(); };
          compare_devices(
              [&](const auto& v) { run_gelu_backward(v[0], v[1], v[2], v[3], {}, again(v[4])); },
              arrays, 2);
          const std::vector<std::byte> untouched = bits_of(on_gpu[4]);
          const Array sums = gpu_empty({n}, DType::f32);
          run_gelu_backward(on_gpu[0], on_gpu[1], on_gpu[2], on_gpu[3], sums, again(on_gpu[4]));
          CHECK(column_sum_error(on_device(sums, Device::cpu()),
                                 on_device(on_gpu[3], Device::cpu())) <=
                8 * epsilon_of(DType::f32));
          const bool kept = bits_of(on_gpu[4]) == untouched;
          CHECK(kept != stored);
        }
        // What is stored beside it changes nothing in the matmul.
        const Array alone = gpu_empty({m, n}, dtype), beside = gpu_empty({m, n}, dtype);
        run_gelu_backward(on_gpu[0], on_gpu[1], on_gpu[2], alone, {}, {});
        run_gelu_backward(on_gpu[0], on_gpu[1], on_gpu[2], beside, {}, on_gpu[4]);
        const bool same = bits_of(alone) == bits_of(beside);
        CHECK(same);
      }
}

TEST_CASE("matmuls with SwiGLU for Hopper agree with the CPU's", "[cuda][matmul]") {
  require_kernels();
  Random random(7);
  // One tile and less, tails of rows and of K, a cluster's tile beyond the last row, more tiles
  // than a device has multiprocessors.
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const auto& [m, n, k] : {Size{1, 64, 8}, Size{128, 64, 64}, Size{129, 128, 520},
                                  Size{257, 192, 24}, Size{1000, 1024, 40}})
      for (const bool saved : {true, false}) {
        const bool gap = m % 2 == 1;
        INFO(dtype << ' ' << m << ' ' << n << ' ' << k << (saved ? ", gate and up kept" : ""));
        compare_devices(
            [&](const auto& v) { run_swiglu(v[0], v[1], saved ? v[2] : Array(), v[3]); },
            {rows(m, k, dtype, random, gap, 0.3), rows(2 * n, k, dtype, random, gap, 0.3),
             rows(m, 2 * n, dtype, random, gap), rows(m, n, dtype, random, gap)},
            2);
      }
}

TEST_CASE("SwiGLU in Hopper's matmul is what swiglu makes of the gate and up beside it",
          "[cuda][matmul]") {
  require_kernels();
  Random random(8);
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const int64_t m = 300, n = 320, k = 72;
    const Array x = gpu_random({m, k}, dtype, random),
                weight = gpu_random({2 * n, k}, dtype, random);
    const Array pre = gpu_empty({m, 2 * n}, dtype), hidden = gpu_empty({m, n}, dtype);
    run_swiglu(x, weight, pre, hidden);
    const Array before = on_device(pre, Device::cpu()), after = on_device(hidden, Device::cpu());
    double worst = 0;  // ulp
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const double gate = read(before, i * 2 * n + j), up = read(before, i * 2 * n + n + j);
        const double expected = gate / (1 + std::exp(-gate)) * up;
        worst = std::max(worst, std::abs(read(after, i * n + j) - expected) / ulp(expected, dtype));
      }
    CHECK(worst <= 0.6);
  }
}

TEST_CASE("matmuls with SwiGLU's derivative for Hopper agree with the CPU's", "[cuda][matmul]") {
  require_kernels();
  Random random(5);
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const auto& [m, n, k] : kSizes)
      for (const bool packed : {false, true}) {
        INFO(dtype << ' ' << m << ' ' << n << ' ' << k << (packed ? ", gate beside up" : ""));
        const auto dy = rows(m, k, dtype, random, packed, 0.3);
        const auto weight = rows(k, n, dtype, random, packed, 0.3);
        if (packed) {
          compare_devices(
              [&](const auto& v) {
                const auto half = [&](const Array& both, int which) {
                  return both.slice(1, which * n, which * n + n);
                };
                run_swiglu_backward(v[0], v[1], half(v[2], 0), half(v[2], 1), half(v[3], 0),
                                    half(v[3], 1));
              },
              {dy, weight, random_array({m, 2 * n}, dtype, random, 2),
               random_array({m, 2 * n}, dtype, random)},
              2);
        } else {
          compare_devices(
              [&](const auto& v) { run_swiglu_backward(v[0], v[1], v[2], v[3], v[4], v[5]); },
              {dy, weight, rows(m, n, dtype, random, true, 2), rows(m, n, dtype, random, false, 2),
               rows(m, n, dtype, random, false), rows(m, n, dtype, random, true)},
              2);
        }
      }
}

TEST_CASE("SwiGLU's derivative in Hopper's matmul is right to a rounding", "[cuda][matmul]") {
  require_kernels();
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Array gate = all_halves(dtype), up = Array::full(gate.shape(), 1, dtype);
    // Rows of dy · weight are ones.
    const Array dy = Array::zeros(gate.shape(), dtype), weight = Array::zeros({8, 8}, dtype);
    for (int64_t i = 0; i < dy.size(0); ++i) write(dy, 8 * i, 1);
    for (int j = 0; j < 8; ++j) write(weight, j, 1);
    const Array dgate = gpu_empty(gate.shape(), dtype), dup = gpu_empty(gate.shape(), dtype);
    const auto on_gpu = [](const Array& x) { return on_device(x, test_gpu()); };
    run_swiglu_backward(on_gpu(dy), on_gpu(weight), on_gpu(gate), on_gpu(up), dgate, dup);
    const Array dgate_read = on_device(dgate, Device::cpu()),
                dup_read = on_device(dup, Device::cpu());
    double worst_dgate = 0, worst_dup = 0;  // ulp
    for (int64_t i = 0; i < gate.numel(); ++i) {
      const double x = read(gate, i), sigmoid = 1 / (1 + std::exp(-x));
      const double silu = x * sigmoid, derivative = sigmoid * (1 + x * (1 - sigmoid));
      // A sigmoid below f32's normal numbers, 2^-126, is zero; |x| is below 128 there.
      worst_dup = std::max(
          worst_dup, std::abs(read(dup_read, i) - silu) / std::max(ulp(silu, dtype), 0x1p-118));
      // Where it crosses zero the derivative has the rounding of its terms, in f32.
      worst_dgate = std::max(worst_dgate, std::abs(read(dgate_read, i) - derivative) /
                                              std::max(ulp(derivative, dtype), 0x1p-21));
    }
    INFO(dtype);
    CHECK(worst_dup <= 0.6);
    CHECK(worst_dgate <= 0.6);
  }
}

TEST_CASE("GELU and its derivative in Hopper's matmuls are right to a rounding", "[cuda][matmul]") {
  require_kernels();
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Array x = all_halves(dtype), eye = Array::zeros({8, 8}, dtype);
    for (int i = 0; i < 8; ++i) write(eye, 9 * i, 1);
    const Array on_gpu = on_device(x, test_gpu()), eye_on_gpu = on_device(eye, test_gpu());
    const Array pre = gpu_empty(x.shape(), dtype), y = gpu_empty(x.shape(), dtype);
    run_gelu(on_gpu, eye_on_gpu, {}, pre, y);
    // Rows of dy · weight are ones.
    const Array dy = Array::zeros(x.shape(), dtype), weight = Array::zeros({8, 8}, dtype);
    for (int64_t i = 0; i < dy.size(0); ++i) write(dy, 8 * i, 1);
    for (int j = 0; j < 8; ++j) write(weight, j, 1);
    const Array dx = gpu_empty(x.shape(), dtype), again = gpu_empty(x.shape(), dtype);
    run_gelu_backward(on_device(dy, test_gpu()), on_device(weight, test_gpu()), on_gpu, dx, {},
                      again);

    const Array pre_read = on_device(pre, Device::cpu()), y_read = on_device(y, Device::cpu());
    const Array dx_read = on_device(dx, Device::cpu()),
                again_read = on_device(again, Device::cpu());
    int wrong_pre = 0;
    double worst_y = 0, worst_again = 0, worst_dx = 0;  // ulp
    for (int64_t i = 0; i < x.numel(); ++i) {
      const double value = read(x, i), sigmoid = sigmoid_of_gelu(value);
      const double gelu = value * sigmoid;
      const double slope = 2 * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * value * value);
      const double derivative = sigmoid * (1 + value * (1 - sigmoid) * slope);
      wrong_pre += read(pre_read, i) != value;
      // A sigmoid below f32's normal numbers, 2^-126, is zero; x is below 16 there.
      const double gelu_ulp = std::max(ulp(gelu, dtype), 0x1p-121);
      worst_y = std::max(worst_y, std::abs(read(y_read, i) - gelu) / gelu_ulp);
      worst_again = std::max(worst_again, std::abs(read(again_read, i) - gelu) / gelu_ulp);
      // Where it crosses zero the derivative has the rounding of its terms, in f32.
      worst_dx = std::max(worst_dx, std::abs(read(dx_read, i) - derivative) /
                                        std::max(ulp(derivative, dtype), 0x1p-21));
    }
    INFO(dtype);
    CHECK(wrong_pre == 0);
    CHECK(worst_y <= 0.6);
    CHECK(worst_again <= 0.6);
    CHECK(worst_dx <= 0.6);
  }
}

TEST_CASE("matmuls with activations for Hopper have the same bits each time", "[cuda][matmul]") {
  require_kernels();
  Random random(3);
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const int64_t m = 2080, n = 1544, k = 256;
    const Array x = gpu_random({m, k}, dtype, random), up = gpu_random({n, k}, dtype, random);
    const Array down = gpu_random({k, n}, dtype, random), saved = gpu_random({m, n}, dtype, random);
    const Array bias = gpu_random({n}, dtype, random), sums = gpu_empty({n}, DType::f32);
    const Array pre = gpu_empty({m, n}, dtype), out = gpu_empty({m, n}, dtype);
    const Array again = gpu_empty({m, n}, dtype);
    check_same_bits([&] { run_gelu(x, up, bias, pre, out); }, {pre, out});
    check_same_bits([&] { run_gelu_backward(x, down, saved, out, sums, again); },
                    {out, sums, again});
    check_same_bits([&] { run_swiglu_backward(x, down, saved, pre, out, again); }, {out, again});
    const Array both = gpu_random({2 * 1536, k}, dtype, random);
    const Array beside = gpu_empty({m, 2 * 1536}, dtype), hidden = gpu_empty({m, 1536}, dtype);
    check_same_bits([&] { run_swiglu(x, both, beside, hidden); }, {beside, hidden});
  }
}

TEST_CASE("matmuls with GELU for Hopper refuse what TMA cannot move", "[cuda][matmul]") {
  require_kernels();
  if constexpr (kCudaBuilt) {
    const auto applies = [](const Array& x, const Array& weight, const Array& out) {
      const cuda::DeviceScope scope(x.device());
      return kernels::cuda::fused_matmul_gelu(x, weight, {}, {}, out);
    };
    const auto half = [](const Shape& shape) { return gpu_empty(shape, DType::f16); };
    const Array x = half({16, 24}), weight = half({32, 24}), out = half({16, 32});
    x.zero();
    weight.zero();
    CHECK(applies(x, weight, out));
    CHECK_FALSE(applies(half({16, 20}), half({32, 20}), out));
    CHECK_FALSE(applies(x, half({36, 24}), half({16, 36})));
    CHECK_FALSE(applies(half({24, 16}).transpose(0, 1), weight, out));
    CHECK_FALSE(applies(half({16, 28}).slice(1, 0, 24), weight, out));
    CHECK_FALSE(applies(half({16, 32}).slice(1, 4, 28), weight, out));
    const auto single = [](const Shape& shape) { return gpu_empty(shape, DType::f32); };
    CHECK_FALSE(applies(single({16, 24}), single({32, 24}), single({16, 32})));
  }
}

TEST_CASE("large matmuls with GELU agree on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(4);
  const int64_t m = 2048, n = 1024, k = 1024;
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Array x = random_array({m, k}, dtype, random, 0.05);
    const Array up = random_array({n, k}, dtype, random),
                down = random_array({k, n}, dtype, random);
    const Array bias = random_array({n}, dtype, random), pre = random_array({m, n}, dtype, random);
    const Array out = random_array({m, n}, dtype, random);
    const Array again = random_array({m, n}, dtype, random);
    INFO(dtype);
    const auto run = [](const Array& a, const Array& b, const Array& to, const MatmulEpilogue& e) {
      BINADE_DISPATCH(a.device(), matmul(a, b, to, e));
    };
    compare_devices(
        [&](const auto& v) {
          MatmulEpilogue epilogue;
          epilogue.bias = v[2];
          epilogue.gelu = true;
          epilogue.pre_activation = v[3];
          run(v[0], v[1].transpose(0, 1), v[4], epilogue);
        },
        {x, up, bias, pre, out}, 2);
    for (const bool stored : {false, true})
      compare_devices(
          [&](const auto& v) {
            MatmulEpilogue epilogue;
            epilogue.dgelu = true;
            epilogue.pre_activation = v[2];
            epilogue.out_sums = Array::empty({n}, DType::f32, v[0].device());
            if (stored) epilogue.recomputed_gelu = v[4];
            run(v[0], v[1], v[3], epilogue);
            CHECK(column_sum_error(on_device(epilogue.out_sums, Device::cpu()),
                                   on_device(v[3], Device::cpu())) <= 8 * epsilon_of(DType::f32));
          },
          {x, down, pre, out, again}, 2);
  }
}

TEST_CASE("large matmuls with SwiGLU agree on both devices", "[cuda][matmul]") {
  require_gpu();
  Random random(6);
  const int64_t m = 2048, h = 1024, k = 1024;
  for (const DType dtype : {DType::f16, DType::bf16}) {
    INFO(dtype);
    const auto half = [&](const Array& both, int which) {
      return both.slice(1, which * h, which * h + h);
    };
    for (const bool saved : {true, false})
      compare_devices(
          [&](const auto& v) {
            BINADE_DISPATCH(v[0].device(), matmul_swiglu(v[0], v[1], saved ? v[2] : Array(), v[3]));
          },
          {random_array({m, k}, dtype, random, 0.05), random_array({2 * h, k}, dtype, random),
           random_array({m, 2 * h}, dtype, random), random_array({m, h}, dtype, random)},
          2);
    // The matmul is rounded to the dtype before the derivative on one side only.
    compare_devices(
        [&](const auto& v) {
          BINADE_DISPATCH(v[0].device(),
                          matmul_swiglu_backward(v[0], v[1], half(v[2], 0), half(v[2], 1),
                                                 half(v[3], 0), half(v[3], 1)));
        },
        {random_array({m, k}, dtype, random, 0.05), random_array({k, h}, dtype, random),
         random_array({m, 2 * h}, dtype, random, 2), random_array({m, 2 * h}, dtype, random)},
        4);
  }
}
