// Norms and the cross-entropy loss on the GPU against those on the CPU.
#include <binade/core/device_errors.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/loss.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/reduce.h>

#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using kernels::CrossEntropyParams;

namespace {

DType statistics_dtype(DType dtype) {
  return dtype == DType::f64 ? DType::f64 : DType::f32;
}

// Rows of `cols` elements: a few threads', a warp's, a block's, longer than the registers hold, odd
// sizes.
const Shape kSizes[] = {{1, 1},    {5, 7},    {70, 64},  {9, 768},   {12, 1000},
                        {3, 1023}, {5, 2048}, {2, 8200}, {1, 20000}, {2, 4099},
                        {65, 8},   {69, 24},  {33, 32},  {70, 136},  {66, 256}};

// Arrays of a norm: 0 x, 1 residual, 2 weight, 3 bias, 4 sum, 5 y, 6 mean, 7 rstd; of its backward
// pass: 8 dy, 9 dx, 10 dweight, 11 dbias. Rows of `gap` more elements than are used.
std::vector<Array> norm_arrays(const Shape& size, DType dtype, DType param_dtype, int64_t gap,
                               Random& random) {
  const int64_t rows = size[0], cols = size[1];
  const auto make_rows = [&] {
    return random_array({rows, cols + gap}, dtype, random).slice(1, 0, cols);
  };
  const auto make_vector = [&] { return random_array({cols}, param_dtype, random); };
  const auto make_statistic = [&] { return random_array({rows}, statistics_dtype(dtype), random); };
  std::vector<Array> arrays = {make_rows(), make_rows(), make_vector(),    make_vector(),
                               make_rows(), make_rows(), make_statistic(), make_statistic(),
                               make_rows(), make_rows(), make_vector(),    make_vector()};
  for (int64_t i = 0; i < arrays[0].numel(); ++i)  // a mean that must not cancel
    write(arrays[0], i, 3 + read(arrays[0], i));
  return arrays;
}

}  // namespace

TEST_CASE("norms agree on both devices", "[cuda][norm]") {
  require_gpu();
  Random random(21);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& size : kSizes)
      for (const int64_t gap : {0, 8, 3}) {
        const DType param_dtype = gap == 8 ? DType::f32 : dtype;
        INFO(dtype << ", params " << param_dtype << ", size " << size << ", gap " << gap);
        const auto arrays = norm_arrays(size, dtype, param_dtype, gap, random);
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(), layer_norm(v[0], v[2], v[3], 1e-5f, v[5], v[6], v[7]));
            },
            arrays, 4);
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(), layer_norm(v[0], v[2], {}, 1e-5f, v[5], v[6], v[7]));
            },
            arrays, 4);
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(), rms_norm(v[0], v[2], 1e-6f, v[5], v[7]));
            },
            arrays, 4);
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(),
                              add_norm(v[0], v[1], v[2], v[3], 1e-5f, v[4], v[5], v[6], v[7]));
            },
            arrays, 4);
        compare_devices(
            [](const auto& v) {
              BINADE_DISPATCH(v[0].device(),
                              add_norm(v[0], v[1], v[2], {}, 1e-5f, v[4], v[5], {}, v[7]));
            },
            arrays, 4);
      }
}

TEST_CASE("backward passes of norms agree on both devices", "[cuda][norm]") {
  require_gpu();
  Random random(22);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& size : kSizes)
      for (const int64_t gap : {0, 8, 3})
        for (const float beta : {0.0f, 1.0f}) {
          const DType param_dtype = gap == 8 ? DType::f32 : dtype;
          INFO(dtype << ", params " << param_dtype << ", size " << size << ", gap " << gap
                     << ", beta " << beta);
          const auto arrays = norm_arrays(size, dtype, param_dtype, gap, random);
          // Statistics as the forward pass leaves them.
          kernels::cpu::layer_norm(arrays[0], arrays[2], arrays[3], 1e-5f, arrays[5], arrays[6],
                                   arrays[7]);
          // Sums over up to 70 rows of terms of size 1.
          const double slack = 8;
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(),
                                layer_norm_backward(v[8], v[0], v[2], v[6], v[7], v[9], beta, v[10],
                                                    beta, v[11], beta, {}));
              },
              arrays, slack);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), layer_norm_backward(v[8], v[0], v[2], v[6], v[7], {},
                                                                   0, v[10], beta, {}, 0, {}));
              },
              arrays, slack);
          kernels::cpu::rms_norm(arrays[0], arrays[2], 1e-5f, arrays[5], arrays[7]);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(),
                                rms_norm_backward(v[8], v[0], v[2], v[7], v[9], beta, v[10], beta));
              },
              arrays, slack);
        }
}

