// Convolutions over sequences, and transposed ones.
#include "op_table.h"

namespace binade::test {

namespace {

Values conv1d_of(const Values& x, const Values& weight, const Values* bias,
                 const Conv1dOptions& o) {
  const int64_t length =
      (x.size(2) + 2 * o.padding - o.dilation * (weight.size(2) - 1) - 1) / o.stride + 1;
  const int64_t per_group = weight.size(0) / o.groups, channels = weight.size(1);
  return fill({x.size(0), weight.size(0), length}, [&](const Index& at) {
    double sum = bias ? (*bias)({at[1]}) : 0;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t tap = 0; tap < weight.size(2); ++tap) {
        const int64_t place = at[2] * o.stride - o.padding + tap * o.dilation;
        if (place < 0 || place >= x.size(2)) continue;
        sum += x({at[0], at[1] / per_group * channels + c, place}) * weight({at[1], c, tap});
      }
    return sum;
  });
}

Values conv3d_of(const Values& x, const Values& weight, const Values* bias,
                 const Conv3dOptions& o) {
  const auto size = [&](int i) {
    const auto j = static_cast<size_t>(i);
    return (x.size(2 + i) + 2 * o.padding[j] - o.dilation[j] * (weight.size(2 + i) - 1) - 1) /
               o.stride[j] +
           1;
  };
  const int64_t per_group = weight.size(0) / o.groups;
  const Shape taps{weight.size(1), weight.size(2), weight.size(3), weight.size(4)};
  return fill({x.size(0), weight.size(0), size(0), size(1), size(2)}, [&](const Index& at) {
    double sum = bias ? (*bias)({at[1]}) : 0;
    for_each_index(taps, [&](const Index& tap) {
      Index from = {at[0], at[1] / per_group * weight.size(1) + tap[0], 0, 0, 0};
      for (size_t i = 0; i < 3; ++i) {
        from[2 + i] = at[2 + i] * o.stride[i] - o.padding[i] + tap[1 + i] * o.dilation[i];
        if (from[2 + i] < 0 || from[2 + i] >= x.size(static_cast<int>(2 + i))) return;
      }
      sum += x(from) * weight({at[1], tap[0], tap[1], tap[2], tap[3]});
    });
    return sum;
  });
}

// Every element of x adds its multiples of the filters to the output.
Values transposed_of(const Values& x, const Values& weight, const Values* bias,
                     const ConvTranspose2dOptions& o) {
  const auto size = [&](int i) {
    const size_t j = static_cast<size_t>(i);
    return (x.size(2 + i) - 1) * o.stride[j] - 2 * o.padding[j] +
           o.dilation[j] * (weight.size(2 + i) - 1) + o.output_padding[j] + 1;
  };
  const int64_t filters = weight.size(1), channels = x.size(1) / o.groups;
  const Shape shape{x.size(0), filters * o.groups, size(0), size(1)};
  Values y = fill(shape, [&](const Index& at) { return bias ? (*bias)({at[1]}) : 0.0; });
  for_each_index(x.shape, [&](const Index& from) {
    for_each_index({filters, weight.size(2), weight.size(3)}, [&](const Index& tap) {
      const int64_t k = from[1] / channels * filters + tap[0];
      const int64_t h = from[2] * o.stride[0] - o.padding[0] + tap[1] * o.dilation[0];
      const int64_t w = from[3] * o.stride[1] - o.padding[1] + tap[2] * o.dilation[1];
      if (h < 0 || w < 0 || h >= shape[2] || w >= shape[3]) return;
      const int64_t place = ((from[0] * shape[1] + k) * shape[2] + h) * shape[3] + w;
      y.data[static_cast<size_t>(place)] += x(from) * weight({from[1], tap[0], tap[1], tap[2]});
    });
  });
  return y;
}

// (N, C, L) as (N, C, 1, L).
Values as_image(const Values& x) {
  return {{x.size(0), x.size(1), 1, x.size(2)}, x.data};
}

}  // namespace

