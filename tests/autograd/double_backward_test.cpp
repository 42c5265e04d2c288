// Gradients of gradients: every row of the op table, and what rows cannot say.
#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/amp/preset.h>
#include <binade/autograd/gradcheck.h>
#include <binade/core/random.h>

#include "gpu.h"
#include "leaves.h"
#include "op_harness.h"
#include "op_layouts.h"

using namespace binade;
using namespace binade::test;
using Catch::Contains;

namespace {

bool has_second_gradients(const OpRow& row) {
  return row.differentiable && row.once.empty();
}

TensorList that_require_grad(const TensorList& tensors) {
  TensorList chosen;
  std::copy_if(tensors.begin(), tensors.end(), std::back_inserter(chosen),
               [](const Tensor& x) { return x.defined() && x.requires_grad(); });
  return chosen;
}

// Leaves in the place of the gradients of `outputs`: the numbers of gradients_of().
TensorList seeds_for(const TensorList& outputs, uint32_t number = 99) {
  TensorList seeds;
  for (const Tensor& output : outputs)
    seeds.emplace_back(Array::from(draw(real(output.shape(), 0.5, 1.5), number), output.shape())
                           .to(output.dtype())
                           .to(output.device()),
                       true);
  return seeds;
}

// First and second gradients of a row: of its inputs, and of Σ of those times fixed numbers, of
// inputs and seeds. Where nothing arrives, zeros.
struct TwoOrders {
  std::vector<Values> first, second;
  std::vector<DType> dtypes;  // of the first

  TwoOrders(const OpRow& row, const TensorList& inputs) {
    const TensorList outputs = that_require_grad(row.call(inputs));
    TensorList wanted = that_require_grad(inputs);
    const TensorList seeds = seeds_for(outputs);
    const TensorList gradients = grad(outputs, wanted, seeds, {.create_graph = true});
    for (const Tensor& gradient : gradients) {
      if (gradient.defined()) dtypes.push_back(gradient.dtype());
    }
    first = values(gradients, wanted);
    wanted.insert(wanted.end(), seeds.begin(), seeds.end());
    const TensorList tops = that_require_grad(gradients);
    second =
        values(tops.empty() ? TensorList(wanted.size()) : grad(tops, wanted, seeds_for(tops, 199)),
               wanted);
  }

 private:
  static std::vector<Values> values(const TensorList& gradients, const TensorList& of) {
    std::vector<Values> list;
    for (size_t i = 0; i < of.size(); ++i) {
      const Tensor gradient =
          gradients[i].defined() ? gradients[i] : Tensor::zeros(of[i].shape(), of[i].dtype());
      CHECK(gradient.dtype() == of[i].dtype());
      list.push_back({gradient.shape(), gradient.to_vector<double>()});
    }
    return list;
  }
};

void check_alike(const std::vector<Values>& got, const std::vector<Values>& expected, DType dtype,
                 int roundings, double absolute = 0) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    INFO("gradient " << i);
    CHECK(got[i].shape == expected[i].shape);
    CHECK(difference(got[i].data, expected[i].data, dtype, roundings, absolute) == "");
  }
}

// Two backward passes round, and each reads what the pass before it rounded. A second gradient may
// be a small difference of numbers as large as the first one: softmax's, or a tail that underflows.
// rounded: how many of the two were computed in dtype.
void check_second(const TwoOrders& got, const TwoOrders& expected, DType dtype, int rounded = 1) {
  double largest = 0;
  for (const Values& gradient : expected.first)
    largest = std::max(largest, largest_magnitude(gradient.data));
  check_alike(got.second, expected.second, dtype, 24 * rounded,
              12 * rounded * unit_roundoff(dtype) * largest);
}

// Whether the row's gradient is 0 wherever it is asked for: that of a function which is constant by
// pieces. Its gradients are not on the tape.
bool is_flat(const OpRow& row) {
  const std::vector<Values> gradients = gradients_of(row, make_inputs(row, DType::f64));
  return std::all_of(gradients.begin(), gradients.end(),
                     [](const Values& gradient) { return largest_magnitude(gradient.data) == 0; });
}

