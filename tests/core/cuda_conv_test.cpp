// Convolution, pooling and batch norm on the GPU against those on the CPU.
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/norm.h>

#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using kernels::ConvParams;
using kernels::PoolParams;

namespace {

int64_t output_size(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

struct ConvCase {
  Shape x, weight;
  ConvParams params;
};

const ConvCase kConvCases[] = {
    {{2, 3, 9, 11}, {4, 3, 3, 3}, {1, 1, 1, 1, 1, 1, 1}},
    {{1, 4, 8, 7}, {6, 2, 3, 2}, {2, 1, 0, 1, 1, 1, 2}},    // stride, groups
    {{2, 4, 13, 10}, {4, 1, 3, 3}, {1, 2, 2, 3, 2, 3, 4}},  // dilation, depthwise
    {{3, 8, 6, 6}, {16, 8, 1, 1}, {1, 1, 0, 0, 1, 1, 1}},   // pointwise
    {{8, 1, 28, 28}, {32, 1, 5, 5}, {1, 1, 2, 2, 1, 1, 1}},
};

Array output_of(const ConvCase& c, DType dtype, Random& random) {
  const ConvParams& p = c.params;
  return random_array(
      {c.x[0], c.weight[0], output_size(c.x[2], c.weight[2], p.stride_h, p.padding_h, p.dilation_h),
       output_size(c.x[3], c.weight[3], p.stride_w, p.padding_w, p.dilation_w)},
      dtype, random);
}

// 0 x, 1 weight, 2 bias, 3 y, 4 dy, 5 dx, 6 dweight, 7 dbias.
std::vector<Array> conv_arrays(const ConvCase& c, DType dtype, Random& random) {
  const DType bias_dtype = is_half(dtype) ? DType::f32 : dtype;
  return {random_array(c.x, dtype, random),
          random_array(c.weight, dtype, random, 0.2),
          random_array({c.weight[0]}, dtype, random),
          output_of(c, dtype, random),
          output_of(c, dtype, random),
          random_array(c.x, dtype, random),
          random_array(c.weight, dtype, random),
          random_array({c.weight[0]}, bias_dtype, random)};
}

}  // namespace

TEST_CASE("convolutions agree on both devices", "[cuda][conv]") {
  require_gpu();
  Random random(41);
  for (const DType dtype : kFloatingDTypes)
    for (const ConvCase& c : kConvCases) {
      INFO(dtype << ", x " << c.x << ", weight " << c.weight);
      const auto arrays = conv_arrays(c, dtype, random);
      const auto forward = [&](const auto& v, const Array& bias) {
        BINADE_DISPATCH(v[0].device(), conv2d(v[0], v[1], bias, c.params, v[3]));
      };
      compare_devices([&](const auto& v) { forward(v, {}); }, arrays, 8);
      // The library may transform the images, which rounds more; the bias is added to a rounded
      // sum.
      compare_devices([&](const auto& v) { forward(v, v[2]); }, arrays, 8);
      for (const float beta : {0.0f, 1.0f})
        // Weight gradients are sums of up to 6272 products.
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(), conv2d_backward(v[0], v[1], v[4], c.params, v[5], beta,
                                                             v[6], beta, v[7], beta));
            },
            arrays, 8);
    }
}

TEST_CASE("convolutions have the same bits each time and in a graph", "[cuda][conv]") {
  require_gpu();
  Random random(42);
  for (const DType dtype : {DType::f32, DType::f16}) {
    const ConvCase& c = kConvCases[4];
    std::vector<Array> v;
    for (const Array& array : conv_arrays(c, dtype, random))
      v.push_back(on_device(array, test_gpu()));
    check_same_bits(
        [&] { BINADE_DISPATCH(v[0].device(), conv2d(v[0], v[1], v[2], c.params, v[3])); }, {v[3]});
    check_same_bits(
        [&] {
          BINADE_DISPATCH(v[0].device(),
                          conv2d_backward(v[0], v[1], v[4], c.params, v[5], 0, v[6], 1, v[7], 0));
        },
        {v[5], v[6], v[7]});
  }
}

TEST_CASE("pooling agrees on both devices", "[cuda][conv]") {
  require_gpu();
  Random random(43);
  for (const DType dtype : kFloatingDTypes)
    for (const PoolParams& p :
         {PoolParams{}, PoolParams{3, 3, 2, 2, 1, 1}, PoolParams{3, 2, 1, 3, 1, 0},
          PoolParams{1, 2, 3, 1, 0, 1}, PoolParams{3, 3, 2, 2, 1, 1, 1, 1, true}}) {
      const Shape in = {2, 3, 9, 12};
      const Shape out = {2, 3, output_size(9, p.kernel_h, p.stride_h, p.padding_h, 1),
                         output_size(12, p.kernel_w, p.stride_w, p.padding_w, 1)};
      INFO(dtype << ", kernel " << p.kernel_h << 'x' << p.kernel_w);
      // 0 x, 1 y, 2 indices, 3 dy, 4 dx
      std::vector<Array> arrays = {random_array(in, dtype, random),
                                   random_array(out, dtype, random), Array::zeros(out, DType::i32),
                                   random_array(out, dtype, random),
                                   random_array(in, dtype, random)};
      for (int64_t i = 0; i < 20; ++i) write(arrays[0], i, 1.5);  // ties: the first one counts
      write(arrays[0], 150, std::nan(""));
      compare_devices(
          [&](const auto& v) {
            BINADE_DISPATCH(v[0].device(), max_pool2d(v[0], p, v[1], v[2]));
            BINADE_DISPATCH(v[0].device(), max_pool2d_backward(v[3], v[2], p, v[4]));
          },
          arrays);
      compare_devices(
          [&](const auto& v) {
            BINADE_DISPATCH(v[0].device(), avg_pool2d(v[0], p, v[1]));
            BINADE_DISPATCH(v[0].device(), avg_pool2d_backward(v[3], p, v[4]));
          },
          arrays);
    }
}

