// Products, norms, attention, convolutions.
#include <numbers>

#include <binade/core/random.h>

#include "op_table.h"

namespace binade::test {

namespace {

// What core/random.h says of the first draw of an op inside a step.
constexpr uint64_t kFirstOpPlace = 0xc00000;

using Lists = std::vector<Values>;

// ---- products -----------------------------------------------------------------------------------

// (…, M, K) · (…, K, N) with broadcast leading dimensions.
Values product(const Values& a, const Values& b) {
  Shape shape = broadcast_shape(Shape(a.shape.span().first(a.shape.span().size() - 2)),
                                Shape(b.shape.span().first(b.shape.span().size() - 2)));
  shape.push_back(a.size(-2));
  shape.push_back(b.size(-1));
  return fill(shape, [&](const Index& at) {
    double sum = 0;
    for (int64_t k = 0; k < a.size(-1); ++k) {
      Index left = at, right = at;
      left.back() = k;
      right[right.size() - 2] = k;
      sum += a(left) * b(right);
    }
    return sum;
  });
}

Values linear_of(const Values& x, const Values& weight, const Values* bias) {
  Shape shape = x.shape;
  shape[shape.dims() - 1] = weight.size(0);
  return fill(shape, [&](const Index& at) {
    double sum = bias ? (*bias)({at.back()}) : 0;
    for (int64_t k = 0; k < weight.size(1); ++k) {
      Index from = at;
      from.back() = k;
      sum += x(from) * weight({at.back(), k});
    }
    return sum;
  });
}

// (…, A) and (…, B) → (…, A + B).
Values side_by_side(const Values& a, const Values& b) {
  Shape shape = a.shape;
  shape[shape.dims() - 1] += b.size(-1);
  return fill(shape, [&](const Index& at) {
    Index from = at;
    if (at.back() < a.size(-1)) return a(from);
    from.back() -= a.size(-1);
    return b(from);
  });
}

double gelu_tanh_of(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

void add_products(OpTable& table) {
  for (const auto& [variant, a, b] :
       {std::tuple("matrices", Shape{3, 4}, Shape{4, 5}),
        std::tuple("batched", Shape{2, 3, 4}, Shape{2, 4, 5}),
        std::tuple("one matrix for all", Shape{2, 3, 4}, Shape{4, 5}),
        std::tuple("broadcast", Shape{2, 1, 3, 4}, Shape{5, 4, 2}),
        std::tuple("no inner size", Shape{2, 0}, Shape{0, 3}),
        std::tuple("square", Shape{3, 3}, Shape{3, 3}),
        std::tuple("square, batched", Shape{2, 3, 3}, Shape{2, 3, 3})})
    table
        .add(
            "matmul", variant, {real(a), real(b)},
            [](const TensorList& in) -> TensorList { return {matmul(in[0], in[1])}; },
            [](const Lists& in) -> Lists { return {product(in[0], in[1])}; })
        .differentiable_twice();
  const auto vectors = [&](const char* variant, const Shape& a, const Shape& b, const Shape& a2,
                           const Shape& b2, const Shape& out) {
    table
        .add(
            "matmul", variant, {real(a), real(b)},
            [](const TensorList& in) -> TensorList { return {matmul(in[0], in[1])}; },
            [=](const Lists& in) -> Lists {
              return {{out, product({a2, in[0].data}, {b2, in[1].data}).data}};
            })
        .of_one_size()
        .differentiable_twice();
  };
  vectors("vector and matrix", {4}, {4, 5}, {1, 4}, {4, 5}, {5});
  vectors("matrix and vector", {3, 4}, {4}, {3, 4}, {4, 1}, {3});
  vectors("vectors", {4}, {4}, {1, 4}, {4, 1}, {});

  const auto call = [](const TensorList& in) -> TensorList {
    return {linear(in[0], in[1], in.size() > 2 ? in[2] : Tensor())};
  };
  table.add("linear", "bias", {real({2, 3, 4}), real({5, 4}), real({5})}, call,
            [](const Lists& in) -> Lists { return {linear_of(in[0], in[1], &in[2])}; });
  table.add("linear", "no bias", {real({3, 4}), real({5, 4})}, call,
            [](const Lists& in) -> Lists { return {linear_of(in[0], in[1], nullptr)}; });
  table.add("linear", "square", {real({4, 4}), real({4, 4}), real({4})}, call,
            [](const Lists& in) -> Lists { return {linear_of(in[0], in[1], &in[2])}; });
  table.add("linear", "vector", {real({4}), real({5, 4}), real({5})}, call,
            [](const Lists& in) -> Lists { return {linear_of(in[0], in[1], &in[2])}; });

  table.add(
      "linear_joint", "biases", {real({2, 3, 4}), real({5, 4}), real({2, 4}), real({5}), real({2})},
      [](const TensorList& in) -> TensorList {
        return {linear_joint(in[0], {in[1], in[2]}, {in[3], in[4]})};
      },
      [](const Lists& in) -> Lists {
        return {side_by_side(linear_of(in[0], in[1], &in[3]), linear_of(in[0], in[2], &in[4]))};
      });
  table.add(
      "linear_joint", "square, biases",
      {real({4, 4}), real({4, 4}), real({4, 4}), real({4}), real({4})},
      [](const TensorList& in) -> TensorList {
        return {linear_joint(in[0], {in[1], in[2]}, {in[3], in[4]})};
      },
      [](const Lists& in) -> Lists {
        return {side_by_side(linear_of(in[0], in[1], &in[3]), linear_of(in[0], in[2], &in[4]))};
      });
  table.add(
      "linear_joint", "square, no biases", {real({4, 4}), real({4, 4}), real({4, 4})},
      [](const TensorList& in) -> TensorList {
        return {linear_joint(in[0], {in[1], in[2]})};
      },
      [](const Lists& in) -> Lists {
        return {side_by_side(linear_of(in[0], in[1], nullptr), linear_of(in[0], in[2], nullptr))};
      });
  table.add(
      "linear_joint", "end to end", {real({3, 4}), real({7, 4})},
      [](const TensorList& in) -> TensorList {
        return {linear_joint(in[0], {slice(in[1], 0, 0, 5), slice(in[1], 0, 5)})};
      },
      [](const Lists& in) -> Lists { return {linear_of(in[0], in[1], nullptr)}; });

  const auto swiglu_of = [](const Values& gate_up) {  // (…, 2H) → (…, H)
    Shape shape = gate_up.shape;
    const int64_t width = shape[shape.dims() - 1] /= 2;
    return fill(shape, [&gate_up, width](const Index& at) {
      Index up = at;
      up.back() += width;
      const double gate = gate_up(at);
      return gate / (1 + std::exp(-gate)) * gate_up(up);
    });
  };
  for (const Recompute level : {Recompute::nothing, Recompute::activations}) {
    const char* variant = level == Recompute::nothing ? "" : "recomputed";
    table
        .add(
            "swiglu_packed", variant, {real({2, 3, 8}), real({5, 4})},
            [level](const TensorList& in) -> TensorList {
              const RecomputeScope scope(level);
              return {linear(swiglu_packed(in[0]), in[1])};
            },
            [=](const Lists& in) -> Lists { return {linear_of(swiglu_of(in[0]), in[1], nullptr)}; })
        .rounded(4);
    table
        .add(
            "swiglu_mlp", variant,
            {real({2, 3, 5}), real({4, 5}, -1, 1), real({4, 5}, -1, 1), real({3, 4})},
            [level](const TensorList& in) -> TensorList {
              const RecomputeScope scope(level);
              return {swiglu_mlp(in[0], in[1], in[2], in[3])};
            },
            [=](const Lists& in) -> Lists {
              const Values pre =
                  side_by_side(linear_of(in[0], in[1], nullptr), linear_of(in[0], in[2], nullptr));
              return {linear_of(swiglu_of(pre), in[3], nullptr)};
            })
        .rounded(6);
  }

  for (const auto& [variant, inputs] :
       {std::pair("biases",
                  std::vector<Input>{real({2, 3, 5}), real({4, 5}, -1, 1), real({4, 5}, -1, 1),
                                     real({3, 4}), real({4}), real({4}), real({3})}),
        std::pair("square",
                  std::vector<Input>{real({4, 4}, -1, 1), real({4, 4}, -1, 1), real({4, 4}, -1, 1),
                                     real({4, 4}, -1, 1), real({4}), real({4}), real({4})})})
    table
        .add(
            "swiglu_mlp", variant, inputs,
            [](const TensorList& in) -> TensorList {
              return {swiglu_mlp(in[0], in[1], in[2], in[3], {in[4], in[5], in[6]})};
            },
            [=](const Lists& in) -> Lists {
              const Values pre =
                  side_by_side(linear_of(in[0], in[1], &in[4]), linear_of(in[0], in[2], &in[5]));
              return {linear_of(swiglu_of(pre), in[3], &in[6])};
            })
        .rounded(6);
  table
      .add(
          "swiglu_mlp", "end to end", {real({2, 3, 5}), real({8, 5}, -1, 1), real({3, 4})},
          [](const TensorList& in) -> TensorList {
            return {swiglu_mlp(in[0], slice(in[1], 0, 0, 4), slice(in[1], 0, 4), in[2])};
          },
          [=](const Lists& in) -> Lists {
            return {linear_of(swiglu_of(linear_of(in[0], in[1], nullptr)), in[2], nullptr)};
          })
      .rounded(6);

  const auto mlp = [](const Lists& in, const Values* up_bias, const Values* down_bias) {
    return linear_of(map(linear_of(in[0], in[1], up_bias), gelu_tanh_of), in[2], down_bias);
  };
  for (const auto& [variant, inputs] :
       {std::pair("biases", std::vector<Input>{real({2, 3, 4}), real({6, 4}, -1, 1),
                                               real({5, 6}, -1, 1), real({6}), real({5})}),
        std::pair("square", std::vector<Input>{real({4, 4}, -1, 1), real({4, 4}, -1, 1),
                                               real({4, 4}, -1, 1), real({4}), real({4})})})
    table
        .add(
            "gelu_mlp", variant, inputs,
            [](const TensorList& in) -> TensorList {
              return {gelu_mlp(in[0], in[1], in[3], in[2], in[4])};
            },
            [=](const Lists& in) -> Lists { return {mlp(in, &in[3], &in[4])}; })
        .rounded(4);
  table
      .add(
          "gelu_mlp", "recomputed", {real({3, 4}), real({6, 4}, -1, 1), real({5, 6}, -1, 1)},
          [](const TensorList& in) -> TensorList {
            const RecomputeScope scope(Recompute::activations);
            return {gelu_mlp(in[0], in[1], {}, in[2], {})};
          },
          [=](const Lists& in) -> Lists { return {mlp(in, nullptr, nullptr)}; })
      .rounded(4);
}

// ---- norms --------------------------------------------------------------------------------------

Values norm_of(const Values& x, const Values& weight, const Values* bias, double eps,
               bool subtract_mean) {
  return fill(x.shape, [&](const Index& at) {
    const std::vector<double> line = row(x, but_last(at));
    const double count = static_cast<double>(line.size());
    const double mean = subtract_mean ? total(line) / count : 0;
    double square = 0;
    for (double value : line) square += (value - mean) * (value - mean);
    const double y = (x(at) - mean) / std::sqrt(square / count + eps) * weight({at.back()});
    return bias ? y + (*bias)({at.back()}) : y;
  });
}

void add_norms(OpTable& table) {
  constexpr double kEps = 0x1p-10;  // a float, so that f64 agrees to the last digits
  const Input x = real({2, 3, 8});
  const Input weight = real({8}).as(Input::Dtype::statistics), bias = weight;
  table.add(
      "layer_norm", "f32 weights", {x, weight, bias},
      [](const TensorList& in) -> TensorList { return {layer_norm(in[0], in[1], in[2], kEps)}; },
      [](const Lists& in) -> Lists { return {norm_of(in[0], in[1], &in[2], kEps, true)}; });
  table.add(
      "layer_norm", "no bias", {x, real({8})},
      [](const TensorList& in) -> TensorList { return {layer_norm(in[0], in[1], {}, kEps)}; },
      [](const Lists& in) -> Lists { return {norm_of(in[0], in[1], nullptr, kEps, true)}; });
  table.add(
      "rms_norm", "", {x, weight},
      [](const TensorList& in) -> TensorList { return {rms_norm(in[0], in[1], kEps)}; },
      [](const Lists& in) -> Lists { return {norm_of(in[0], in[1], nullptr, kEps, false)}; });
  const auto add = [](double a, double b) { return a + b; };
  table
      .add(
          "add_layer_norm", "", {x, x, weight, bias},
          [](const TensorList& in) -> TensorList {
            const auto [sum, y] = add_layer_norm(in[0], in[1], in[2], in[3], kEps);
            return {sum, y};
          },
          [=](const Lists& in) -> Lists {
            const Values sum = map(in[0], in[1], add);
            return {sum, norm_of(sum, in[2], &in[3], kEps, true)};
          })
      .rounded(4);  // the sum is rounded before the norm divides by its deviation
  table
      .add(
          "add_rms_norm", "", {x, x, weight},
          [](const TensorList& in) -> TensorList {
            const auto [sum, y] = add_rms_norm(in[0], in[1], in[2], kEps);
            return {sum, y};
          },
          [=](const Lists& in) -> Lists {
            const Values sum = map(in[0], in[1], add);
            return {sum, norm_of(sum, in[2], nullptr, kEps, false)};
          })
      .rounded(4);
  for (const bool second : {false, true})
    table
        .add(
            "add_rms_norm", second ? "only the norm used" : "only the sum used", {x, x, weight},
            [second](const TensorList& in) -> TensorList {
              const auto [sum, y] = add_rms_norm(in[0], in[1], in[2], kEps);
              return {second ? y : sum};
            },
            [=](const Lists& in) -> Lists {
              const Values sum = map(in[0], in[1], add);
              return {second ? norm_of(sum, in[2], nullptr, kEps, false) : sum};
            })
        .rounded(4);
}

// ---- attention ----------------------------------------------------------------------------------

struct AttentionSetting {
  bool causal = false;
  double scale = 0.5;
  std::function<double(const Index&)> bias = nullptr;  // added at (b, h, i, j)
  double dropout = 0;                                  // at seed 5, step 2, place 0
};

Values attention_of(const Values& q, const Values& k, const Values& v,
                    const AttentionSetting& setting) {
  const int64_t queries = q.size(2), keys = k.size(2), group = q.size(1) / k.size(1);
  Shape out = q.shape;
  out[3] = v.size(3);
  return fill(out, [&](const Index& at) {
    const int64_t b = at[0], h = at[1], i = at[2];
    std::vector<double> scores, values;
    std::vector<bool> kept;
    for (int64_t j = 0; j < keys; ++j) {
      double score = 0;
      for (int64_t d = 0; d < q.size(3); ++d)
        score += q({b, h, i, d}) * k({b, h / group, j, d}) * setting.scale;
      if (setting.bias) score += setting.bias({b, h, i, j});
      if (setting.causal && j > i + keys - queries) score = -INFINITY;
      const auto element = static_cast<uint64_t>(((b * q.size(1) + h) * queries + i) * keys + j);
      const float draw = uniform_of(philox(5, 2, kFirstOpPlace, element / 4).word[element % 4]);
      scores.push_back(score);
      values.push_back(v({b, h / group, j, at[3]}));
      kept.push_back(draw >= static_cast<float>(setting.dropout));
    }
    if (std::count(scores.begin(), scores.end(), -INFINITY) == std::ssize(scores)) return 0.0;
    const double logsum = log_sum_exp(scores);
    double sum = 0;
    for (size_t j = 0; j < scores.size(); ++j)
      if (kept[j]) sum += std::exp(scores[j] - logsum) * values[j] / (1 - setting.dropout);
    return sum;
  });
}

void add_attention(OpTable& table) {
  const char* name = "scaled_dot_product_attention";
  const auto row = [&](const char* variant, const Shape& q, const Shape& kv,
                       AttentionSetting setting) {
    // Probabilities are rounded to the half type before they meet v, in forward and backward.
    table
        .add(
            name, variant, {real(q), real(kv), real(kv)},
            [setting](const TensorList& in) -> TensorList {
              RandomState::current().begin_step(5, 2);
              AttentionOptions options;
              options.causal = setting.causal;
              if (setting.scale != 0.5) options.scale = setting.scale;
              options.dropout = setting.dropout;
              options.training = setting.dropout > 0;
              return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
            },
            [setting](const Lists& in) -> Lists {
              return {attention_of(in[0], in[1], in[2], setting)};
            })
        .rounded(3);
  };
  row("full", {2, 2, 3, 4}, {2, 2, 5, 4}, {});
  row("causal", {2, 2, 5, 4}, {2, 2, 5, 4}, {.causal = true});
  row("causal, more keys", {1, 2, 3, 4}, {1, 2, 5, 4}, {.causal = true});
  row("grouped heads", {2, 4, 3, 4}, {2, 2, 3, 4}, {.causal = true});
  row("scale", {1, 2, 3, 4}, {1, 2, 3, 4}, {.scale = 0.25});
  row("dropout", {1, 2, 3, 4}, {1, 2, 5, 4}, {.dropout = 0.25});

  table
      .add(
          name, "bool mask, one row sees nothing",
          {real({1, 2, 3, 4}), real({1, 2, 4, 4}), real({1, 2, 4, 4}),
           mask({3, 4}, {1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1})},
          [name](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.mask = in[3];
            return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            return {attention_of(in[0], in[1], in[2], {.bias = [&](const Index& i) {
                                   return in[3](i) != 0 ? 0 : -INFINITY;
                                 }})};
          })
      .rounded(3);
  table
      .add(
          name, "added mask",
          {real({1, 2, 3, 4}), real({1, 2, 4, 4}), real({1, 2, 4, 4}),
           real({2, 1, 4}).as(Input::Dtype::f32)},
          [](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.mask = in[3];
            return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
          },
          [](const Lists& in) -> Lists {
            return {attention_of(in[0], in[1], in[2],
                                 {.bias = [&](const Index& i) { return in[3](i); }})};
          })
      .rounded(3);

  // 4 query heads and 2 key heads of size 4.
  const auto packed_of = [](const Values& qkv, int64_t first, int64_t count) {
    const int64_t size = qkv.size(2) / 8;
    return fill({qkv.size(0), count, qkv.size(1), size}, [&](const Index& i) {
      return qkv({i[0], i[2], (first + i[1]) * size + i[3]});
    });
  };
  const auto merged = [](const Values& y) {
    const int64_t size = y.size(3);
    return fill({y.size(0), y.size(2), y.size(1) * size}, [&](const Index& i) {
      return y({i[0], i[2] / size, i[1], i[2] % size});
    });
  };
  table
      .add(
          "packed_attention", "", {real({2, 3, 32})},
          [](const TensorList& in) -> TensorList {
            AttentionOptions options;
            options.causal = true;
            return {packed_attention(in[0], 4, 2, options)};
          },
          [=](const Lists& in) -> Lists {
            return {merged(attention_of(packed_of(in[0], 0, 4), packed_of(in[0], 4, 2),
                                        packed_of(in[0], 6, 2), {.causal = true}))};
          })
      .rounded(3);
  for (const bool in_place : {false, true})
    table
        .add(
            "packed_attention", in_place ? "rotated in place" : "rotated",
            {real({2, 3, 32}), real({3, 1}).as(Input::Dtype::f32),
             real({3, 1}).as(Input::Dtype::f32)},
            [in_place](const TensorList& in) -> TensorList {
              AttentionOptions options;
              options.causal = true;
              options.rope_cos = in[1];
              options.rope_sin = in[2];
              return {packed_attention(in_place ? in[0] + 0.0 : in[0], 4, 2, options)};
            },
            [=](const Lists& in) -> Lists {
              const auto turned = [&](const Values& x) {  // the first two of four, one pair
                return fill(x.shape, [&](const Index& i) {
                  if (i[3] >= 2 * in[1].size(1)) return x(i);
                  Index other = i;
                  other[3] = 1 - i[3];
                  const double sign = i[3] == 0 ? -1 : 1;
                  return x(i) * in[1]({i[2], 0}) + sign * x(other) * in[2]({i[2], 0});
                });
              };
              return {merged(attention_of(turned(packed_of(in[0], 0, 4)),
                                          turned(packed_of(in[0], 4, 2)), packed_of(in[0], 6, 2),
                                          {.causal = true}))};
            })
        .rounded(8);

  table
      .add(
          "rope", "part of the head",
          {real({2, 2, 3, 6}), real({3, 2}).as(Input::Dtype::f32),
           real({3, 2}).as(Input::Dtype::f32)},
          [](const TensorList& in) -> TensorList { return {rope(in[0], in[1], in[2])}; },
          [](const Lists& in) -> Lists {
            return {fill(in[0].shape, [&](const Index& i) {
              const int64_t d = i[3], t = i[2];
              if (d >= 2 * in[1].size(1)) return in[0](i);
              Index other = i;
              other[3] = d < 2 ? d + 2 : d - 2;
              const double cos = in[1]({t, d % 2}), sin = in[2]({t, d % 2});
              return in[0](i) * cos + (d < 2 ? -1 : 1) * in[0](other) * sin;
            })};
          })
      .differentiable_twice();
}

// ---- images -------------------------------------------------------------------------------------

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

Values pooled(const Values& x, const Pool2dOptions& o, bool largest) {
  const auto size = [&](int i) {
    const size_t j = static_cast<size_t>(i);
    return (x.size(2 + i) + 2 * o.padding[j] - o.kernel[j]) / o.stride[j] + 1;
  };
  return fill({x.size(0), x.size(1), size(0), size(1)}, [&](const Index& at) {
    std::vector<double> window;
    for_each_index({o.kernel[0], o.kernel[1]}, [&](const Index& tap) {
      const double value = padded(x, at[0], at[1], at[2] * o.stride[0] - o.padding[0] + tap[0],
                                  at[3] * o.stride[1] - o.padding[1] + tap[1]);
      if (!std::isnan(value)) window.push_back(value);
    });
    if (largest) return *std::max_element(window.begin(), window.end());
    return total(window) / static_cast<double>(window.size());
  });
}

void add_images(OpTable& table) {
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

  for (const auto& [variant, options] :
       {std::pair("", Pool2dOptions{}),
        std::pair("overlapping, padded", Pool2dOptions{{3, 2}, {2, 1}, {1, 1}})}) {
    table
        .add(
            "max_pool2d", variant, {distinct({1, 2, 5, 6})},
            [options = options](const TensorList& in) -> TensorList {
              return {max_pool2d(in[0], options)};
            },
            [options = options](const Lists& in) -> Lists {
              return {pooled(in[0], options, true)};
            })
        .no_repeats();
    table.add(
        "avg_pool2d", variant, {real({2, 2, 5, 6})},
        [options = options](const TensorList& in) -> TensorList {
          return {avg_pool2d(in[0], options)};
        },
        [options = options](const Lists& in) -> Lists { return {pooled(in[0], options, false)}; });
  }

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
  table
      .add(
          "batch_norm", "inference", inputs,
          [](const TensorList& in) -> TensorList {
            return {
                batch_norm(in[0], in[1], in[2], in[3], in[4], {.eps = kEps, .training = false})};
          },
          [](const Lists& in) -> Lists {
            return {fill(in[0].shape, [&](const Index& i) {
              const Index c = {i[1]};
              return (in[0](i) - in[3](c)) / std::sqrt(in[4](c) + kEps) * in[1](c) + in[2](c);
            })};
          })
      .differentiable_twice();
}

}  // namespace

void add_network_rows(OpTable& table) {
  add_products(table);
  add_norms(table);
  add_attention(table);
  add_images(table);
}

}  // namespace binade::test