// The gradients of `call`, differentiable, as a function of its inputs and of its outputs' seeds:
// {the function, its arguments}.
std::pair<Call, TensorList> gradient_of(const Call& call, const TensorList& inputs) {
  TensorList arguments = inputs;
  for (const Tensor& seed : seeds_for(that_require_grad(call(inputs)))) arguments.push_back(seed);
  const size_t count = inputs.size();
  const Call gradient = [call, count](const TensorList& arguments) {
    const auto middle = arguments.begin() + static_cast<long>(count);
    const TensorList inputs(arguments.begin(), middle), seeds(middle, arguments.end());
    return grad(that_require_grad(call(inputs)), that_require_grad(inputs), seeds,
                {.create_graph = true});
  };
  return {gradient, arguments};
}

}  // namespace

TEST_CASE("every op's gradient has the gradient that finite differences say",
          "[twice][gradcheck]") {
  for (const OpRow& row : op_rows()) {
    if (!has_second_gradients(row) || is_flat(row)) continue;
    for (const auto& [layout, layout_name] : kLayouts) {
      if (layout == Layout::expanded && !row.repeats) continue;
      INFO(row.name() << ", " << layout_name);
      const auto function = [&row, layout = layout](const TensorList& inputs) {
        return row.call(arrange_all(row, inputs, layout));
      };
      GradcheckOptions options;
      if (layout != Layout::contiguous) options.max_elements = 8;
      CHECK(gradgradcheck(function, make_inputs(row, DType::f64), options) == "");
    }
  }
}

TEST_CASE("every op's second gradient has the gradient that finite differences say",
          "[twice][gradcheck]") {
  for (const OpRow& row : op_rows()) {
    if (!has_second_gradients(row) || is_flat(row)) continue;
    INFO(row.name());
    const auto [gradient, arguments] = gradient_of(row.call, make_inputs(row, DType::f64));
    GradcheckOptions options;
    options.max_elements = 3;
    CHECK(gradgradcheck(gradient, arguments, options) == "");
  }
}

TEST_CASE("an op whose gradient has none says so, and what to do", "[twice]") {
  size_t refusals = 0;
  for (const OpRow& row : op_rows()) {
    if (!row.differentiable || row.once.empty()) continue;
    INFO(row.name());
    ++refusals;
    const TensorList outputs = that_require_grad(row.call(make_inputs(row, DType::f64)));
    CHECK_THROWS_WITH(
        grad(outputs, {outputs[0]}, seeds_for(outputs), {.create_graph = true}),
        Contains(row.op + ": its gradient has no gradient (create_graph); ") && Contains(row.once));
  }
  CHECK(refusals > 5);
}

TEST_CASE("gradients with create_graph are those without, in every dtype", "[twice]") {
  for (const OpRow& row : op_rows()) {
    if (!has_second_gradients(row)) continue;
    for (const DType dtype : dtypes_of(row)) {
      INFO(row.name() << ", " << dtype);
      const TensorList inputs = make_inputs(row, dtype);
      std::vector<DType> plain_dtypes;
      const std::vector<Values> plain = gradients_of(row, inputs, &plain_dtypes);
      const TwoOrders both(row, inputs);
      check_alike(both.first, plain, dtype, 12);
    }
  }
}

TEST_CASE("second gradients in f32 and half types equal those in f64", "[twice]") {
  for (const OpRow& row : op_rows()) {
    if (!has_second_gradients(row)) continue;
    for (const DType dtype : dtypes_of(row)) {
      if (dtype == DType::f64) continue;
      INFO(row.name() << ", " << dtype);
      const TensorList inputs = make_inputs(row, dtype);
      check_second(TwoOrders(row, inputs), TwoOrders(row, in_f64(row, inputs)), dtype);
    }
  }
}

