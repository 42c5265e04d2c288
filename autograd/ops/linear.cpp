#include <binade/autograd/ops/linear.h>

#include <algorithm>
#include <numeric>

#include <binade/autograd/ops/common.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/matmul.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;

namespace {

void check_linear(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_floating(op, "x", x);
  check_floating(op, "weight", weight);
  check_device(op, {x, weight, bias});
  check(x.dims() >= 1 && weight.dims() == 2 && x.size(-1) == weight.size(1), op,
        ": x must be (…, I) and weight (O, I), got x ", Kind{x}, " and weight ", Kind{weight},
        "; the weight is stored with the output features first");
  if (!bias.defined()) return;
  check(is_floating(bias.dtype()) && bias.shape() == Shape{weight.size(0)}, op, ": bias must be (",
        weight.size(0), ") for weight ", Kind{weight}, ", got ", Kind{bias});
}

// The operands of one layer, of one dtype.
struct Layer {
  Array weight, bias;

  Layer(const char* op, const Tensor& x, const Array& input, const Tensor& weight_in,
        const Tensor& bias_in)
      : weight(half_operand(weight_in)), bias(half_operand(bias_in)) {
    check(input.dtype() == weight.dtype() && (!bias.defined() || bias.dtype() == weight.dtype()),
          op, ": x ", Kind{x}, ", weight ", Kind{weight_in}, " and bias ", Kind{bias_in},
          " must have one dtype; convert with to(x, dtype) or run under amp::Autocast");
  }

  // y = x·weightᵀ + bias, with the rest of the epilogue.
  void forward(const Array& x, const Array& y, kernels::MatmulEpilogue epilogue = {}) const {
    epilogue.bias = bias;
    BINADE_DISPATCH(x.device(), matmul(x, weight.transpose(0, 1), y, epilogue));
  }
};

// x as the (N, I) rows that a product reads.
Array rows_of(const Array& x) {
  return x.reshape({row_count(x.shape()), x.size(-1)});
}

// What a weight's gradient needs of x: how it is recomputed, if that is known and the product read
// x itself, not a cast of it.
Saved save_input(bool needed, const Tensor& x, const Array& input) {
  if (!needed) return Saved();
  return input.shares_storage(x.array()) ? Saved::recomputed(x) : Saved(input);
}

// to.array = to.beta·to.array + a·b.
void product_into(const GradSlot::Destination& to, const Array& a, const Array& b,
                  kernels::MatmulEpilogue epilogue = {}) {
  if (!to) return;
  epilogue.beta = to.beta;
  BINADE_DISPATCH(a.device(), matmul(a, b, rows_to_write(to.array), epilogue));
}

// The gradient of a bias (O): the column sums of dy, which may be known already.
void bias_gradient(const GradSlot::Destination& to, const Array& dy, const Array& column_sums) {
  if (!to) return;
  if (!column_sums.defined()) {
    BINADE_DISPATCH(dy.device(),
                    reduce(kernels::ReduceOp::sum, dy, to.array.unsqueeze(0), to.beta));
  } else if (to.beta == 0) {
    BINADE_DISPATCH(dy.device(), copy(column_sums, to.array));
  } else {
    BINADE_DISPATCH(dy.device(), axpy(1, column_sums, to.array));
  }
}

// The gradients of a layer's weight (O, I), dyᵀ·x for dy (N, O) and x (N, I), and of its bias (O).
// A product that reads dy can sum it on the way. input() gives x.
template <class Input>
void layer_gradients(const GradSlot::Destination& weight, const GradSlot::Destination& bias,
                     const Array& dy, const Array& column_sums, const Input& input) {
  if (!weight || column_sums.defined()) bias_gradient(bias, dy, column_sums);
  if (!weight) return;
  kernels::MatmulEpilogue epilogue;
  if (bias && !column_sums.defined()) {
    epilogue.a_sums = bias.array;
    epilogue.a_sums_beta = bias.beta;
  }
  product_into(weight, dy.transpose(0, 1), input(), epilogue);
}

// Matrices (O_k, I) as one (ΣO_k, I), a view; undefined unless they lie end to end.
Array stacked(const std::vector<Array>& parts) {
  int64_t rows = 0;
  for (const Array& part : parts) {
    const Array& first = parts.front();
    if (!part.defined() || !part.is_contiguous() || !part.shares_storage(first) ||
        part.dtype() != first.dtype() || part.offset() != first.offset() + rows * first.size(1))
      return Array();
    rows += part.size(0);
  }
  const Array& first = parts.front();
  return Array::view_of(first.storage(), first.dtype(), {rows, first.size(1)}, {first.size(1), 1},
                        first.offset());
}

// y (N, Σ sizes) cut into as many parts along its columns.
std::vector<Array> columns_of(const Array& y, const std::vector<int64_t>& sizes) {
  std::vector<Array> columns;
  int64_t first = 0;
  for (const int64_t size : sizes) {
    columns.push_back(y.slice(1, first, first + size));
    first += size;
  }
  return columns;
}

struct JointBackward {
  std::vector<int64_t> sizes;  // O_k
  Shape x_rows;                // (N, I)
  Saved x;                     // undefined unless a weight wants its gradient
  std::vector<Saved> weights;  // in the dtype of the product; none unless x wants its gradient