TEST_CASE("the backward pass of a norm takes more narrow rows than a device has blocks for",
          "[cuda][norm]") {
  require_gpu();
  Random random(27);
  const auto arrays = norm_arrays({9001, 256}, DType::f16, DType::f32, 0, random);
  kernels::cpu::rms_norm(arrays[0], arrays[2], 1e-5f, arrays[5], arrays[7]);
  compare_devices(
      [&](const auto& v) {
        BINADE_DISPATCH(v[0].device(),
                        rms_norm_backward(v[8], v[0], v[2], v[7], v[9], 0, v[10], 0));
      },
      arrays, 60);  // sums over 9001 rows of terms of size 1
}

TEST_CASE("column sums of a norm's input gradient are those of what is stored", "[cuda][norm]") {
  require_gpu();
  Random random(22);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& size : kSizes)
      for (const float beta : {0.0f, 1.0f}) {
        INFO(dtype << ", size " << size << ", beta " << beta);
        std::vector<Array> v;
        for (const Array& array : norm_arrays(size, dtype, dtype, 0, random))
          v.push_back(on_device(array, test_gpu()));
        const Array sums = Array::full({size[1]}, NAN, statistics_dtype(dtype), test_gpu());
        BINADE_DISPATCH(v[0].device(), layer_norm(v[0], v[2], v[3], 1e-5f, v[5], v[6], v[7]));
        BINADE_DISPATCH(v[0].device(), layer_norm_backward(v[8], v[0], v[2], v[6], v[7], v[9], beta,
                                                           v[10], 0, {}, 0, sums));
        const Array dx = on_device(v[9], Device::cpu());
        const Array expected = Array::empty({1, size[1]}, sums.dtype());
        kernels::cpu::reduce(kernels::ReduceOp::sum, dx, expected, 0);
        // The sums nearly cancel where nothing is added: their error is that of sums of size 1.
        CHECK(difference(expected.view({size[1]}), on_device(sums, Device::cpu())) <=
              8 * tolerance_of(sums.dtype()) * std::sqrt(static_cast<double>(size[0])));
      }
}

TEST_CASE("norms have the same bits each time and in a graph", "[cuda][norm]") {
  require_gpu();
  Random random(23);
  for (const auto& [dtype, cols] :
       {std::pair<DType, int64_t>{DType::f32, 768}, {DType::f16, 768}, {DType::f16, 32}}) {
    std::vector<Array> v;
    for (const Array& array : norm_arrays({1000, cols}, dtype, dtype, 0, random))
      v.push_back(on_device(array, test_gpu()));
    check_same_bits(
        [&] {
          BINADE_DISPATCH(v[0].device(),
                          add_norm(v[0], v[1], v[2], v[3], 1e-5f, v[4], v[5], v[6], v[7]));
        },
        {v[4], v[5], v[6], v[7]});
    BINADE_DISPATCH(v[0].device(), layer_norm(v[0], v[2], v[3], 1e-5f, v[5], v[6], v[7]));
    const Array sums = Array::empty({cols}, DType::f32, test_gpu());
    check_same_bits(
        [&] {
          BINADE_DISPATCH(v[0].device(), layer_norm_backward(v[8], v[0], v[2], v[6], v[7], v[9], 0,
                                                             v[10], 1, v[11], 1, sums));
        },
        {v[9], v[10], v[11], sums});
  }
}

namespace {

// 0 logits, 1 targets, 2 loss, 3 logsumexp, 4 dloss, 5 dlogits.
std::vector<Array> loss_arrays(int64_t rows, int64_t classes, int64_t stride, DType dtype,
                               DType target_dtype, Random& random) {
  const DType sums = statistics_dtype(dtype);
  const auto make_rows = [&] {
    return random_array({rows, stride}, dtype, random, 4).slice(1, 0, classes);
  };
  Array targets = Array::empty({rows}, target_dtype);
  for (int64_t i = 0; i < rows; ++i)
    write(targets, i, i % 5 == 3 ? -100 : static_cast<double>(random() % classes));
  return {make_rows(),
          targets,
          random_array({rows}, sums, random),
          random_array({rows}, sums, random),
          random_array({rows}, sums, random),
          make_rows()};
}

}  // namespace

