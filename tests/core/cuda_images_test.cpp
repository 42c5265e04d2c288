// Images on the GPU against the CPU, where rows are whole vectors and where they are not; norms of
// channels; writing by index where nothing has to be sorted.
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/norm.h>

#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

// An array that begins one element behind a multiple of 16 bytes.
Array shifted(const Shape& shape, DType dtype, Random& random) {
  return random_array({shape.numel() + 1}, dtype, random).slice(0, 1).view(shape);
}

}  // namespace

TEST_CASE("pooling of rows of vectors agrees on both devices", "[cuda][images]") {
  require_gpu();
  Random random(81);
  const auto size = [](int64_t in, int64_t kernel, int64_t stride, int64_t padding,
                       int64_t dilation) {
    return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  };
  const PoolParams cases[] = {{},
                              {3, 3, 2, 2, 1, 1},
                              {3, 3, 1, 1, 1, 1, 2, 2},
                              {3, 3, 1, 1, 1, 1, 7, 3},
                              {1, 2, 3, 1, 0, 1},
                              {7, 9, 3, 2, 3, 4},
                              {3, 3, 2, 2, 1, 1, 1, 1, true},
                              {2, 2, 1, 1, 0, 0, 1, 1, false, true}};
  for (const DType dtype : kFloatingDTypes)
    for (const auto& [height, width] :
         {std::pair<int64_t, int64_t>{16, 32}, {9, 24}, {7, 13}, {1, 8}, {8, 1}})
      for (const PoolParams& p : cases) {
        const Shape in{2, 3, height, width};
        Shape out = in;
        out[2] = p.adaptive ? (height + 2) / 3
                            : size(height, p.kernel_h, p.stride_h, p.padding_h, p.dilation_h);
        out[3] = p.adaptive ? 5 : size(width, p.kernel_w, p.stride_w, p.padding_w, p.dilation_w);
        if (out[2] < 1 || out[3] < 1) continue;
        INFO(dtype << ' ' << in << " to " << out << ", kernel " << p.kernel_h << 'x' << p.kernel_w);
        for (const Array& dx : {random_array(in, dtype, random), shifted(in, dtype, random)}) {
          const Array x = random_array(in, dtype, random);
          for (int64_t i = 0; i < 8; ++i) write(x, i, 1.5);  // ties: the first one counts
          const std::vector<Array> arrays = {x, random_array(out, dtype, random),
                                             Array::zeros(out, DType::i32),
                                             random_array(out, dtype, random), dx};
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), max_pool2d(v[0], p, v[1], v[2]));
                BINADE_DISPATCH(v[0].device(), max_pool2d_backward(v[3], v[2], p, v[4]));
              },
              arrays);
          if (p.dilation_h != 1 || p.dilation_w != 1) continue;
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), avg_pool2d(v[0], p, v[1]));
                BINADE_DISPATCH(v[0].device(), avg_pool2d_backward(v[3], p, v[4]));
              },
              arrays);
        }
      }
}

TEST_CASE("interpolation of rows of vectors agrees on both devices", "[cuda][images]") {
  require_gpu();
  Random random(82);
  for (const DType dtype : kFloatingDTypes)
    for (const auto& [from, to] : {std::pair<Shape, Shape>{{2, 3, 8, 16}, {2, 3, 16, 32}},
                                   {{1, 2, 8, 16}, {1, 2, 3, 5}},
                                   {{1, 1, 1, 1}, {1, 1, 5, 8}},
                                   {{1, 2, 8, 8}, {1, 2, 1, 1}},
                                   {{1, 1, 3, 8}, {1, 1, 100, 13}},
                                   {{1, 1, 100, 16}, {1, 1, 7, 24}}})
      for (const InterpolateParams& params :
           {InterpolateParams{false, false}, InterpolateParams{true, false},
            InterpolateParams{true, true}}) {
        INFO(from << " to " << to << ' ' << dtype << ", linear " << params.linear);
        for (const bool aligned : {true, false}) {
          const auto written = [&](const Shape& shape) {
            return aligned ? random_array(shape, dtype, random) : shifted(shape, dtype, random);
          };
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), interpolate(v[0], params, v[1]));
              },
              {random_array(from, dtype, random), written(to)});
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), interpolate_backward(v[0], params, v[1]));
              },
              {random_array(to, dtype, random), written(from)}, 20);
        }
      }
}

TEST_CASE("gradients of interpolation in tiles of columns agree on both devices",
          "[cuda][images]") {
  require_gpu();
  Random random(86);
  // Sizes of x and y, one row high: a tile has 256 columns of y, and 128 or 32 of x.
  for (const DType dtype : kFloatingDTypes)
    for (const auto& [from, to] : {std::pair<int64_t, int64_t>{128, 256},
                                   {130, 264},
                                   {300, 600},
                                   {300, 299},
                                   {700, 96},
                                   {90, 720},
                                   {40, 1001},
                                   {3, 370},
                                   {3, 600},
                                   {1, 300},
                                   {2, 1024}})
      for (const InterpolateParams& params :
           {InterpolateParams{false, false}, InterpolateParams{true, false},
            InterpolateParams{true, true}})
        for (const int64_t height : {1, 19}) {
          INFO(from << " to " << to << " columns, " << dtype << ", linear " << params.linear
                    << ", corners " << params.align_corners);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), interpolate_backward(v[0], params, v[1]));
              },
              {random_array({1, 2, 2 * height + 1, to}, dtype, random),
               random_array({1, 2, height, from}, dtype, random)},
              60);
        }
}