void add_conv_variant_rows(OpTable& table) {
  const auto sequence = [&](const char* variant, const Shape& x, const Shape& weight,
                            bool with_bias, const Conv1dOptions& options) {
    std::vector<Input> inputs = {real(x), real(weight)};
    if (with_bias) inputs.push_back(real({weight[0]}));
    table
        .add(
            "conv1d", variant, inputs,
            [=](const TensorList& in) -> TensorList {
              return {conv1d(in[0], in[1], with_bias ? in[2] : Tensor(), options)};
            },
            [=](const Lists& in) -> Lists {
              return {conv1d_of(in[0], in[1], with_bias ? &in[2] : nullptr, options)};
            })
        .of_one_size();
  };
  sequence("bias", {2, 3, 7}, {4, 3, 3}, true, {});
  sequence("padding and stride", {2, 2, 8}, {3, 2, 3}, false, {.stride = 2, .padding = 1});
  sequence("dilation and groups", {1, 4, 9}, {6, 2, 3}, true, {.dilation = 2, .groups = 2});

  const auto volume = [&](const char* variant, const Shape& x, const Shape& weight, bool with_bias,
                          const Conv3dOptions& options) {
    std::vector<Input> inputs = {real(x), real(weight)};
    if (with_bias) inputs.push_back(real({weight[0]}));
    table
        .add(
            "conv3d", variant, inputs,
            [=](const TensorList& in) -> TensorList {
              return {conv3d(in[0], in[1], with_bias ? in[2] : Tensor(), options)};
            },
            [=](const Lists& in) -> Lists {
              return {conv3d_of(in[0], in[1], with_bias ? &in[2] : nullptr, options)};
            })
        .of_one_size();
  };
  volume("bias", {2, 2, 3, 4, 3}, {3, 2, 2, 3, 2}, true, {});
  volume("padding and stride", {1, 2, 4, 3, 4}, {2, 2, 3, 2, 3}, false,
         {.stride = {2, 1, 2}, .padding = {1, 0, 1}});
  volume("dilation and groups", {1, 4, 5, 3, 4}, {2, 2, 2, 2, 2}, true,
         {.dilation = {3, 1, 2}, .groups = 2});
  volume("one plane", {2, 2, 3, 3, 3}, {2, 2, 1, 2, 2}, false, {.stride = {2, 1, 1}});

  const auto transposed = [&](const char* variant, const Shape& x, const Shape& weight,
                              bool with_bias, const ConvTranspose2dOptions& options) {
    std::vector<Input> inputs = {real(x), real(weight)};
    if (with_bias) inputs.push_back(real({weight[1] * options.groups}));
    table
        .add(
            "conv_transpose2d", variant, inputs,
            [=](const TensorList& in) -> TensorList {
              return {conv_transpose2d(in[0], in[1], with_bias ? in[2] : Tensor(), options)};
            },
            [=](const Lists& in) -> Lists {
              return {transposed_of(in[0], in[1], with_bias ? &in[2] : nullptr, options)};
            })
        .rounded(with_bias ? 2 : 1)
        .of_one_size();
  };
  transposed("bias", {2, 3, 4, 3}, {3, 2, 3, 2}, true, {});
  transposed("stride and padding", {1, 2, 4, 5}, {2, 3, 3, 4}, false,
             {.stride = {2, 2}, .padding = {1, 1}});
  transposed("output_padding", {1, 2, 3, 4}, {2, 2, 3, 3}, true,
             {.stride = {2, 3}, .padding = {1, 0}, .output_padding = {1, 2}});
  transposed("output_padding of strides", {1, 2, 3, 2}, {2, 2, 2, 3}, true,
             {.stride = {2, 1}, .padding = {1, 2}, .output_padding = {3, 1}, .dilation = {4, 2}});
  transposed("dilation", {1, 2, 3, 3}, {2, 2, 2, 3}, false,
             {.padding = {1, 0}, .dilation = {2, 2}});
  transposed("groups", {2, 4, 3, 3}, {4, 3, 2, 2}, true, {.stride = {2, 2}, .groups = 2});

  table
      .add(
          "conv_transpose1d", "", {real({2, 4, 5}), real({4, 2, 3}), real({4})},
          [](const TensorList& in) -> TensorList {
            return {
                conv_transpose1d(in[0], in[1], in[2],
                                 {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2})};
          },
          [](const Lists& in) -> Lists {
            Values y = transposed_of(
                as_image(in[0]), as_image(in[1]), &in[2],
                {.stride = {1, 2}, .padding = {0, 1}, .output_padding = {0, 1}, .groups = 2});
            y.shape = {y.size(0), y.size(1), y.size(3)};
            return {y};
          })
      .rounded(2)
      .of_one_size();
}

}  // namespace binade::test