TEST_CASE("cross-entropy agrees on both devices", "[cuda][loss]") {
  require_gpu();
  Random random(24);
  struct Size {
    int64_t rows, classes, stride;
  };
  for (const DType dtype : kFloatingDTypes)
    for (const auto& [rows, classes, stride] :
         {Size{1, 1, 1}, Size{7, 2, 2}, Size{20, 10, 16}, Size{9, 257, 257}, Size{6, 1030, 1031},
          Size{3, 50257, 50304}})
      for (const DType target_dtype : {DType::i32, DType::i64})
        for (const float smoothing : {0.0f, 0.1f}) {
          CrossEntropyParams params;
          params.label_smoothing = smoothing;
          INFO(dtype << ", " << rows << " rows of " << classes << " in " << stride << ", targets "
                     << target_dtype << ", smoothing " << smoothing);
          const auto arrays = loss_arrays(rows, classes, stride, dtype, target_dtype, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), cross_entropy(v[0], v[1], params, v[2], v[3]));
              },
              arrays, 2);
          const auto backward = [&](const auto& v, const Array& dloss, const Array& dlogits) {
            BINADE_DISPATCH(v[0].device(),
                            cross_entropy_backward(v[0], v[1], v[3], dloss, params, dlogits));
          };
          compare_devices([&](const auto& v) { backward(v, v[4], v[5]); }, arrays, 2);
          compare_devices(
              [&](const auto& v) { backward(v, v[4].slice(0, 0, 1).expand({rows}), v[5]); }, arrays,
              2);
          compare_devices([&](const auto& v) { backward(v, v[4], v[0]); }, arrays, 2);
        }
}

TEST_CASE("cross-entropy in place agrees on both devices", "[cuda][loss]") {
  require_gpu();
  Random random(26);
  struct Size {
    int64_t rows, classes, width, stride;
  };
  // Rows of 50257 doubles and of 128003 numbers of any type do not fit shared memory.
  for (const DType dtype : kFloatingDTypes)
    for (const auto& [rows, classes, width, stride] :
         {Size{1, 1, 1, 1}, Size{7, 2, 2, 2}, Size{5, 1, 40, 40}, Size{20, 10, 16, 16},
          Size{9, 257, 257, 257}, Size{6, 1030, 1031, 1033}, Size{3, 4096, 4096, 4096},
          Size{3, 50257, 50257, 50257}, Size{3, 50257, 50304, 50304},
          Size{2, 128003, 128003, 128003}})
      for (const float smoothing : {0.0f, 0.1f})
        for (const bool scaled : {false, true}) {
          CrossEntropyParams params;
          params.label_smoothing = smoothing;
          INFO(dtype << ", " << rows << " rows of " << classes << " in " << width << " in "
                     << stride << ", smoothing " << smoothing << (scaled ? ", scaled" : ""));
          const int64_t columns = width, used = classes;
          auto arrays = loss_arrays(rows, classes, stride, dtype, DType::i64, random);
          arrays[5] = Array::view_of(arrays[5].storage(), dtype, {rows, columns}, {stride, 1}, 0);
          arrays[4] = array_of({1.75}, {}, statistics_dtype(dtype));
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(),
                                cross_entropy_with_gradient(v[5], used, v[1], params,
                                                            scaled ? v[4] : Array(), v[2], v[5]));
              },
              arrays, 2);
        }
}

TEST_CASE("cross-entropy in place has the loss of the pass that only reads", "[cuda][loss]") {
  require_gpu();
  Random random(27);
  for (const int64_t classes : {7, 1030, 50257, 128003}) {
    std::vector<Array> v;
    for (const Array& array : loss_arrays(9, classes, classes, DType::f16, DType::i64, random))
      v.push_back(on_device(array, test_gpu()));
    const Array in_place = gpu_empty({9}, DType::f32);
    BINADE_DISPATCH(v[0].device(), cross_entropy(v[0], v[1], {}, v[2], v[3]));
    BINADE_DISPATCH(v[0].device(),
                    cross_entropy_with_gradient(v[0], classes, v[1], {}, {}, in_place, v[0]));
    CHECK(bits_of(in_place) == bits_of(v[2]));
  }
}

