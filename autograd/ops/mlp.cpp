#include <binade/autograd/ops/mlp.h>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/joint_layers.h>
#include <binade/autograd/ops/matmul.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>

namespace binade {

using namespace ops;

namespace {

// The feed-forward layers' second layer, on the tape: gradients of its weight, `down`, and of the
// bias behind it, and a walk through `hidden`, what it reads.
void down_on_tape(BackwardOnTape& tape, const Tensor& hidden, int slot, const Array& down) {
  const Tensor dy = reshape(tape.grad(), {hidden.size(0), down.size(0)});
  if (tape.needed(slot))
    tape.give(slot, matmul_as(transpose(dy, 0, 1), hidden, tape.input_dtype(slot)));
  if (tape.needed(slot + 1)) tape.give(slot + 1, sum(to(dy, statistics_dtype(dy.dtype())), {0}));
  tape.through(hidden, matmul(dy, tape.input(slot, down)));
}

// What was computed from the op's first `count` inputs, whose gradients are those of `layers`.
Tensor known_layers(const BackwardOnTape& tape, int count, const Array& value,
                    const JointBackward& layers) {
  TensorList inputs;
  for (int i = 0; i < count; ++i) inputs.push_back(tape.input(i));
  return record("linear", inputs, {value}, layers)[0];
}

struct GeluMlpGradient {
  JointBackward up;
  Saved pre, hidden, down;

  void operator()(Backward& backward) const {
    const Array dy = rows_of(backward.grad());
    const bool through = backward.needed(0) || backward.needed(1) || backward.needed(2);
    const bool again = !hidden.defined() && backward.needed(3);
    kernels::MatmulEpilogue dgelu;
    dgelu.dgelu = true;
    dgelu.pre_activation = pre.array();
    if (again) dgelu.recomputed_gelu = empty_like(dgelu.pre_activation);
    Array dpre;
    if (through) {
      dpre = empty_like(dgelu.pre_activation);
      // On the CPU the matmul that makes the weight's gradient sums it for less.
      if (backward.needed(2) && dpre.device().is_cuda())
        dgelu.out_sums =
            Array::empty({dpre.size(1)}, statistics_dtype(dpre.dtype()), dpre.device());
      BINADE_DISPATCH(dy.device(), matmul(dy, down.array(), dpre, dgelu));
    } else if (again) {
      BINADE_DISPATCH(dy.device(), unary(kernels::UnaryOp::gelu_tanh, dgelu.pre_activation,
                                         dgelu.recomputed_gelu));
    }
    layer_gradients(backward.slot(3).open(), backward.slot(4).open(), dy, backward.column_sums(),
                    [&] { return again ? dgelu.recomputed_gelu : hidden.array(); });
    if (!through) return;
    dgelu.recomputed_gelu = Array();  // not needed any more
    up.run(backward, dpre, dgelu.out_sums);
  }

  void operator()(BackwardOnTape& tape) const {
    down_on_tape(tape, gelu_tanh(known_layers(tape, 3, pre.array(), up)), 3, down.array());
  }
};

struct SwigluMlpGradient {
  JointBackward joint;
  Saved pre, hidden, down;

  Array gate_of(const Array& both) const { return both.slice(1, 0, joint.sizes[0]); }
  Array up_of(const Array& both) const { return both.slice(1, joint.sizes[0]); }

  Array recompute_hidden() const {
    const Array before = pre.array();
    const Array again = Array::empty(gate_of(before).shape(), before.dtype(), before.device());
    BINADE_DISPATCH(again.device(), swiglu(gate_of(before), up_of(before), again));
    return again;
  }

  void operator()(Backward& backward) const {
    const Array dy = rows_of(backward.grad()), before = pre.array();
    layer_gradients(backward.slot(5).open(), backward.slot(6).open(), dy, backward.column_sums(),
                    [&] { return hidden.defined() ? hidden.array() : recompute_hidden(); });
    bool through = false;
    for (int slot = 0; slot < 5; ++slot) through |= backward.needed(slot);
    if (!through) return;
    const Array dpre = empty_like(before);
    BINADE_DISPATCH(dy.device(), matmul_swiglu_backward(dy, down.array(), gate_of(before),
                                                        up_of(before), gate_of(dpre), up_of(dpre)));
    joint.run(backward, dpre, {});
  }

