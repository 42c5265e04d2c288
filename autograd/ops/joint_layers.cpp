#include <binade/autograd/ops/joint_layers.h>

#include <algorithm>
#include <numeric>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>

namespace binade::ops {

namespace {

// Matrices (O_k, I) as one (ΣO_k, I), a view; undefined unless they are contiguous.
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

// Into `slot` dy·weight of this shape, put through the ReLU whose output `y` is.
void relu_input_gradient(GradSlot& slot, const Shape& shape, const Array& dy, const Array& weight,
                         const Array& y) {
  const Array dx = Array::empty(y.shape(), y.dtype(), y.device());
  kernels::MatmulEpilogue drelu;
  drelu.drelu = true;
  drelu.pre_activation = y;
  // On the CPU the matmul that makes the weight's gradient sums it for less.
  if (y.device().is_cuda())
    drelu.out_sums = Array::empty({y.size(1)}, statistics_dtype(y.dtype()), y.device());
  BINADE_DISPATCH(dy.device(), matmul(dy, weight, dx, drelu));
  slot.add_through_relu(dx.reshape(shape), drelu.out_sums);
}

}  // namespace

void JointBackward::operator()(Backward& backward) const {
  run(backward, rows_of(backward.grad()), backward.column_sums());
}

void JointBackward::run(Backward& backward, const Array& dy, const Array& sums) const {
  const std::vector<Array> parts = columns_of(dy, sizes);
  if (!weights.empty()) input_gradient(backward, dy, parts);
  if (sizes.size() == 1)
    return layer_gradients(backward.slot(1).open(), backward.slot(2).open(), dy, sums,
                           [&] { return x.array().reshape(x_rows); });
  if (x.defined()) weight_gradients(backward, dy, parts);
  int64_t first = 0;
  for (size_t k = 0; k < sizes.size(); first += sizes[k++])
    bias_gradient(backward.slot(static_cast<int>(1 + sizes.size() + k)).open(), parts[k],
                  sums.defined() ? sums.slice(0, first, first + sizes[k]) : Array());
}

void JointBackward::operator()(BackwardOnTape& tape) const {
  const int64_t width = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  run(tape, reshape(tape.grad(), {x_rows[0], width}));
}

void JointBackward::run(BackwardOnTape& tape, const Tensor& dy) const {
  const Tensor rows = x.defined() ? tape.input(0, x.array().reshape(x_rows)) : Tensor();
  const int count = static_cast<int>(sizes.size());
  int64_t first = 0;
  for (int k = 0; k < count; ++k) {
    const int weight = 1 + k, bias = 1 + count + k;
    const int64_t size = sizes[static_cast<size_t>(k)];
    const Tensor part = count == 1 ? dy : slice(dy, 1, first, first + size);
    first += size;
    if (!weights.empty() && tape.needed(0)) {
      const Tensor w = tape.input(weight, weights[static_cast<size_t>(k)].array());
      tape.give(0, matmul_as(part, w, tape.input_dtype(0)));
    }
    if (rows.defined() && tape.needed(weight))
      tape.give(weight, matmul_as(transpose(part, 0, 1), rows, tape.input_dtype(weight)));
    if (tape.needed(bias)) tape.give(bias, sum(to(part, statistics_dtype(part.dtype())), {0}));
  }
}

void JointBackward::input_gradient(Backward& backward, const Array& dy,
                                   const std::vector<Array>& parts) const {
  std::vector<Array> w;
  for (const Saved& weight : weights) w.push_back(weight.array());
  const Array all = stacked(w);
  GradSlot& slot = backward.slot(0);
  if (all.defined() && x.defined() && slot.wants_relu_gradient())
    if (const Array y = x.array().reshape(x_rows); y.dtype() == dy.dtype())
      return relu_input_gradient(slot, with_last(backward.grad().shape(), x_rows[1]), dy, all, y);
  GradSlot::Destination to = slot.open();
  if (all.defined()) return matmul_into(to, dy, all);
  for (size_t k = 0; k < w.size(); ++k) {
    matmul_into(to, parts[k], w[k]);
    to.beta = 1;
  }
}

void JointBackward::weight_gradients(Backward& backward, const Array& dy,
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
    return matmul_into({all, to[0].beta}, dy.transpose(0, 1), rows);
  for (size_t k = 0; k < to.size(); ++k) matmul_into(to[k], parts[k].transpose(0, 1), rows);
}

JointLayers::JointLayers(const char* op, const Tensor& x, const TensorList& weights,
                         const TensorList& biases)
    : x_(x), has_biases_(!biases.empty()) {
  check(!weights.empty() && (biases.empty() || biases.size() == weights.size()), op, ": ",
        weights.size(), " weights and ", biases.size(), " biases; give one bias a weight, or none");
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

int64_t JointLayers::width() const {
  return std::accumulate(sizes_.begin(), sizes_.end(), int64_t{0});
}

Array JointLayers::joint_weight() const {
  return has_biases_ ? Array() : stacked(weights_);
}

void JointLayers::forward(const Array& y, const kernels::MatmulEpilogue& epilogue) const {
  const bool plain = !has_biases_ || layers_.size() == 1;
  if (const Array all = plain ? stacked(weights_) : Array(); all.defined()) {
    LinearLayer joint = layers_.front();
    joint.weight = all;
    joint.forward(rows_, y, epilogue);
  } else {
    const std::vector<Array> parts = columns_of(y, sizes_);
    for (size_t k = 0; k < layers_.size(); ++k) layers_[k].forward(rows_, parts[k], epilogue);
  }
}

JointBackward JointLayers::backward() const {
  const auto first = inputs_.begin() + 1;
  const bool needs_x = any_requires_grad(TensorList(first, first + std::ssize(weights_)));
  JointBackward result{sizes_, rows_.shape(), save_input(needs_x, x_, input_), {}};
  if (x_.requires_grad())
    for (const Array& weight : weights_) result.weights.emplace_back(weight);
  return result;
}

}  // namespace binade::ops
