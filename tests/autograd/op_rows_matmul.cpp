// Matmuls, linear layers and the feed-forward layers made of them.
#include <numbers>

#include "op_table.h"

namespace binade::test {

namespace {

// (…, M, K) · (…, K, N) with broadcast leading dimensions.
Values matmul_of(const Values& a, const Values& b) {
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

// Quarters in [-1, 1], in no order, moved by `offset`. Sums of a few of their products are exact
// in every dtype before the one rounding, so that all agree on their signs.
Input quarters(const Shape& shape, double offset = 0) {
  Input input = real(shape);
  for (int64_t i = 0; i < shape.numel(); ++i)
    input.values.push_back(static_cast<double>((i * i + 5 * i + shape.numel()) % 9 - 4) / 4 +
                           offset);
  return input;
}

double gelu_tanh_of(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

}  // namespace

void add_matmul_rows(OpTable& table) {
  for (const auto& [variant, a, b] :
       {std::tuple("matrices", Shape{3, 4}, Shape{4, 5}),
        std::tuple("batched", Shape{2, 3, 4}, Shape{2, 4, 5}),
        std::tuple("one matrix for all", Shape{2, 3, 4}, Shape{4, 5}),
        std::tuple("broadcast", Shape{2, 1, 3, 4}, Shape{5, 4, 2}),
        std::tuple("no inner size", Shape{2, 0}, Shape{0, 3}),
        std::tuple("square", Shape{3, 3}, Shape{3, 3}),
        std::tuple("square, batched", Shape{2, 3, 3}, Shape{2, 3, 3})})
    table.add(
        "matmul", variant, {real(a), real(b)},
        [](const TensorList& in) -> TensorList { return {matmul(in[0], in[1])}; },
        [](const Lists& in) -> Lists { return {matmul_of(in[0], in[1])}; });
  const auto vectors = [&](const char* variant, const Shape& a, const Shape& b, const Shape& a2,
                           const Shape& b2, const Shape& out) {
    table
        .add(
            "matmul", variant, {real(a), real(b)},
            [](const TensorList& in) -> TensorList { return {matmul(in[0], in[1])}; },
            [=](const Lists& in) -> Lists {
              return {{out, matmul_of({a2, in[0].data}, {b2, in[1].data}).data}};
            })
        .of_one_size();
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

  // No sum is 0, where relu has a kink: biases lie between the multiples of 1/16.
  const auto linear_relu_of = [](const Lists& in) -> Lists {
    return {map(linear_of(in[0], in[1], in.size() > 2 ? &in[2] : nullptr),
                [](double sum) { return sum > 0 ? sum : 0; })};
  };
  const auto call_relu = [](const TensorList& in) -> TensorList {
    return {linear_relu(in[0], in[1], in.size() > 2 ? in[2] : Tensor())};
  };
  for (const auto& [variant, x, weight] : {std::tuple("bias", Shape{2, 3, 4}, Shape{5, 4}),
                                           std::tuple("vector", Shape{4}, Shape{5, 4}),
                                           std::tuple("square", Shape{4, 4}, Shape{4, 4})})
    table.add("linear_relu", variant,
              {quarters(x), quarters(weight), quarters({weight[0]}, 1.0 / 32)}, call_relu,
              linear_relu_of);
  // Odd quarters: sums of three products of them are odd sixteenths.
  const auto odd = [](const Shape& shape) {
    Input input = real(shape);
    for (int64_t i = 0; i < shape.numel(); ++i)
      input.values.push_back(static_cast<double>((i * i + 3 * i) % 7 * 2 - 5) / 4);
    return input;
  };
  table.add("linear_relu", "no bias", {odd({4, 3}), odd({5, 3})}, call_relu, linear_relu_of);

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
      "linear_joint", "contiguous weights", {real({3, 4}), real({7, 4})},
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
          "swiglu_mlp", "contiguous weights", {real({2, 3, 5}), real({8, 5}, -1, 1), real({3, 4})},
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

}  // namespace binade::test
