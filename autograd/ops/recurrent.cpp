#include <binade/autograd/ops/recurrent.h>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/linear_layer.h>
#include <binade/autograd/ops/recurrent_on_tape.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/recurrent.h>

namespace binade {

using namespace ops;

namespace {

// Whether kernels take all steps at once.
bool takes_sequence(const Array& array) {
  return array.device().is_cpu() && array.numel() > 0 &&
         kernels::cpu::takes_sequences(array.dtype());
}

// What GRU and LSTM are given, checked, as their kernels read it.
struct Recurrence {
  Tensor x, state;     // (B, T, G·H), (B, H)
  Array rows, weight;  // (B, T, G·H), (G·H, H)
  Array bias;          // (G·H) or undefined
  Array first;         // (B, H)

  Recurrence(const char* op, int64_t gates, const Tensor& x_in, const Tensor& weight_in,
             const Tensor& bias_in, const Tensor& state_in);

  int64_t batch() const { return rows.size(0); }
  int64_t steps() const { return rows.size(1); }
  int64_t width() const { return first.size(1); }
  DType wide() const { return statistics_dtype(rows.dtype()); }
  Array empty(const Shape& shape) const { return Array::empty(shape, rows.dtype(), rows.device()); }
  Array empty_wide(const Shape& shape) const { return Array::empty(shape, wide(), rows.device()); }
};

Recurrence::Recurrence(const char* op, int64_t gates, const Tensor& x_in, const Tensor& weight_in,
                       const Tensor& bias_in, const Tensor& state_in) {
  check_floating(op, "x", x_in);
  check_floating(op, "weight", weight_in);
  check_floating(op, "state", state_in);
  check_device(op, {x_in, weight_in, bias_in, state_in});
  check(weight_in.dims() == 2 && weight_in.size(1) > 0 &&
            weight_in.size(0) == gates * weight_in.size(1),
        op, ": weight must be (", gates, "·H, H), got ", Kind{weight_in});
  const int64_t hidden = weight_in.size(1);
  check(x_in.dims() == 3 && x_in.size(2) == gates * hidden && x_in.size(1) > 0, op,
        ": x must be (B, T, ", gates * hidden, ") with a step at least for weight ",
        Kind{weight_in}, ", got ", Kind{x_in});
  check(state_in.shape() == Shape{x_in.size(0), hidden}, op, ": the state must be (", x_in.size(0),
        ", ", hidden, ") for x ", Kind{x_in}, ", got ", Kind{state_in});
  check(!bias_in.defined() ||
            (is_floating(bias_in.dtype()) && bias_in.shape() == Shape{gates * hidden}),
        op, ": bias must be (", gates * hidden, ") for weight ", Kind{weight_in}, ", got ",
        Kind{bias_in});
  x = autocast(PrecisionClass::half, x_in);
  state = autocast(PrecisionClass::half, state_in);
  rows = x.array().contiguous();
  first = state.array().contiguous();
  weight = half_operand(weight_in).contiguous();
  bias = half_operand(bias_in);
  if (bias.defined()) bias = bias.contiguous();
  check(rows.dtype() == weight.dtype() && first.dtype() == weight.dtype() &&
            (!bias.defined() || bias.dtype() == weight.dtype()),
        op, ": x ", Kind{x}, ", weight ", Kind{weight_in}, ", bias ", Kind{bias_in}, " and state ",
        Kind{state},
        " must have one dtype; convert with to(x, dtype) or run under "
        "amp::Autocast");
}

// The state in front of step t.
Array state_before(const Array& first, const Array& states, int64_t t) {
  return t == 0 ? first : states.select(1, t - 1);
}

// sums (B, G·H) = state · weightᵀ.
void multiply(const Array& state, const Array& weight, const Array& sums) {
  BINADE_DISPATCH(sums.device(), matmul(state, weight.transpose(0, 1), sums, {}));
}

// What a backward pass keeps of a forward pass, and what both kinds do behind their last step.
struct SavedRecurrence {
  Saved weight, first, states;  // (G·H, H), (B, H), (B, T, H)
  Array kept;                   // (T, B, 4H)

  // carry (B, H) = beta·carry + dsums (B, G·H) · weight.
  void carry_back(const Array& dsums, float beta, const Array& carry) const {
    kernels::MatmulEpilogue epilogue;
    epilogue.beta = beta;
    BINADE_DISPATCH(carry.device(), matmul(dsums, weight.array(), carry, epilogue));
  }