  void operator()(Backward& backward) const {
    run(backward, rows_of(backward.grad()), backward.column_sums());
  }

  // From dy (N, ΣO_k) and its column sums, or none, into the slots of x, the weights and the
  // biases.
  void run(Backward& backward, const Array& dy, const Array& sums) const {
    const std::vector<Array> parts = columns_of(dy, sizes);
    if (!weights.empty()) input_gradient(backward.slot(0).open(), dy, parts);
    if (sizes.size() == 1)
      return layer_gradients(backward.slot(1).open(), backward.slot(2).open(), dy, sums,
                             [&] { return x.array().reshape(x_rows); });
    if (x.defined()) weight_gradients(backward, dy, parts);
    int64_t first = 0;
    for (size_t k = 0; k < sizes.size(); first += sizes[k++])
      bias_gradient(backward.slot(static_cast<int>(1 + sizes.size() + k)).open(), parts[k],
                    sums.defined() ? sums.slice(0, first, first + sizes[k]) : Array());
  }

 private:
  void input_gradient(GradSlot::Destination to, const Array& dy,
                      const std::vector<Array>& parts) const {
    std::vector<Array> w;
    for (const Saved& weight : weights) w.push_back(weight.array());
    if (const Array all = stacked(w); all.defined()) return product_into(to, dy, all);
    for (size_t k = 0; k < w.size(); ++k) {
      product_into(to, parts[k], w[k]);
      to.beta = 1;
    }
  }

  void weight_gradients(Backward& backward, const Array& dy,
                        const std::vector<Array>& parts) const {
    const Array rows = x.array().reshape(x_rows);
    std::vector<GradSlot::Destination> to;
    std::vector<Array> arrays;
    for (size_t k = 0; k < sizes.size(); ++k) {
      to.push_back(backward.slot(static_cast<int>(1 + k)).open());
      arrays.push_back(to.back().array);
    }
    const bool alike = std::all_of(to.begin(), to.end(),
                                   [&](const auto& other) { return other.beta == to[0].beta; });
    if (const Array all = alike ? stacked(arrays) : Array(); all.defined())
      return product_into({all, to[0].beta}, dy.transpose(0, 1), rows);
    for (size_t k = 0; k < to.size(); ++k) product_into(to[k], parts[k].transpose(0, 1), rows);
  }
};

bool any_requires_grad(const TensorList& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const Tensor& tensor) {
    return tensor.defined() && tensor.requires_grad();
  });
}

// Layers of one input, side by side.
class JointLayers {
 public:
  JointLayers(const char* op, const Tensor& x, const TensorList& weights, const TensorList& biases)
      : x_(x), has_biases_(!biases.empty()) {
    check(!weights.empty() && (biases.empty() || biases.size() == weights.size()), op, ": ",
          weights.size(), " weights and ", biases.size(),
          " biases; give one bias a weight, or none");
    inputs_ = {x};
    for (size_t k = 0; k < weights.size(); ++k) {
      const Tensor bias = has_biases_ ? biases[k] : Tensor();
      check_linear(op, x, weights[k], bias);
      if (k == 0) input_ = half_operand(x);
      layers_.emplace_back(op, x, input_, weights[k], bias);
      weights_.push_back(layers_.back().weight);
      sizes_.push_back(weights_.back().size(0));
      inputs_.push_back(weights[k]);
    }
    for (const Tensor& bias : biases) inputs_.push_back(bias);
    for (size_t k = biases.size(); k < weights.size(); ++k) inputs_.emplace_back();
    rows_ = rows_of(input_);
  }

  const TensorList& inputs() const { return inputs_; }  // x, the weights, the biases
  const Array& input() const { return input_; }         // x in the dtype of the product
  const Array& rows() const { return rows_; }           // of it (N, I)
  int64_t width() const { return std::accumulate(sizes_.begin(), sizes_.end(), int64_t{0}); }
  // All weights as one (ΣO_k, I), where one product without biases does; else undefined.
  Array joint_weight() const { return has_biases_ ? Array() : stacked(weights_); }

  // y (N, ΣO_k), by rows.
  void forward(const Array& y) const {
    const bool plain = !has_biases_ || layers_.size() == 1;
    if (const Array all = plain ? stacked(weights_) : Array(); all.defined()) {
      Layer joint = layers_.front();
      joint.weight = all;
      joint.forward(rows_, y);
    } else {
      const std::vector<Array> parts = columns_of(y, sizes_);
      for (size_t k = 0; k < layers_.size(); ++k) layers_[k].forward(rows_, parts[k]);
    }
  }