TEST_CASE("a half gradient of f32 logits is the f32 gradient, rounded once", "[cuda][loss]") {
  require_gpu();
  Random random(29);
  for (const DType half : {DType::f16, DType::bf16})
    for (const auto& [classes, width] : {std::pair<int64_t, int64_t>{1, 1},
                                         {5, 40},
                                         {257, 257},
                                         {4096, 4096},
                                         {50257, 50304},
                                         {128003, 128256}}) {
      INFO(half << ", " << classes << " classes of " << width);
      const int64_t stride = (width + 63) / 64 * 64, rows = 7;  // rows at multiples of 128 bytes
      const Array logits = on_device(random_array({rows, stride}, DType::f32, random), test_gpu());
      const Array targets =
          on_device(array_of({0, -100, 0, 0, -100, 0, 0}, {rows}, DType::i64), test_gpu());
      const Array seen = logits.slice(1, 0, width);
      const Array loss = gpu_empty({rows}, DType::f32), same_loss = gpu_empty({rows}, DType::f32);
      const Array gradient = gpu_empty({rows, stride}, half);
      BINADE_DISPATCH(seen.device(),
                      cross_entropy_with_gradient(seen, classes, targets, {}, {}, loss,
                                                  gradient.slice(1, 0, width)));
      BINADE_DISPATCH(seen.device(),
                      cross_entropy_with_gradient(seen, classes, targets, {}, {}, same_loss, seen));
      CHECK(bits_of(loss) == bits_of(same_loss));
      CHECK(bits_of(gradient.slice(1, 0, width).contiguous()) ==
            bits_of(seen.to(half).contiguous()));
    }
}

TEST_CASE("scaling by a number on the device agrees on both devices", "[cuda][elementwise]") {
  require_gpu();
  Random random(28);
  const std::pair<DType, DType> dtypes[] = {{DType::f64, DType::f64}, {DType::f32, DType::f32},
                                            {DType::f16, DType::f16}, {DType::bf16, DType::bf16},
                                            {DType::f32, DType::f16}, {DType::f32, DType::bf16}};
  for (const auto& [from, to] : dtypes)
    for (const int64_t size : {1, 5, 1000, 4099})
      for (const double factor : {1.0, 0.75})
        for (const float beta : {0.0f, 1.0f}) {
          INFO(from << " to " << to << ", " << size << " elements, factor " << factor << ", beta "
                    << beta);
          const std::vector<Array> arrays = {random_array({size}, from, random),
                                             array_of({factor}, {}, statistics_dtype(from)),
                                             random_array({size}, to, random)};
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), scale(v[0], v[1], v[2], beta)); },
              arrays);
          compare_devices(
              [](const auto& v) { BINADE_DISPATCH(v[0].device(), scale(v[0], v[1], v[0], 0)); },
              arrays);
        }
}

TEST_CASE("cross-entropy of extreme logits is finite", "[cuda][loss]") {
  require_gpu();
  // One class far ahead, classes that are ruled out, and numbers near f16's largest.
  const Array logits =
      array_of({60000, -60000, 0, 60000, -INFINITY, -INFINITY, -INFINITY, 2}, {2, 4}, DType::f16);
  const Array targets = array_of({0, 3}, {2}, DType::i64);
  compare_devices(
      [](const auto& v) {
        BINADE_DISPATCH(v[0].device(), cross_entropy(v[0], v[1], {}, v[2], v[3]));
        BINADE_DISPATCH(v[0].device(),
                        cross_entropy_with_gradient(v[0], 4, v[1], {}, {}, v[2], v[0]));
      },
      {logits, targets, Array::zeros({2}, DType::f32), Array::zeros({2}, DType::f32)});
}

TEST_CASE("cross-entropy notes a target that is no class", "[cuda][loss]") {
  require_gpu();
  const Array logits = Array::zeros({2, 4}, DType::f32, test_gpu());
  const Array targets = on_device(array_of({1, 4}, {2}, DType::i64), test_gpu());
  const Array loss = gpu_empty({2}, DType::f32), logsumexp = gpu_empty({2}, DType::f32);
  BINADE_DISPATCH(logits.device(), cross_entropy(logits, targets, {}, loss, logsumexp));
  CHECK_THROWS_AS(check_device_faults(test_gpu()), Error);
  CHECK_NOTHROW(check_device_faults(test_gpu()));
  CHECK(read(on_device(loss, Device::cpu()), 1) == 0);
}

TEST_CASE("cross-entropy has the same bits each time and in a graph", "[cuda][loss]") {
  require_gpu();
  Random random(25);
  std::vector<Array> v;
  for (const Array& array : loss_arrays(50, 50257, 50304, DType::f16, DType::i64, random))
    v.push_back(on_device(array, test_gpu()));
  check_same_bits(
      [&] { BINADE_DISPATCH(v[0].device(), cross_entropy(v[0], v[1], {}, v[2], v[3])); },
      {v[2], v[3]});
  check_same_bits(
      [&] {
        BINADE_DISPATCH(v[0].device(), cross_entropy_backward(v[0], v[1], v[3], v[4], {}, v[5]));
      },
      {v[5]});
}