  // The gradients of weight, bias and state from those of all steps' sums (B, T, G·H).
  void finish(Backward& backward, const Array& dsums, const Array& carry) const {
    const auto states_before = [&] {
      const Array all = states.array();
      const Array before = empty_like(all);
      BINADE_DISPATCH(all.device(), copy(first.array(), before.select(1, 0)));
      BINADE_DISPATCH(all.device(), copy(all.slice(1, 0, all.size(1) - 1), before.slice(1, 1)));
      return rows_of(before);
    };
    layer_gradients(backward.slot(1).open(), backward.slot(2).open(), rows_of(dsums), {},
                    states_before);
    if (backward.needed(3)) backward.slot(3).add(carry.to(states.array().dtype()));
  }
};

// The gradient of the states, zeros where only the cell was used.
Array state_gradient(const Array& given, const Array& states) {
  if (given.defined()) return given.stride(-1) == 1 ? given : given.contiguous();
  return Array::zeros(states.shape(), states.dtype(), states.device());
}

struct GruGradient {
  SavedRecurrence saved;

  void operator()(Backward& backward) const {
    const Array states = saved.states.array(), first = saved.first.array();
    const Array dstates = state_gradient(backward.grad(), states);
    const int64_t batch = states.size(0), steps = states.size(1), width = states.size(2);
    const Array dx = Array::empty({batch, steps, 3 * width}, states.dtype(), states.device());
    const Array dsums = empty_like(dx);
    const Array carry =
        Array::zeros({batch, width}, statistics_dtype(states.dtype()), states.device());
    if (takes_sequence(states)) {
      kernels::cpu::gru_sequence_backward(dstates, saved.weight.array(), first, states, saved.kept,
                                          carry, dx, dsums, backward.needed(3));
    } else {
      for (int64_t t = steps - 1; t >= 0; --t) {
        BINADE_DISPATCH(states.device(),
                        gru_step_backward(dstates.select(1, t), saved.kept.select(0, t),
                                          state_before(first, states, t), carry, dx.select(1, t),
                                          dsums.select(1, t)));
        if (t > 0 || backward.needed(3)) saved.carry_back(dsums.select(1, t), 1, carry);
      }
    }
    backward.slot(0).add(dx);
    saved.finish(backward, dsums, carry);
  }

  void operator()(BackwardOnTape& tape) const {
    const StepsOnTape steps(tape, saved.weight.array(), saved.kept, step_gradients);
    const int64_t width = saved.first.array().size(1);
    Tensor state = to(tape.input(3, saved.first.array()), steps.dtype());
    std::vector<Tensor> states;
    for (int64_t t = 0; t < steps.count(); ++t) {
      const Tensor kept = steps.kept(t, state);
      const Tensor z = part_of(kept, 1, width), n = part_of(kept, 2, width);
      state = (1 - z) * n + z * state;
      states.push_back(state);
    }
    tape.through(stack(states, 1), tape.grad());
  }

 private:
  // Kept are r, z, n and what r is multiplied by.
  static std::pair<Tensor, Tensor> step_gradients(const Tensor& kept, const Tensor& dkept) {
    const int64_t width = kept.size(-1) / 4;
    const auto value = [&](int64_t i) { return part_of(kept, i, width); };
    const auto given = [&](int64_t i) { return part_of(dkept, i, width); };
    const Tensor r = value(0), z = value(1), inner = value(3);
    const Tensor dn = given(2) * (1 - square(value(2)));
    const Tensor dr = (given(0) + dn * inner) * (r * (1 - r)), dz = given(1) * (z * (1 - z));
    return {cat({dr, dz, dn}, -1), cat({dr, dz, given(3) + dn * r}, -1)};
  }
};

struct LstmGradient {
  SavedRecurrence saved;
  Array cells;  // (T + 1, B, H)

  void operator()(Backward& backward) const {
    const Array states = saved.states.array();
    const Array dstates = state_gradient(backward.grad(0), states);
    const int64_t batch = states.size(0), steps = states.size(1), width = states.size(2);
    const Array da = Array::empty({batch, steps, 4 * width}, states.dtype(), states.device());
    const Array carry = Array::zeros({batch, width}, cells.dtype(), states.device());
    const Array dcell = backward.grad(1).defined()
                            ? backward.grad(1).clone()
                            : Array::zeros({batch, width}, cells.dtype(), states.device());
    if (takes_sequence(states)) {
      kernels::cpu::lstm_sequence_backward(dstates, saved.weight.array(), cells, saved.kept, carry,
                                           dcell, da, backward.needed(3));
    } else {
      for (int64_t t = steps - 1; t >= 0; --t) {
        BINADE_DISPATCH(
            states.device(),
            lstm_step_backward(dstates.select(1, t), carry, saved.kept.select(0, t),
                               cells.select(0, t), cells.select(0, t + 1), dcell, da.select(1, t)));
        if (t > 0 || backward.needed(3)) saved.carry_back(da.select(1, t), 0, carry);
      }
    }
    backward.slot(0).add(da);
    saved.finish(backward, da, carry);
    backward.slot(4).add(dcell);
  }

