// Recurrent layers, from their formulas, a step and a unit at a time.
#include <cmath>

#include <binade/autograd/ops/recurrent.h>

#include "op_table.h"

namespace binade::test {

namespace {

double sigmoid_of(double x) {
  return 1 / (1 + std::exp(-x));
}

// Σ of row `row` of weight (·, H) with the state of b.
double of_state(const Values& weight, const Values* bias, int64_t row, const Values& state,
                int64_t b) {
  double sum = bias ? (*bias)({row}) : 0;
  for (int64_t k = 0; k < state.size(1); ++k) sum += weight({row, k}) * state({b, k});
  return sum;
}

void store(Values& states, const Values& state, int64_t t) {
  for (int64_t b = 0; b < state.size(0); ++b)
    for (int64_t i = 0; i < state.size(1); ++i)
      states.data[static_cast<size_t>((b * states.size(1) + t) * states.size(2) + i)] =
          state({b, i});
}

Values gru_of(const Values& x, const Values& weight, const Values* bias, Values state) {
  const int64_t width = state.size(1);
  Values states = fill({x.size(0), x.size(1), width}, [](const Index&) { return 0.0; });
  for (int64_t t = 0; t < x.size(1); ++t) {
    state = fill(state.shape, [&](const Index& at) {
      const int64_t b = at[0], i = at[1];
      const double r = sigmoid_of(x({b, t, i}) + of_state(weight, bias, i, state, b));
      const double z =
          sigmoid_of(x({b, t, width + i}) + of_state(weight, bias, width + i, state, b));
      const double n =
          std::tanh(x({b, t, 2 * width + i}) + r * of_state(weight, bias, 2 * width + i, state, b));
      return (1 - z) * n + z * state({b, i});
    });
    store(states, state, t);
  }
  return states;
}

Lists lstm_of(const Values& x, const Values& weight, const Values* bias, Values state,
              Values cell) {
  const int64_t width = state.size(1);
  Values states = fill({x.size(0), x.size(1), width}, [](const Index&) { return 0.0; });
  for (int64_t t = 0; t < x.size(1); ++t) {
    const auto gate = [&](int64_t which, const Index& at) {
      const int64_t row = which * width + at[1];
      return x({at[0], t, row}) + of_state(weight, bias, row, state, at[0]);
    };
    cell = fill(cell.shape, [&](const Index& at) {
      return sigmoid_of(gate(1, at)) * cell(at) + sigmoid_of(gate(0, at)) * std::tanh(gate(2, at));
    });
    state = fill(state.shape,
                 [&](const Index& at) { return sigmoid_of(gate(3, at)) * std::tanh(cell(at)); });
    store(states, state, t);
  }
  return {states, cell};
}

}  // namespace

void add_recurrent_rows(OpTable& table) {
  // The state is rounded at every step, and so are the gates that backward reads. The cell is not,
  // but comes of rounded states: it is compared as they are.
  for (const bool with_bias : {true, false}) {
    std::vector<Input> inputs = {real({2, 3, 12}), real({12, 4}, -0.5, 0.5), real({2, 4}, -1, 1)};
    if (with_bias) inputs.push_back(real({12}));
    table
        .add(
            "gru", with_bias ? "" : "no bias", inputs,
            [=](const TensorList& in) -> TensorList {
              return {gru(in[0], in[1], with_bias ? in[3] : Tensor(), in[2])};
            },
            [=](const Lists& in) -> Lists {
              return {gru_of(in[0], in[1], with_bias ? &in[3] : nullptr, in[2])};
            })
        .rounded(4)
        .of_one_size();
    inputs = {real({2, 3, 16}), real({16, 4}, -0.5, 0.5), real({2, 4}, -1, 1), real({2, 4}, -1, 1)};
    if (with_bias) inputs.push_back(real({16}));
    table
        .add(
            "lstm", with_bias ? "" : "no bias", inputs,
            [=](const TensorList& in) -> TensorList {
              const auto [states, cell] =
                  lstm(in[0], in[1], with_bias ? in[4] : Tensor(), in[2], in[3]);
              return {states, to(cell, in[0].dtype())};
            },
            [=](const Lists& in) -> Lists {
              return lstm_of(in[0], in[1], with_bias ? &in[4] : nullptr, in[2], in[3]);
            })
        .rounded(4)
        .of_one_size();
  }
  table
      .add(
          "lstm", "the cell alone",
          {real({2, 2, 16}), real({16, 4}, -0.5, 0.5), real({2, 4}, -1, 1), real({2, 4}, -1, 1)},
          [](const TensorList& in) -> TensorList {
            return {to(lstm(in[0], in[1], {}, in[2], in[3]).second, in[0].dtype())};
          },
          [](const Lists& in) -> Lists {
            return {lstm_of(in[0], in[1], nullptr, in[2], in[3])[1]};
          })
      .rounded(4)
      .of_one_size();
}

}  // namespace binade::test