TEST_CASE("batch norm agrees on both devices", "[cuda][conv]") {
  require_gpu();
  Random random(44);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : {Shape{4, 5, 7, 6}, Shape{2, 1, 1, 1}, Shape{9, 33, 20, 20}}) {
      INFO(dtype << ' ' << shape);
      const auto channels = [&] { return random_array({shape[1]}, DType::f32, random); };
      // 0 x, 1 weight, 2 bias, 3 running mean, 4 running variance, 5 y, 6 mean, 7 rstd, 8 dy, 9 dx,
      // 10 dweight, 11 dbias
      std::vector<Array> arrays = {random_array(shape, dtype, random),
                                   channels(),
                                   channels(),
                                   channels(),
                                   channels(),
                                   random_array(shape, dtype, random),
                                   channels(),
                                   channels(),
                                   random_array(shape, dtype, random),
                                   random_array(shape, dtype, random),
                                   channels(),
                                   channels()};
      // Statistics are f32 even of f64: a slack that lets them be rounded.
      const double slack = dtype == DType::f64 ? 1e6 : 8;
      compare_devices(
          [](const auto& v) {
            BINADE_DISPATCH(v[0].device(), batch_norm(v[0], v[1], v[2], 1e-3f, 0.1f, v[3], v[4],
                                                      v[5], v[6], v[7]));
          },
          arrays, slack);
      compare_devices(
          [](const auto& v) {
            BINADE_DISPATCH(v[0].device(),
                            batch_norm_backward(v[8], v[0], v[1], v[6], v[7], v[9], v[10], v[11]));
          },
          arrays, slack);
    }
}

TEST_CASE("pooling and batch norm have the same bits each time and in a graph", "[cuda][conv]") {
  require_gpu();
  Random random(45);
  const Shape shape = {16, 8, 14, 14};
  const Array x = gpu_random(shape, DType::f16, random), dy = gpu_random(shape, DType::f16, random);
  const auto channels = [&] { return gpu_random({8}, DType::f32, random); };
  const Array weight = channels(), bias = channels(), mean = channels(), rstd = channels();
  const Array running_mean = channels(), running_var = channels();
  const Array y = gpu_empty(shape, DType::f16), dx = gpu_empty(shape, DType::f16);
  const Array dweight = channels(), dbias = channels();
  const Array pooled = gpu_empty({16, 8, 7, 7}, DType::f16);
  const Array indices = gpu_empty({16, 8, 7, 7}, DType::i32);
  check_same_bits(
      [&] {
        BINADE_DISPATCH(x.device(), batch_norm(x, weight, bias, 1e-5f, 0.1f, running_mean,
                                               running_var, y, mean, rstd));
        BINADE_DISPATCH(x.device(),
                        batch_norm_backward(dy, x, weight, mean, rstd, dx, dweight, dbias));
      },
      {running_mean, running_var, y, mean, rstd, dx, dweight, dbias});
  check_same_bits(
      [&] {
        BINADE_DISPATCH(x.device(), max_pool2d(x, {}, pooled, indices));
        BINADE_DISPATCH(x.device(), max_pool2d_backward(pooled, indices, {}, dx));
      },
      {pooled, indices, dx});
}

TEST_CASE("interpolation agrees on both devices", "[cuda][conv]") {
  require_gpu();
  Random random(61);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& from : {Shape{2, 3, 9, 14}, Shape{1, 2, 1, 5}})
      for (const Shape& to :
           {Shape{0, 0, 18, 28}, Shape{0, 0, 4, 5}, Shape{0, 0, 1, 1}, Shape{0, 0, 31, 3}})
        for (const auto& params :
             {kernels::InterpolateParams{false, false}, kernels::InterpolateParams{true, false},
              kernels::InterpolateParams{true, true}}) {
          const Shape shape{from[0], from[1], to[2], to[3]};
          INFO(from << " to " << shape << ' ' << dtype);
          compare_devices(
              [&](const auto& v) {
                using namespace kernels;
                BINADE_DISPATCH(v[0].device(), interpolate(v[0], params, v[1]));
              },
              {random_array(from, dtype, random), Array::zeros(shape, dtype)});
          compare_devices(
              [&](const auto& v) {
                using namespace kernels;
                BINADE_DISPATCH(v[0].device(), interpolate_backward(v[0], params, v[1]));
              },
              {random_array(shape, dtype, random), Array::zeros(from, dtype)}, 10);
        }
}
