#include <binade/nn/recurrent.h>

#include <cmath>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/linear.h>
#include <binade/autograd/ops/recurrent.h>
#include <binade/autograd/ops/shape.h>
#include <binade/nn/init.h>

namespace binade::nn {

Tensor RecurrentStack::Layer::project(const Tensor& x) const {
  return linear(x, input_weight->tensor(), input_bias ? input_bias->tensor() : Tensor());
}

RecurrentStack::RecurrentStack(const char* name, int64_t gates, int64_t input, int64_t hidden,
                               const RecurrentOptions& options)
    : name_(name), dropout_(options.dropout) {
  check(input > 0 && hidden > 0 && options.layers > 0, name, " needs positive sizes, got ", input,
        " to ", hidden, " in ", options.layers, " layers");
  check(options.dropout >= 0 && options.dropout < 1, name, ": dropout lies in [0, 1), got ",
        options.dropout);
  const double bound = 1 / std::sqrt(static_cast<double>(hidden));
  const Initialiser values = init::uniform(-bound, bound);
  for (int64_t l = 0; l < options.layers; ++l) {
    const auto parameter = [&](const char* part, const Shape& shape) {
      return add_parameter(part + std::to_string(l), shape, values);
    };
    Layer layer;
    layer.input_weight = parameter("weight_ih_l", {gates * hidden, l == 0 ? input : hidden});
    layer.state_weight = parameter("weight_hh_l", {gates * hidden, hidden});
    if (options.bias) {
      layer.input_bias = parameter("bias_ih_l", {gates * hidden});
      layer.state_bias = parameter("bias_hh_l", {gates * hidden});
    }
    layers_.push_back(std::move(layer));
  }
}

void RecurrentStack::check_inputs(const char* what, const Tensor& x, const Tensor& state) const {
  check(x.defined() && x.dims() == 3 && x.size(2) == input_size(), name_, ": x must be (B, T, ",
        input_size(), "), got ", x.defined() ? concat(x.shape()) : "nothing");
  const Shape expected{layers(), x.size(0), hidden_size()};
  check(!state.defined() || state.shape() == expected, name_, ": the ", what, " must be ", expected,
        " for x ", x.shape(), ", got ", state.defined() ? state.shape() : Shape());
}

Tensor RecurrentStack::state_of(const Tensor& state, int64_t index, const Tensor& x) const {
  if (state.defined()) return select(state, 0, index);
  return Tensor::zeros({x.size(0), hidden_size()}, x.dtype(), x.device());
}

Tensor RecurrentStack::dropped(const Tensor& x, int64_t index) const {
  return index > 0 && dropout_ > 0 ? dropout(x, dropout_, training()) : x;
}

std::pair<Tensor, Tensor> Gru::forward(const Tensor& x, const Tensor& state) const {
  check_inputs("state", x, state);
  Tensor outputs = x;
  std::vector<Tensor> last;
  for (int64_t l = 0; l < layers(); ++l) {
    const Tensor projected = layer(l).project(dropped(outputs, l));
    outputs = gru(projected, layer(l).state_weight->tensor(), layer(l).bias_of_state(),
                  state_of(state, l, projected));
    last.push_back(select(outputs, 1, -1));
  }
  return {outputs, stack(last, 0)};
}

std::pair<Tensor, LstmState> Lstm::forward(const Tensor& x, const LstmState& state) const {
  check_inputs("hidden state", x, state.hidden);
  check_inputs("cell", x, state.cell);
  Tensor outputs = x;
  std::vector<Tensor> last, cells;
  for (int64_t l = 0; l < layers(); ++l) {
    const Tensor projected = layer(l).project(dropped(outputs, l));
    auto [states, cell] =
        lstm(projected, layer(l).state_weight->tensor(), layer(l).bias_of_state(),
             state_of(state.hidden, l, projected), state_of(state.cell, l, projected));
    outputs = std::move(states);
    last.push_back(select(outputs, 1, -1));
    cells.push_back(std::move(cell));
  }
  return {outputs, {stack(last, 0), stack(cells, 0)}};
}

}  // namespace binade::nn
