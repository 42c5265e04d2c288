#include <cmath>
#include <optional>

#include "sample.h"

namespace binade::opinfo {

namespace {

TensorList products(Sample& s) {
  const Tensor a = s.tensor(0), b = s.tensor(1, a.dims() == 3 ? "mat2" : "other");
  if (a.dims() < 2 || b.dims() < 2) throw NotOffered("a vector");
  return {matmul(a, b)};
}

std::array<int64_t, 2> pair_of(Sample& s, int position, const char* name,
                               std::array<int64_t, 2> otherwise) {
  if (!s.given(position, name)) return otherwise;
  const auto values = s.integers(position, name);
  if (values.empty()) return otherwise;  // PyTorch's way to say "the default"
  return {values.front(), values.back()};
}

// Layer norm's and RMS norm's arguments, over the last dimension.
struct NormArguments {
  Tensor x, weight;

  explicit NormArguments(Sample& s) : x(s.tensor(0)) {
    const auto sizes = s.integers(1, "normalized_shape");
    if (sizes.size() != 1) throw NotOffered("more than the last dimension");
    weight = s.given(2, "weight") ? s.tensor(2, "weight")
                                  : Tensor::ones({sizes[0]}, x.dtype(), x.device());
  }
};

TensorList attended(Sample& s) {
  const Tensor q = s.tensor(0), k = s.tensor(1, "key"), v = s.tensor(2, "value");
  if (s.number(-1, "dropout_p", 0) != 0) throw NotOffered("random numbers of its own");
  if (q.dims() != 4 || k.dims() != 4 || v.dims() != 4) throw NotOffered("not (B, H, T, D)");
  AttentionOptions options;
  options.scale = s.number(-1, "scale", 0);
  options.causal = s.flag(-1, "is_causal", false);
  s.flag(-1, "enable_gqa", false);  // ours follows from the shapes
  // PyTorch aligns the first query with the first key, we the last with the last.
  if (options.causal && q.size(2) != k.size(2)) throw NotOffered("causal with Tq != Tk");
  if (s.given(3, "attn_mask")) options.mask = s.tensor(3, "attn_mask");
  return {scaled_dot_product_attention(q, k, v, options)};
}

Pool2dOptions pool_options(Sample& s) {
  Pool2dOptions options;
  options.kernel = pair_of(s, 1, "kernel_size", {1, 1});
  options.stride = pair_of(s, 2, "stride", options.kernel);
  options.padding = pair_of(s, 3, "padding", {0, 0});
  options.ceil_mode = s.flag(-1, "ceil_mode", false);
  return options;
}

std::array<int64_t, 2> adaptive_size(Sample& s) {
  return pair_of(s, 1, "output_size", {1, 1});
}

// Options of sequences; PyTorch's empty list says "the default".
int64_t one_of(Sample& s, int position, const char* name, int64_t otherwise) {
  if (!s.given(position, name)) return otherwise;
  const auto values = s.integers(position, name);
  return values.empty() ? otherwise : values.front();
}

Pool1dOptions sequence_pool_options(Sample& s) {
  Pool1dOptions options;
  options.kernel = one_of(s, 1, "kernel_size", 1);
  options.stride = one_of(s, 2, "stride", options.kernel);
  options.padding = one_of(s, 3, "padding", 0);
  return options;
}

Tensor sequences(Sample& s) {
  const Tensor x = s.tensor(0);
  if (x.dims() != 3) throw NotOffered("not (N, C, L)");
  return x;
}

Tensor bias_of(Sample& s) {
  return s.given(2, "bias") ? s.tensor(2, "bias") : Tensor();
}

TensorList interpolated(Sample& s) {
  const Tensor x = s.tensor(0);
  if (x.dims() != 4) throw NotOffered("not (N, C, H, W)");
  if (!s.given(1, "size")) throw NotOffered("a factor");
  s.only(2, "scale_factor", nullptr);
  const std::string mode = s.text(3, "mode", "nearest");
  if (mode != "nearest" && mode != "bilinear") throw NotOffered("mode " + mode);
  const bool align = s.flag(4, "align_corners", false);
  return {interpolate(x, pair_of(s, 1, "size", {1, 1}),
                      mode == "nearest" ? Interpolation::nearest : Interpolation::bilinear, align)};
}

}  // namespace

std::vector<Row> network_rows() {
  return {
      {"matmul", products},
      {"mm", [](Sample& s) -> TensorList { return {matmul(s.tensor(0), s.tensor(1, "mat2"))}; }},
      {"bmm", [](Sample& s) -> TensorList { return {matmul(s.tensor(0), s.tensor(1, "mat2"))}; }},
      {"nn.functional.linear",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0), weight = s.tensor(1, "weight");
         if (weight.dims() != 2) throw NotOffered("a vector as weight");
         return {linear(x, weight, s.given(2, "bias") ? s.tensor(2, "bias") : Tensor())};
       }},
      {"nn.functional.layer_norm",
       [](Sample& s) -> TensorList {
         const NormArguments norm(s);
         const Tensor bias = s.given(3, "bias") ? s.tensor(3, "bias") : Tensor();
         return {layer_norm(norm.x, norm.weight, bias, s.number(4, "eps", 1e-5))};
       }},
      {"nn.functional.rms_norm",
       [](Sample& s) -> TensorList {
         const NormArguments norm(s);
         constexpr double kEps16 = 0x1p-10, kEpsBf16 = 0x1p-7, kEps32 = 0x1p-23, kEps64 = 0x1p-52;
         const DType dtype = norm.x.dtype();
         const double eps = dtype == DType::f16    ? kEps16
                            : dtype == DType::bf16 ? kEpsBf16
                            : dtype == DType::f32  ? kEps32
                                                   : kEps64;
         return {rms_norm(norm.x, norm.weight, s.number(3, "eps", eps))};
       }},
      {"nn.functional.batch_norm",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         if (x.dims() < 2) throw NotOffered("a vector");
         const Shape channels{x.size(1)};
         const auto vector = [&](int position, const char* name, double otherwise) {
           if (s.given(position, name)) return s.tensor(position, name);
           return Tensor::full(channels, otherwise, x.dtype(), x.device());
         };
         BatchNormOptions options;
         options.training = s.flag(5, "training", false);
         options.momentum = s.number(6, "momentum", 0.1);
         options.eps = s.number(7, "eps", 1e-5);
         const Tensor mean = vector(1, "running_mean", 0), variance = vector(2, "running_var", 1);
         return {batch_norm(x, vector(3, "weight", 1), vector(4, "bias", 0), mean.detach(),
                            variance.detach(), options)};
       }},
      {"nn.functional.conv2d",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0), weight = s.tensor(1, "weight");
         if (x.dims() != 4) throw NotOffered("not (N, C, H, W)");
         Conv2dOptions options;
         options.stride = pair_of(s, 3, "stride", {1, 1});
         options.padding = pair_of(s, 4, "padding", {0, 0});
         options.dilation = pair_of(s, 5, "dilation", {1, 1});
         options.groups = s.integer(6, "groups", 1);
         return {conv2d(x, weight, bias_of(s), options)};
       }},
      {"nn.functional.conv3d",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0), weight = s.tensor(1, "weight");
         if (x.dims() != 5) throw NotOffered("not (N, C, D, H, W)");
         const auto sizes = [&](int position, const char* name, int64_t otherwise) {
           std::array<int64_t, 3> values = {otherwise, otherwise, otherwise};
           if (!s.given(position, name)) return values;
           const std::vector<int64_t> given = s.integers(position, name);
           for (size_t i = 0; i < 3; ++i) values[i] = given[given.size() == 3 ? i : 0];
           return values;
         };
         Conv3dOptions options;
         options.stride = sizes(3, "stride", 1);
         options.padding = sizes(4, "padding", 0);
         options.dilation = sizes(5, "dilation", 1);
         options.groups = s.integer(6, "groups", 1);
         return {conv3d(x, weight, bias_of(s), options)};
       }},
      {"nn.functional.conv1d",
       [](Sample& s) -> TensorList {
         const Tensor x = sequences(s);
         Conv1dOptions options;
         options.stride = one_of(s, 3, "stride", 1);
         options.padding = one_of(s, 4, "padding", 0);
         options.dilation = one_of(s, 5, "dilation", 1);
         options.groups = s.integer(6, "groups", 1);
         return {conv1d(x, s.tensor(1, "weight"), bias_of(s), options)};
       }},
      {"nn.functional.conv_transpose1d",
       [](Sample& s) -> TensorList {
         const Tensor x = sequences(s);
         ConvTranspose1dOptions options;
         options.stride = one_of(s, 3, "stride", 1);
         options.padding = one_of(s, 4, "padding", 0);
         options.output_padding = one_of(s, 5, "output_padding", 0);
         options.groups = s.integer(6, "groups", 1);
         options.dilation = one_of(s, 7, "dilation", 1);
         return {conv_transpose1d(x, s.tensor(1, "weight"), bias_of(s), options)};
       }},
      {"nn.functional.conv_transpose2d",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         if (x.dims() != 4) throw NotOffered("not (N, C, H, W)");
         ConvTranspose2dOptions options;
         options.stride = pair_of(s, 3, "stride", {1, 1});
         options.padding = pair_of(s, 4, "padding", {0, 0});
         options.output_padding = pair_of(s, 5, "output_padding", {0, 0});
         options.groups = s.integer(6, "groups", 1);
         options.dilation = pair_of(s, 7, "dilation", {1, 1});
         return {conv_transpose2d(x, s.tensor(1, "weight"), bias_of(s), options)};
       }},
      {"nn.functional.max_pool1d",
       [](Sample& s) -> TensorList {
         const Tensor x = sequences(s);
         s.only(-1, "return_indices", false);
         Pool1dOptions options = sequence_pool_options(s);
         options.dilation = one_of(s, 4, "dilation", 1);
         options.ceil_mode = s.flag(5, "ceil_mode", false);
         return {max_pool1d(x, options)};
       }},
      {"nn.functional.avg_pool1d",
       [](Sample& s) -> TensorList {
         const Tensor x = sequences(s);
         Pool1dOptions options = sequence_pool_options(s);
         options.ceil_mode = s.flag(4, "ceil_mode", false);
         options.count_include_pad = s.flag(5, "count_include_pad", true);
         return {avg_pool1d(x, options)};
       }},
      {"nn.functional.adaptive_avg_pool1d",
       [](Sample& s) -> TensorList {
         return {adaptive_avg_pool1d(sequences(s), one_of(s, 1, "output_size", 1))};
       }},
      {"nn.functional.adaptive_max_pool1d",
       [](Sample& s) -> TensorList {
         s.only(2, "return_indices", false);
         return {adaptive_max_pool1d(sequences(s), one_of(s, 1, "output_size", 1))};
       }},
      {"nn.functional.max_pool2d",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         if (x.dims() != 4) throw NotOffered("not (N, C, H, W)");
         s.only(-1, "return_indices", false);
         Pool2dOptions options = pool_options(s);
         options.dilation = pair_of(s, 4, "dilation", {1, 1});
         return {max_pool2d(x, options)};
       }},
      {"nn.functional.avg_pool2d",
       [](Sample& s) -> TensorList {
         const Tensor x = s.tensor(0);
         if (x.dims() != 4) throw NotOffered("not (N, C, H, W)");
         Pool2dOptions options = pool_options(s);
         options.count_include_pad = s.flag(-1, "count_include_pad", true);
         s.only(-1, "divisor_override", nullptr);
         return {avg_pool2d(x, options)};
       }},
      {"nn.functional.adaptive_avg_pool2d",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() != 4) throw NotOffered("not (N, C, H, W)");
         return {adaptive_avg_pool2d(s.tensor(0), adaptive_size(s))};
       }},
      {"nn.functional.adaptive_max_pool2d",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dims() != 4) throw NotOffered("not (N, C, H, W)");
         s.only(2, "return_indices", false);
         return {adaptive_max_pool2d(s.tensor(0), adaptive_size(s))};
       }},
      {"nn.functional.interpolate", interpolated},
      {"nn.functional.group_norm",
       [](Sample& s) -> TensorList {
         const auto vector = [&](int position, const char* name) {
           return s.given(position, name) ? s.tensor(position, name) : Tensor();
         };
         const int64_t groups = s.integer(1, "num_groups");
         return {group_norm(s.tensor(0), groups, vector(2, "weight"), vector(3, "bias"),
                            s.number(4, "eps", 1e-5))};
       }},
      {"nn.functional.instance_norm",
       [](Sample& s) -> TensorList {
         if (s.given(1, "running_mean")) throw NotOffered("running statistics");
         const auto vector = [&](int position, const char* name) {
           return s.given(position, name) ? s.tensor(position, name) : Tensor();
         };
         s.only(5, "use_input_stats", true);
         s.number(6, "momentum", 0.1);
         return {instance_norm(s.tensor(0), vector(3, "weight"), vector(4, "bias"),
                               s.number(7, "eps", 1e-5))};
       }},
      {"einsum",
       [](Sample& s) -> TensorList { return {einsum(s.text(1, "equation", ""), s.tensors(0))}; }},
      {"nn.functional.embedding",
       [](Sample& s) -> TensorList {
         s.flag(-1, "sparse", false);
         std::optional<int64_t> padding;
         if (s.given(-1, "padding_idx")) {
           padding = s.integer(-1, "padding_idx");
           if (*padding < 0) padding = *padding + s.tensor(0).size(0);
         }
         return {embedding(s.tensor(0), s.tensor(1), padding)};
       }},
      {"nn.functional.scaled_dot_product_attention", attended},
      {"nn.functional.dropout",
       [](Sample& s) -> TensorList {
         const double probability = s.number(1, "p", 0.5);
         const bool training = s.flag(2, "training", true);
         s.only(3, "inplace", false);
         if (training && probability > 0 && probability < 1)
           throw NotOffered("random numbers of its own");
         return {dropout(s.tensor(0), probability, training)};
       }},
  };
}

}  // namespace binade::opinfo