TEST_CASE("second gradients on the GPU equal the CPU's", "[twice][cuda]") {
  require_gpu();
  for (const OpRow& row : op_rows()) {
    if (!has_second_gradients(row)) continue;
    for (const DType dtype : dtypes_of(row)) {
      if (dtype == DType::f64) continue;
      INFO(row.name() << ", " << dtype);
      const TwoOrders got(row, make_inputs(row, dtype, test_gpu()));
      const TwoOrders expected(row, make_inputs(row, dtype));
      check_alike(got.first, expected.first, dtype, 12);
      check_second(got, expected, dtype, /*rounded=*/2);
    }
  }
}

TEST_CASE("one tensor in two places of an op gets both second gradients", "[twice][gradcheck]") {
  for (const OpRow& original : op_rows()) {
    if (!has_second_gradients(original)) continue;
    for (const auto& [row, first, second] : tied_rows(original)) {
      INFO(row.name());
      GradcheckOptions options;
      options.max_elements = 12;
      CHECK(gradgradcheck(row.call, make_inputs(row, DType::f64), options) == "");
      const auto of_results = [&call = row.call](TensorList inputs) {
        for (Tensor& input : inputs)
          if (input.requires_grad()) input = input * 1.0;
        return call(inputs);
      };
      CHECK(gradgradcheck(of_results, make_inputs(row, DType::f64), options) == "");
    }
  }
}

TEST_CASE("sizes of 0 have second gradients where they have gradients", "[twice][sizes]") {
  size_t taken = 0;
  for (const OpRow& original : op_rows()) {
    if (!has_second_gradients(original)) continue;
    for (const OpRow& row : rows_with_zero_sizes(original)) {
      INFO(row.name());
      const TensorList inputs = make_inputs(row, DType::f64);
      TensorList outputs;
      try {
        outputs = that_require_grad(row.call(inputs));
      } catch (const Error&) {
        continue;
      }
      if (outputs.empty()) continue;
      ++taken;
      if (!is_flat(row)) {
        std::string found;
        REQUIRE_NOTHROW(found = gradgradcheck(row.call, inputs));
        CHECK(found == "");
      }
      const std::vector<Values> plain = gradients_of(row, inputs);
      check_alike(TwoOrders(row, inputs).first, plain, DType::f64, 12);
    }
  }
  CHECK(taken > 200);
}