  void operator()(BackwardOnTape& tape) const {
    const Tensor both = known_layers(tape, 5, pre.array(), joint);
    const int64_t width = joint.sizes[0];
    down_on_tape(tape, swiglu(slice(both, 1, 0, width), slice(both, 1, width)), 5, down.array());
  }
};

}  // namespace

Tensor gelu_mlp(const Tensor& x, const Tensor& up_in, const Tensor& up_bias, const Tensor& down_in,
                const Tensor& down_bias) {
  const char* op = "gelu_mlp";
  check_linear(op, x, up_in, up_bias);
  check_floating(op, "down", down_in);
  check_device(op, {x, down_in, down_bias});
  check(down_in.dims() == 2 && down_in.size(1) == up_in.size(0), op,
        ": down must be (O, H) for up ", Kind{up_in}, ", got ", Kind{down_in});
  check(!down_bias.defined() || down_bias.shape() == Shape{down_in.size(0)}, op,
        ": down_bias must be (", down_in.size(0), "), got ", Kind{down_bias});
  const Array input = half_operand(x);
  const LinearLayer up(op, x, input, up_in, up_bias), down(op, x, input, down_in, down_bias);

  const Array rows = rows_of(input);
  const Array hidden = Array::empty({rows.size(0), up.weight.size(0)}, rows.dtype(), rows.device());
  const Array y =
      Array::empty(with_last(x.shape(), down.weight.size(0)), rows.dtype(), rows.device());
  const bool recorded = will_record({x, up_in, up_bias, down_in, down_bias});
  kernels::MatmulEpilogue gelu;
  gelu.gelu = true;
  if (recorded) gelu.pre_activation = empty_like(hidden);
  up.forward(rows, hidden, gelu);
  down.forward(hidden, rows_to_write(y));
  if (!recorded) return record(op, {x, up_in, up_bias, down_in, down_bias}, y, FusedBackward());

  const bool keeps_hidden = !recomputes(Recompute::activations);
  JointBackward first{
      {up.weight.size(0)}, rows.shape(), save_input(up_in.requires_grad(), x, input), {}};
  if (x.requires_grad()) first.weights.emplace_back(up.weight);
  const Tensor result =
      record(op, {x, up_in, up_bias, down_in, down_bias}, y,
             GeluMlpGradient{std::move(first), Saved(gelu.pre_activation),
                             save_if(keeps_hidden && down_in.requires_grad(), hidden),
                             Saved(down.weight)});
  if (any_requires_grad({down_bias})) want_column_sums(result);
  return result;
}

Tensor swiglu_mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down_in,
                  const TensorList& biases) {
  const char* op = "swiglu_mlp";
  check(biases.empty() || biases.size() == 3, op, ": ", biases.size(),
        " biases; give those of gate, up and down, or none");
  const Tensor down_bias = biases.empty() ? Tensor() : biases[2];
  const JointLayers layers(op, x, {gate, up},
                           biases.empty() ? TensorList() : TensorList{biases[0], biases[1]});
  check_floating(op, "down", down_in);
  check_device(op, {x, down_in, down_bias});
  check(gate.size(0) == up.size(0) && down_in.dims() == 2 && down_in.size(1) == up.size(0), op,
        ": gate and up must be (H, I) and down (O, H), got gate ", Kind{gate}, ", up ", Kind{up},
        " and down ", Kind{down_in});
  check(!down_bias.defined() || down_bias.shape() == Shape{down_in.size(0)}, op,
        ": the bias of down must be (", down_in.size(0), "), got ", Kind{down_bias});
  const LinearLayer down(op, x, layers.input(), down_in, down_bias);
  TensorList inputs = layers.inputs();
  inputs.push_back(down_in);
  inputs.push_back(down_bias);
  const bool recorded = grad_enabled() && any_requires_grad(inputs);

  const Array& rows = layers.rows();
  const int64_t width = up.size(0);
  const auto make = [&rows](const Shape& shape) {
    return Array::empty(shape, rows.dtype(), rows.device());
  };
  const auto gate_of = [width](const Array& pre) { return pre.slice(1, 0, width); };
  const auto up_of = [width](const Array& pre) { return pre.slice(1, width); };
  const Array joint = layers.joint_weight(), hidden = make({rows.size(0), width});
  const Array pre = recorded || !joint.defined() ? make({rows.size(0), 2 * width}) : Array();
  if (joint.defined()) {
    BINADE_DISPATCH(rows.device(), matmul_swiglu(rows, joint, pre, hidden));
  } else {
    layers.forward(pre);
    BINADE_DISPATCH(rows.device(), swiglu(gate_of(pre), up_of(pre), hidden));
  }
  const Array y = make(with_last(x.shape(), down_in.size(0)));
  down.forward(hidden, rows_to_write(y));
  if (!recorded) return record(op, inputs, {y}, FusedBackward())[0];

  const bool keeps_hidden = !recomputes(Recompute::activations);
  const Tensor result =
      record(op, inputs, {y},
             SwigluMlpGradient{layers.backward(), Saved(pre),
                               save_if(keeps_hidden && down_in.requires_grad(), hidden),
                               Saved(down.weight)})[0];
  if (any_requires_grad({down_bias})) want_column_sums(result);
  return result;
}

}  // namespace binade