TEST_CASE("what a gradient of interpolation does not read stays out of it", "[cuda][images]") {
  require_gpu();
  // An infinite dy reaches only what its output is made of.
  for (const DType dtype : {DType::f32, DType::f16}) {
    const Array dy = Array::zeros({1, 1, 34, 64}, dtype), dx = Array::zeros({1, 1, 17, 32}, dtype);
    write(dy, 20 * 64 + 31, INFINITY);
    const Array given = on_device(dy, test_gpu()), taken = on_device(dx, test_gpu());
    for (const bool linear : {false, true}) {
      BINADE_DISPATCH(given.device(),
                      interpolate_backward(given, InterpolateParams{linear, false}, taken));
      const Array result = taken.to(Device::cpu());
      for (int64_t i = 0; i < result.numel(); ++i) {
        const int64_t row = i / 32, column = i % 32;
        const bool reached = linear ? (row == 9 || row == 10) && (column == 15 || column == 16)
                                    : row == 10 && column == 15;
        INFO(dtype << ", linear " << linear << ", row " << row << ", column " << column);
        CHECK(read(result, i) == (reached ? INFINITY : 0));
      }
    }
  }
}

TEST_CASE("norms of channels agree on both devices", "[cuda][images]") {
  require_gpu();
  Random random(83);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& shape : {Shape{2, 3, 32}, Shape{3, 2, 35}, Shape{4, 5, 1}, Shape{2, 2, 2145},
                               Shape{1, 2, 40000}, Shape{300, 3, 64}})
      for (const double shift : {0.0, 30.0}) {
        INFO(dtype << ' ' << shape << ", about " << shift);
        const DType wide = dtype == DType::f64 ? dtype : DType::f32;
        const auto channels = [&] { return random_array({shape[1]}, wide, random); };
        const Array x = random_array(shape, dtype, random);
        for (int64_t i = 0; i < x.numel(); ++i) write(x, i, read(x, i) + shift);
        // 0 x, 1 dy, 2 mean, 3 rstd, 4 scale, 5 shift, 6 along, 7 products, 8 sums, 9 y, 10 dx
        compare_devices(
            [&](const auto& v) {
              const Device device = v[0].device();
              BINADE_DISPATCH(device, channel_moments(v[0], 1e-3, v[2], v[3]));
              BINADE_DISPATCH(device, channel_sums(v[1], v[0], v[2], v[3], v[7], v[8]));
              BINADE_DISPATCH(device, channel_affine(v[0], v[2], v[4], v[5], v[9]));
              BINADE_DISPATCH(device, channel_gradient(v[1], v[0], v[2], v[4], v[5], v[6], v[10]));
            },
            {x, random_array(shape, dtype, random), channels(), channels(), channels(), channels(),
             channels(), channels(), channels(), random_array(shape, dtype, random),
             random_array(shape, dtype, random)},
            dtype == DType::f32 ? 200 : 20);
      }
}

TEST_CASE("writing by index without a sort agrees on both devices", "[cuda][images]") {
  require_gpu();
  Random random(84);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::u8})
    for (const Array& out : layouts({6, 5, 32}, dtype, random))
      for (int dim = 0; dim < 3; ++dim)
        for (const bool one : {true, false}) {  // one index a row; or a vector of them
          Shape shape = out.shape(), vector{1, 1, 1};
          shape[dim] = vector[dim] = one ? 1 : 20;
          const Array some = Array::empty(one ? shape : vector, DType::i64);
          for (int64_t i = 0; i < some.numel(); ++i)
            write(some, i, static_cast<double>(random() % static_cast<uint64_t>(out.size(dim))));
          const Array index = some.expand(shape);
          Array source = Array::empty(shape, dtype);
          fill_random(source, random);
          const Array number = Array::full({1, 1, 1}, 3, dtype).expand(shape);
          INFO(dtype << ", strides " << out.strides() << ", dim " << dim << ", one " << one);
          for (const Array& from : {source, number})
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), scatter(v[0], dim, v[1], v[2], false));
                },
                {out, index, from});
          if (one)
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), scatter(v[0], dim, v[1], v[2], true));
                },
                {out, index, source}, 3);
        }
}

TEST_CASE("images and writing by index have the same bits each time", "[cuda][images]") {
  require_gpu();
  Random random(85);
  const Array x = gpu_random({4, 3, 16, 24}, DType::f16, random);
  const Array large = gpu_empty({4, 3, 32, 48}, DType::f16), dx = gpu_empty(x.shape(), DType::f16);
  const InterpolateParams linear{true, false};
  check_same_bits(
      [&] {
        BINADE_DISPATCH(x.device(), interpolate(x, linear, large));
        BINADE_DISPATCH(x.device(), interpolate_backward(large, linear, dx));
      },
      {large, dx});
  const Array out = gpu_random({40, 64}, DType::f16, random);
  const Array source = gpu_random({500, 64}, DType::f16, random);
  const Array whole = Array::empty({500, 64}, DType::i64);
  for (int64_t i = 0; i < whole.numel(); ++i) write(whole, i, static_cast<double>(random() % 40));
  const Array index = on_device(whole, test_gpu());
  check_same_bits(
      [&] {
        BINADE_DISPATCH(out.device(), scatter(out, 0, index, source, false));
        BINADE_DISPATCH(out.device(),
                        scatter(out, 0, index.slice(1, 0, 1).expand({500, 64}), source, false));
      },
      {out});
}