TEST_CASE("second derivatives at kinks are 0", "[twice]") {
  const std::vector<std::pair<const char*, Tensor (*)(const Tensor&)>> bent = {
      {"relu", [](const Tensor& x) { return relu(x); }},
      {"abs", [](const Tensor& x) { return abs(x); }},
      {"leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.1); }},
      {"elu", [](const Tensor& x) { return elu(x, 1.5); }},
      {"clamp", [](const Tensor& x) { return clamp(x, 0, 1); }},
      {"maximum", [](const Tensor& x) { return maximum(x, 2.0 * x); }}};
  for (const auto& [name, op] : bent) {
    INFO(name);
    const Tensor x(Array::zeros({3}, DType::f64), true);
    const Tensor first =
        grad({op(x)}, {x}, {Tensor::ones({3}, DType::f64)}, {.create_graph = true})[0];
    if (!first.requires_grad()) continue;  // constant
    const Tensor second = grad({first}, {x}, {Tensor::ones({3}, DType::f64)})[0];
    if (second.defined()) CHECK(second.to_vector<double>() == std::vector<double>(3, 0.0));
  }
}

TEST_CASE("only what is asked for is computed of a gradient's graph", "[twice]") {
  // The gradient of x alone: the weights' would be matmuls for nothing.
  struct Counter : OpObserver {
    int matmuls = 0;
    void on_forward(const char*, const TensorList&, const std::vector<Array>&) override {}
    void on_backward(const char* name, const std::vector<Array>&,
                     const std::vector<Array>& dinputs) override {
      if (std::string(name) == "linear")
        for (const Array& gradient : dinputs) matmuls += gradient.defined() ? 1 : 0;
    }
  } counter;
  const Tensor x(Array::from(draw(real({3, 4}), 1), {3, 4}), true);
  const Tensor weight(Array::from(draw(real({5, 4}), 2), {5, 4}), true);
  const Tensor y = sum(square(linear(x, weight)));
  OpObserver* before = exchange_op_observer(&counter);
  const Tensor dx = grad({y}, {x}, {}, {.create_graph = true})[0];
  exchange_op_observer(before);
  CHECK(counter.matmuls == 1);
  CHECK(grad({sum(square(dx))}, {weight})[0].defined());
}

TEST_CASE("a linear layer's first gradient is a linear layer's", "[twice]") {
  // y = x·Wᵀ: d/dW Σ (dy·W)² = 2·dyᵀ·(dy·W), by hand.
  const Tensor x(Array::from(draw(real({2, 3}), 1), {2, 3}), true);
  const Tensor weight(Array::from(draw(real({2, 3}), 2), {2, 3}), true);
  const Tensor dy(Array::from(draw(real({2, 2}), 3), {2, 2}));
  const Tensor dx = grad({linear(x, weight)}, {x}, {dy}, {.create_graph = true})[0];
  const std::vector<double> got = grad({sum(square(dx))}, {weight})[0].to_vector<double>();
  const std::vector<double> w = weight.to_vector<double>(), d = dy.to_vector<double>();
  for (size_t o = 0; o < 2; ++o)
    for (size_t i = 0; i < 3; ++i) {
      double expected = 0;
      for (size_t n = 0; n < 2; ++n)
        expected += 2 * d[2 * n + o] * (d[2 * n] * w[i] + d[2 * n + 1] * w[3 + i]);
      CHECK(got[3 * o + i] == Approx(expected));
    }
}

TEST_CASE("third gradients of composed and fused ops", "[twice]") {
  const Tensor x = leaf({0.75});
  const Tensor first = grad({sin(x)}, {x}, {}, {.create_graph = true})[0];
  const Tensor second = grad({first}, {x}, {}, {.create_graph = true})[0];
  const Tensor third = grad({second}, {x}, {}, {.create_graph = true})[0];
  CHECK(third.item() == Approx(-std::cos(0.75)));
  CHECK(grad({third}, {x})[0].item() == Approx(std::sin(0.75)));

  // w³x of three linear layers with one weight: its third derivative by w is 6x.
  const Tensor w = leaf({1.25}), at = leaf({0.5});
  const Tensor weight = reshape(w, {1, 1});
  Tensor y = linear(linear(linear(reshape(at, {1, 1}), weight), weight), weight);
  for (int order = 0; order < 3; ++order)
    y = reshape(grad({sum(y)}, {w}, {}, {.create_graph = true})[0], {1, 1});
  CHECK(y.item() == Approx(6 * 0.5));
}

TEST_CASE("second gradients of dropout use the mask of the forward pass", "[twice]") {
  const auto dropped = [](const TensorList& in) -> TensorList {
    RandomState::current().begin_step(5, 2);
    return {square(dropout(in[0] * in[0], 0.5, true))};
  };
  const auto attended = [](const TensorList& in) -> TensorList {
    RandomState::current().begin_step(5, 2);
    AttentionOptions options;
    options.dropout = 0.4;
    options.training = true;
    return {scaled_dot_product_attention(in[0], in[1], in[2], options)};
  };
  const auto filled = [](const Shape& shape, uint32_t seed) {
    return Tensor(Array::from(draw(real(shape), seed), shape), true);
  };
  CHECK(gradgradcheck(dropped, {filled({4, 5}, 1)}) == "");
  CHECK(gradgradcheck(attended, {filled({1, 2, 5, 3}, 1), filled({1, 2, 7, 3}, 2),
                                 filled({1, 2, 7, 3}, 3)}) == "");
}

TEST_CASE("recomputed segments have second gradients", "[twice][recompute]") {
  const Tensor weight(Array::from(draw(real({4, 4}, -1, 1), 1), {4, 4}), true);
  const Tensor gain(Array::full({4}, 1.5, DType::f64), true);
  const auto segment = [&](const TensorList& in) -> TensorList {
    const Tensor hidden = dropout(silu(linear(rms_norm(in[0], gain), weight)), 0.25, true);
    return {in[0] + hidden, sum(hidden)};
  };
  const auto penalty = [&](bool recomputed) {
    RandomState::current().begin_step(7, 3);
    const Tensor x(Array::from(draw(real({3, 4}), 2), {3, 4}), true);
    TensorList values = {x * 0.5, {}};
    for (int layer = 0; layer < 2; ++layer)
      values = recomputed ? recompute(segment, {values[0]}) : segment({values[0]});
    const Tensor dx =
        grad({sum(square(values[0])) + values[1]}, {x}, {}, {.create_graph = true})[0];
    return grad({sum(square(dx))}, {weight, gain, x});
  };
  const TensorList plain = penalty(false), again = penalty(true);
  for (size_t i = 0; i < plain.size(); ++i)
    CHECK(difference(again[i].to_vector<double>(), plain[i].to_vector<double>(), DType::f64, 12) ==
          "");
}

TEST_CASE("values that backward recomputes have second gradients", "[twice][recompute]") {
  const auto block = [](const TensorList& in) -> TensorList {
    const RecomputeScope scope(Recompute::norms_activations);
    const Tensor normed = layer_norm(in[0], in[1], in[2]);
    const Tensor hidden = swiglu_packed(linear(normed, in[3]));
    return {linear(hidden, in[4])};
  };
  const auto filled = [](const Shape& shape, uint32_t seed) {
    return Tensor(Array::from(draw(real(shape, -1, 1), seed), shape), true);
  };
  CHECK(gradgradcheck(block, {filled({2, 3, 4}, 1), filled({4}, 2), filled({4}, 3),
                              filled({6, 4}, 4), filled({2, 3}, 5)}) == "");
}

TEST_CASE("second gradients under autocast have the parameters' dtype", "[twice][amp]") {
  for (const char* name : {"bf16", "fp16"}) {
    INFO(name);
    const auto penalty = [&](const char* preset, std::vector<DType>* dtypes) {
      const auto filled = [](const Shape& shape, uint32_t seed) {
        return Tensor(Array::from(draw(real(shape, -1, 1), seed), shape).to(DType::f32), true);
      };
      const Tensor x = filled({6, 8}, 1), weight = filled({8, 8}, 2), bias = filled({8}, 3);
      const Tensor up = filled({16, 8}, 4), down = filled({8, 16}, 5), gain = filled({8}, 6);
      Tensor y;
      {
        const amp::Autocast scope(amp::Preset::parse(preset));
        Tensor h = linear_relu(x, weight, bias);
        h = gelu_mlp(rms_norm(h, gain), up, {}, down, {});
        const Tensor heads = reshape(h, {1, 2, 6, 4});
        y = sum(softmax(to(scaled_dot_product_attention(heads, heads, heads), DType::f32)) *
                reshape(to(h, DType::f32), {1, 2, 6, 4}));
      }
      const TensorList leaves = {x, weight, bias, up, down, gain};
      const Tensor dx = grad({y}, {x}, {}, {.create_graph = true})[0];
      std::vector<Values> result;
      for (const Tensor& gradient : grad({sum(square(dx))}, leaves)) {
        if (dtypes) dtypes->push_back(gradient.dtype());
        result.push_back({gradient.shape(), gradient.to_vector<double>()});
      }
      return result;
    };
    std::vector<DType> dtypes;
    const std::vector<Values> half = penalty(name, &dtypes), full = penalty("fp32", nullptr);
    for (const DType dtype : dtypes) CHECK(dtype == DType::f32);
    const double unit = unit_roundoff(std::string(name) == "bf16" ? DType::bf16 : DType::f16);
    for (size_t i = 0; i < half.size(); ++i) {
      INFO("gradient " << i);
      double error = 0, size = 0;
      for (size_t j = 0; j < half[i].data.size(); ++j) {
        error += std::pow(half[i].data[j] - full[i].data[j], 2);
        size += std::pow(full[i].data[j], 2);
      }
      CHECK(std::sqrt(error) <= 16 * unit * std::sqrt(size));
    }
  }
}
