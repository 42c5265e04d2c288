// Convolutions, batch norm.
#include "op_table.h"

namespace binade::test {

namespace {

double padded(const Values& x, int64_t n, int64_t c, int64_t h, int64_t w) {
  if (h < 0 || w < 0 || h >= x.size(2) || w >= x.size(3)) return NAN;
  return x({n, c, h, w});
}

Values convolution_of(const Values& x, const Values& weight, const Values* bias,
                      const Conv2dOptions& o) {
  const auto size = [&](int i) {
    const size_t j = static_cast<size_t>(i);
    return (x.size(2 + i) + 2 * o.padding[j] - o.dilation[j] * (weight.size(2 + i) - 1) - 1) /
               o.stride[j] +
           1;
  };
  const int64_t per_group = weight.size(0) / o.groups, channels = weight.size(1);
  return fill({x.size(0), weight.size(0), size(0), size(1)}, [&](const Index& at) {
    double sum = bias ? (*bias)({at[1]}) : 0;
    for_each_index({channels, weight.size(2), weight.size(3)}, [&](const Index& tap) {
      const double value = padded(x, at[0], at[1] / per_group * channels + tap[0],
                                  at[2] * o.stride[0] - o.padding[0] + tap[1] * o.dilation[0],
                                  at[3] * o.stride[1] - o.padding[1] + tap[2] * o.dilation[1]);
      if (!std::isnan(value)) sum += value * weight({at[1], tap[0], tap[1], tap[2]});
    });
    return sum;
  });
}

}  // namespace

void add_image_rows(OpTable& table) {
  const auto convolution = [&](const char* variant, const Input& x, const Input& weight,
                               bool with_bias, const Conv2dOptions& options) {
    std::vector<Input> inputs = {x, weight};
    if (with_bias) inputs.push_back(real({weight.shape[0]}));
    table.add(
        "conv2d", variant, inputs,
        [=](const TensorList& in) -> TensorList {
          return {conv2d(in[0], in[1], with_bias ? in[2] : Tensor(), options)};
        },
        [=](const Lists& in) -> Lists {
          return {convolution_of(in[0], in[1], with_bias ? &in[2] : nullptr, options)};
        });
  };
  convolution("bias", real({2, 3, 5, 6}), real({4, 3, 3, 2}), true, {});
  convolution("padding and stride", real({2, 2, 5, 6}), real({4, 2, 3, 3}), true,
              {.stride = {2, 1}, .padding = {1, 2}});
  convolution("dilation", real({1, 2, 7, 6}), real({3, 2, 3, 2}), false, {.dilation = {2, 3}});
  convolution("square", real({2, 2, 3, 3}), real({2, 2, 3, 3}), true, {.padding = {1, 1}});
  convolution("groups", real({2, 4, 4, 4}), real({6, 2, 3, 3}), true,
              {.padding = {1, 1}, .groups = 2});

  const Input channels = real({3}, 0.5, 2).as(Input::Dtype::statistics);
  const std::vector<Input> inputs = {real({2, 3, 2, 4}), channels, channels,
                                     Input(channels).fixed(), Input(channels).fixed()};
  constexpr double kEps = 0x1p-10, kMomentum = 0.25;
  table.add(
      "batch_norm", "training", inputs,
      [](const TensorList& in) -> TensorList {
        const Tensor mean = clone(in[3]), variance = clone(in[4]);  // moved in place
        const Tensor y =
            batch_norm(in[0], in[1], in[2], mean, variance, {.eps = kEps, .momentum = kMomentum});
        return {y, mean, variance};
      },
      [](const Lists& in) -> Lists {
        const Values& x = in[0];
        const Values mean = reduce(x, {0, 2, 3}, false, [](const std::vector<double>& values) {
          return total(values) / static_cast<double>(values.size());
        });
        const Values square = reduce(fill(x.shape,
                                          [&](const Index& i) {
                                            const double d = x(i) - mean({i[1]});
                                            return d * d;
                                          }),
                                     {0, 2, 3}, false, total);
        const double count = static_cast<double>(x.size(0) * x.size(2) * x.size(3));
        return {
            fill(x.shape,
                 [&](const Index& i) {
                   const Index c = {i[1]};
                   return (x(i) - mean(c)) / std::sqrt(square(c) / count + kEps) * in[1](c) +
                          in[2](c);
                 }),
            map(in[3], mean, [](double old, double now) { return old + kMomentum * (now - old); }),
            map(in[4], square, [=](double old, double now) {
              return old + kMomentum * (now / (count - 1) - old);
            })};
      });
  table.add(
      "batch_norm", "inference", inputs,
      [](const TensorList& in) -> TensorList {
        return {batch_norm(in[0], in[1], in[2], in[3], in[4], {.eps = kEps, .training = false})};
      },
      [](const Lists& in) -> Lists {
        return {fill(in[0].shape, [&](const Index& i) {
          const Index c = {i[1]};
          return (in[0](i) - in[3](c)) / std::sqrt(in[4](c) + kEps) * in[1](c) + in[2](c);
        })};
      });
  // Vectors and sequences are images of one row or column.
  for (const bool sequences : {false, true}) {
    std::vector<Input> in = inputs;
    in[0] = real(sequences ? Shape{2, 3, 4} : Shape{5, 3});
    table
        .add(
            "batch_norm", sequences ? "sequences" : "vectors", in,
            [](const TensorList& in) -> TensorList {
              return {batch_norm(in[0], in[1], in[2], clone(in[3]), clone(in[4]), {.eps = kEps})};
            },
            [=](const Lists& in) -> Lists {
              const Values& x = in[0];
              const std::vector<int> axes = sequences ? std::vector{0, 2} : std::vector{0};
              const double count = static_cast<double>(x.shape.numel()) / 3;
              const Values sums = reduce(x, axes, false, total);
              const Values squares =
                  reduce(map(x, [](double v) { return v * v; }), axes, false, total);
              return {fill(x.shape, [&](const Index& i) {
                const Index c = {i[1]};
                const double mean = sums(c) / count;
                const double variance = squares(c) / count - mean * mean;
                return (x(i) - mean) / std::sqrt(variance + kEps) * in[1](c) + in[2](c);
              })};
            })
        .of_one_size();
  }
}

}  // namespace binade::test