  JointBackward backward() const {
    const auto first = inputs_.begin() + 1;
    const bool needs_x = any_requires_grad(TensorList(first, first + std::ssize(weights_)));
    JointBackward result{sizes_, rows_.shape(), save_input(needs_x, x_, input_), {}};
    if (x_.requires_grad())
      for (const Array& weight : weights_) result.weights.emplace_back(weight);
    return result;
  }

 private:
  Tensor x_;
  bool has_biases_;
  TensorList inputs_;
  Array input_, rows_;
  std::vector<Layer> layers_;
  std::vector<Array> weights_;
  std::vector<int64_t> sizes_;  // O_k
};

Tensor linear_with(const char* op, const Tensor& x, const TensorList& weights,
                   const TensorList& biases) {
  const JointLayers layers(op, x, weights, biases);
  const Array& input = layers.input();
  const Array y = Array::empty(with_last(x.shape(), layers.width()), input.dtype(), input.device());
  layers.forward(rows_to_write(y));
  const bool recorded = grad_enabled() && any_requires_grad(layers.inputs());
  if (!recorded) return record(op, layers.inputs(), {y}, FusedBackward())[0];
  const Tensor result = record(op, layers.inputs(), {y}, FusedBackward(layers.backward()))[0];
  if (any_requires_grad(biases)) want_column_sums(result);
  return result;
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return linear_with("linear", x, {weight}, bias.defined() ? TensorList{bias} : TensorList{});
}

Tensor linear_joint(const Tensor& x, const TensorList& weights, const TensorList& biases) {
  return linear_with("linear_joint", x, weights, biases);
}

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
  const Layer up(op, x, input, up_in, up_bias), down(op, x, input, down_in, down_bias);

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
  const Tensor result = record(
      op, {x, up_in, up_bias, down_in, down_bias}, y,
      [x = save_input(up_in.requires_grad(), x, input), x_rows = rows.shape(),
       pre = Saved(gelu.pre_activation),
       hidden = save_if(keeps_hidden && down_in.requires_grad(), hidden),
       up = save_if(x.requires_grad(), up.weight), down = Saved(down.weight)](Backward& backward) {
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
          // On the CPU the product that makes the weight's gradient sums it for less.
          if (backward.needed(2) && dpre.device().is_cuda())
            dgelu.out_sums =
                Array::empty({dpre.size(1)}, statistics_dtype(dpre.dtype()), dpre.device());
          BINADE_DISPATCH(dy.device(), matmul(dy, down.array(), dpre, dgelu));
        } else if (again) {
          BINADE_DISPATCH(dy.device(), unary(kernels::UnaryOp::gelu_tanh, dgelu.pre_activation,
                                             dgelu.recomputed_gelu));
        }
        layer_gradients(backward.slot(3).open(), backward.slot(4).open(), dy,
                        backward.column_sums(),
                        [&] { return again ? dgelu.recomputed_gelu : hidden.array(); });
        if (!through) return;
        dgelu.recomputed_gelu = Array();  // not needed any more
        layer_gradients(backward.slot(1).open(), backward.slot(2).open(), dpre, dgelu.out_sums,
                        [&] { return x.array().reshape(x_rows); });
        product_into(backward.slot(0).open(), dpre, up.array());
      });
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
  const Layer down(op, x, layers.input(), down_in, down_bias);
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
             FusedBackward([gate_of, up_of, pre = Saved(pre), joint = layers.backward(),
                            hidden = save_if(keeps_hidden && down_in.requires_grad(), hidden),
                            down = Saved(down.weight)](Backward& backward) {
               const Array dy = rows_of(backward.grad()), before = pre.array();
               const auto recompute_hidden = [&] {
                 const Array again =
                     Array::empty(gate_of(before).shape(), before.dtype(), before.device());
                 BINADE_DISPATCH(again.device(), swiglu(gate_of(before), up_of(before), again));
                 return again;
               };
               layer_gradients(
                   backward.slot(5).open(), backward.slot(6).open(), dy, backward.column_sums(),
                   [&] { return hidden.defined() ? hidden.array() : recompute_hidden(); });
               bool through = false;
               for (int slot = 0; slot < 5; ++slot) through |= backward.needed(slot);
               if (!through) return;
               const Array dpre = empty_like(before);
               BINADE_DISPATCH(dy.device(),
                               matmul_swiglu_backward(dy, down.array(), gate_of(before),
                                                      up_of(before), gate_of(dpre), up_of(dpre)));
               joint.run(backward, dpre, {});
             }))[0];
  if (any_requires_grad({down_bias})) want_column_sums(result);
  return result;
}

}  // namespace binade