  void operator()(BackwardOnTape& tape) const {
    const StepsOnTape steps(tape, saved.weight.array(), saved.kept, step_gradients);
    const int64_t width = cells.size(2);
    Tensor state = to(tape.input(3, saved.first.array()), steps.dtype());
    Tensor cell = tape.input(4, cells.select(0, 0));
    std::vector<Tensor> states;
    for (int64_t t = 0; t < steps.count(); ++t) {
      const Tensor gates = steps.kept(t, state);
      const auto gate = [&](int64_t i) { return part_of(gates, i, width); };
      cell = gate(1) * cell + gate(0) * gate(2);
      state = gate(3) * tanh(cell);
      states.push_back(state);
    }
    if (tape.grad(0).defined()) tape.through(stack(states, 1), tape.grad(0));
    if (tape.grad(1).defined()) tape.through(cell, tape.grad(1));
  }

 private:
  // Kept are the gates i, f, g, o.
  static std::pair<Tensor, Tensor> step_gradients(const Tensor& kept, const Tensor& dkept) {
    const int64_t width = kept.size(-1) / 4;
    const Tensor g = part_of(kept, 2, width), logistic = kept * (1 - kept);
    const Tensor slopes =
        cat({slice(logistic, -1, 0, 2 * width), 1 - square(g), slice(logistic, -1, 3 * width)}, -1);
    const Tensor da = dkept * slopes;
    return {da, da};
  }
};

}  // namespace

Tensor gru(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& state) {
  const Recurrence in("gru", 3, x, weight, bias, state);
  const int64_t batch = in.batch(), steps = in.steps(), width = in.width();
  const bool recorded = will_record({in.x, weight, bias, in.state});
  const Array states = in.empty({batch, steps, width});
  const Array kept = recorded ? in.empty({steps, batch, 4 * width}) : Array();
  if (takes_sequence(in.rows)) {
    kernels::cpu::gru_sequence(in.rows, in.weight, in.bias, in.first, states, kept);
  } else {
    const Array sums = in.empty_wide({batch, 3 * width});
    for (int64_t t = 0; t < steps; ++t) {
      const Array before = state_before(in.first, states, t);
      multiply(before, in.weight, sums);
      BINADE_DISPATCH(states.device(),
                      gru_step(in.rows.select(1, t), sums, in.bias, before, states.select(1, t),
                               recorded ? kept.select(0, t) : Array()));
    }
  }
  return record("gru", {in.x, weight, bias, in.state}, states,
                GruGradient{{save_if(recorded, in.weight), save_if(recorded, in.first),
                             save_if(recorded, states), kept}});
}

std::pair<Tensor, Tensor> lstm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Tensor& state, const Tensor& cell_in) {
  const Recurrence in("lstm", 4, x, weight, bias, state);
  check_floating("lstm", "cell", cell_in);
  check_device("lstm", {x, cell_in});
  check(cell_in.shape() == in.first.shape(), "lstm: the cell must be as the state, ",
        in.first.shape(), ", got ", Kind{cell_in});
  const Tensor cell = to(cell_in, in.wide());
  const int64_t batch = in.batch(), steps = in.steps(), width = in.width();
  const TensorList inputs = {in.x, weight, bias, in.state, cell};
  const bool recorded = will_record({in.x, weight, bias, in.state, cell});
  const Array states = in.empty({batch, steps, width});
  const Array kept = recorded ? in.empty({steps, batch, 4 * width}) : Array();
  // Without a backward pass two are enough, in turn.
  const int64_t count = recorded ? steps + 1 : std::min<int64_t>(steps + 1, 2);
  const Array cells = in.empty_wide({count, batch, width});
  BINADE_DISPATCH(cells.device(), copy(cell.array(), cells.select(0, 0)));
  if (takes_sequence(in.rows)) {
    kernels::cpu::lstm_sequence(in.rows, in.weight, in.bias, in.first, cells, states, kept);
  } else {
    const Array sums = in.empty_wide({batch, 4 * width});
    for (int64_t t = 0; t < steps; ++t) {
      multiply(state_before(in.first, states, t), in.weight, sums);
      BINADE_DISPATCH(states.device(),
                      lstm_step(in.rows.select(1, t), sums, in.bias, cells.select(0, t % count),
                                cells.select(0, (t + 1) % count), states.select(1, t),
                                recorded ? kept.select(0, t) : Array()));
    }
  }
  const Array last = cells.select(0, steps % count).clone();
  const TensorList results =
      record("lstm", inputs, std::vector<Array>{states, last},
             LstmGradient{{save_if(recorded, in.weight), save_if(recorded, in.first),
                           save_if(recorded, states), kept},
                          cells});
  return {results[0], results[1]};
}

}  // namespace binade
