#include <binade/autograd/ops/multi_head_loss.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/kept_gradient.h>
#include <binade/autograd/ops/linear_layer.h>
#include <binade/autograd/ops/logit_chunks.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/loss.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;
using kernels::RowStatistics;

namespace {

constexpr const char* kOp = "multi_head_loss";

const Tensor& hidden_of(const DecodingHead& head, const Tensor& shared) {
  return head.hidden.defined() ? head.hidden : shared;
}

// ---- checks -------------------------------------------------------------------------------------

void check_rows(const std::string& what, const Tensor& hidden, const Tensor& labels) {
  check_floating(kOp, what.c_str(), hidden);
  bool same = hidden.dims() == labels.dims();
  for (int i = 1; same && i < labels.dims(); ++i) same = hidden.size(i - 1) == labels.size(i);
  check(same, kOp, ": ", what, " must be (…, D) for labels (K, …), got ", what, ' ', Kind{hidden},
        " and labels ", Kind{labels});
}

void check_teacher(const std::string& name, const DecodingHead& head, const Tensor& labels) {
  const Teacher& teacher = *head.teacher;
  check_rows(name + "'s teacher.hidden", teacher.hidden, labels);
  check_constant(kOp, "teacher.hidden", teacher.hidden);
  check_constant(kOp, "teacher.weight", teacher.weight);
  check_floating(kOp, "teacher.weight", teacher.weight);
  check(teacher.weight.dims() == 2 && teacher.weight.size(0) == head.weight.size(0) &&
            teacher.weight.size(1) == teacher.hidden.size(-1),
        kOp, ": ", name, "'s teacher has hidden ", Kind{teacher.hidden}, " and weight ",
        Kind{teacher.weight}, ", which must be (V, D') with the V of the head's weight ",
        Kind{head.weight});
  check(teacher.temperature > 0 && std::isfinite(teacher.temperature), kOp, ": ", name,
        "'s teacher needs a temperature above 0, got ", teacher.temperature);
  check(teacher.shift >= 0, kOp, ": ", name, "'s teacher.shift must be at least 0, got ",
        teacher.shift);
}

void check_head(size_t k, const std::vector<DecodingHead>& heads, const Tensor& shared,
                const Tensor& labels) {
  const std::string name = concat("head ", k);
  const DecodingHead& head = heads[k];
  const Tensor& hidden = hidden_of(head, shared);
  check(hidden.defined(), kOp, ": ", name,
        " has no hidden rows of its own, and none are given for all");
  check_rows(head.hidden.defined() ? name + "'s hidden" : "hidden", hidden, labels);
  check_floating(kOp, "weight", head.weight);
  check(head.weight.dims() == 2 && head.weight.size(1) == hidden.size(-1) &&
            head.weight.size(0) == heads[0].weight.size(0) && head.weight.size(0) > 0,
        kOp, ": ", name, "'s weight must be (V, D) with the V of all heads, got ",
        Kind{head.weight}, " for hidden ", Kind{hidden}, " and head 0's ", Kind{heads[0].weight});
  for (const double value : {head.coefficient, head.hard, head.soft, head.acceptance})
    check(value >= 0 && std::isfinite(value), kOp, ": ", name,
          "'s coefficients must be finite and at least 0, got ", value);
  check(head.teacher || (head.soft == 0 && head.acceptance == 0), kOp, ": ", name,
        " has soft or acceptance above 0 and no teacher; give it one");
  for (const ResidualBlock& block : head.blocks) {
    check_linear(kOp, hidden, block.weight, block.bias);
    check(block.weight.size(0) == hidden.size(-1), kOp, ": ", name,
          "'s block needs a weight (D, D), got ", Kind{block.weight}, " for hidden ", Kind{hidden});
    check_device(kOp, {labels, block.weight, block.bias});
  }
  check_device(kOp, {labels, hidden, head.weight});
  if (!head.teacher) return;
  check_teacher(name, head, labels);
  check_device(kOp, {labels, head.teacher->hidden, head.teacher->weight});
}

void check_arguments(const Tensor& hidden, const std::vector<DecodingHead>& heads,
                     const Tensor& labels, const MultiHeadLossOptions& options) {
  check(!heads.empty(), kOp, " needs at least one head");
  check_index(kOp, "labels", labels);
  const auto count = static_cast<int64_t>(heads.size());
  check(labels.dims() >= 1 && labels.size(0) == count, kOp, ": labels must be (K, …) for ", count,
        " heads, got ", Kind{labels});
  for (size_t k = 0; k < heads.size(); ++k) check_head(k, heads, hidden, labels);
  const Tensor& normalisers = options.normalisers;
  check_device(kOp, {labels, normalisers});
  check_constant(kOp, "normalisers", normalisers);
  check(!normalisers.defined() ||
            (is_floating(normalisers.dtype()) && normalisers.shape() == Shape{count}),
        kOp, ": normalisers must be (", count, ") f32, got ", Kind{normalisers});
  check(options.classes >= 0 && options.classes <= heads[0].weight.size(0), kOp,
        ": there cannot be ", options.classes, " classes in logits of ", heads[0].weight.size(0),
        " columns");
}

// ---- inputs and their gradients -----------------------------------------------------------------

// The tensors that the op is recorded on, each once, with the gradients made for them.
class Inputs {
 public:
  // `scaled`: the gradients carry a loss scale.
  explicit Inputs(bool scaled) : scaled_(scaled) {}

  size_t add(const Tensor& tensor) {
    for (size_t i = 0; i < tensors_.size(); ++i)
      if (tensors_[i].state() == tensor.state()) return i;
    tensors_.push_back(tensor);
    kept_.emplace_back();
    return tensors_.size() - 1;
  }
  const TensorList& tensors() const { return tensors_; }
  bool wants(const Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }
  KeptGradient& kept(const Tensor& tensor) { return kept_[add(tensor)]; }
  std::vector<KeptGradient> take_kept() { return std::move(kept_); }

  void expect(const Tensor& tensor, bool in_parts = false) {
    if (wants(tensor)) kept(tensor).expect(in_parts);
  }
  // body(destination) writes the gradient of a parameter; an undefined one is not wanted.
  GradSlot::Destination open(const Tensor& tensor) {
    if (!wants(tensor)) return {};
    // Sums over rows, without a loss scale, may be beyond f16's range either way.
    const bool wide = tensor.dtype() == DType::f16 && !scaled_;
    return kept(tensor).open(tensor, wide ? DType::f32 : tensor.dtype());
  }
  GradSlot::Destination open_rows(const Tensor& tensor) {
    return kept(tensor).open(tensor, tensor.dtype());
  }
  void close(const Tensor& tensor) {
    if (wants(tensor)) kept(tensor).close();
  }

 private:
  bool scaled_;
  TensorList tensors_;
  std::vector<KeptGradient> kept_;
};

// ---- one head -----------------------------------------------------------------------------------

// Residual blocks between the hidden rows and the head's linear layer.
class Blocks {
 public:
  Blocks(const DecodingHead& head, const Tensor& hidden, const Array& input) : head_(head) {
    for (const ResidualBlock& block : head.blocks)
      layers_.emplace_back(kOp, hidden, input, block.weight, block.bias);
  }

  // What leaves the last block, of rows (N, D). `kept`: backward() will follow.
  Array forward(Array rows, bool kept) {
    for (const LinearLayer& layer : layers_) {
      const Array pre = empty_like(rows), next = empty_like(rows);
      layer.forward(rows, pre);
      BINADE_DISPATCH(rows.device(), unary(kernels::UnaryOp::silu, pre, next));
      BINADE_DISPATCH(rows.device(), binary(kernels::BinaryOp::add, rows, next, next));
      if (kept) passed_.push_back({rows, pre});
      rows = next;
    }
    return rows;
  }

  // Turns the gradient of forward's result into that of its rows, in place, and makes those of the
  // parameters. `to_rows`: whether the former is wanted.
  void backward(const Array& gradient, bool to_rows, Inputs& inputs) {
    if (layers_.empty()) return;
    const Array dpre = empty_like(gradient);
    for (size_t j = layers_.size(); j-- > 0;) {
      const auto& [weight, bias] = head_.blocks[j];
      const auto [rows, pre] = passed_[j];
      BINADE_DISPATCH(gradient.device(),
                      unary_backward(kernels::UnaryOp::silu, pre, gradient, dpre, 0));
      layer_gradients(inputs.open(weight), inputs.open(bias), dpre, {},
                      [&rows = rows] { return rows; });
      inputs.close(weight);
      inputs.close(bias);
      passed_.pop_back();
      const bool further = to_rows || wants_gradient(head_, j, inputs);
      if (!further) return;
      kernels::MatmulEpilogue adding;
      adding.beta = 1;
      BINADE_DISPATCH(gradient.device(), matmul(dpre, layers_[j].weight, gradient, adding));
    }
  }

  // Whether a parameter of the first `count` blocks wants a gradient.
  static bool wants_gradient(const DecodingHead& head, size_t count, Inputs& inputs) {
    return std::any_of(head.blocks.begin(), head.blocks.begin() + static_cast<ptrdiff_t>(count),
                       [&](const ResidualBlock& block) {
                         return inputs.wants(block.weight) || inputs.wants(block.bias);
                       });
  }

 private:
  struct Passed {
    Array rows, pre;  // (N, D): what went into a block, and W·h + b
  };
  const DecodingHead& head_;
  std::vector<LinearLayer> layers_;
  std::vector<Passed> passed_;
};

// All heads, one after another.
class MultiHead {
 public:
  MultiHead(const Tensor& hidden, const std::vector<DecodingHead>& heads, const Tensor& labels,
            const MultiHeadLossOptions& options, Inputs& inputs)
      : hidden_(hidden), heads_(heads), options_(options), inputs_(inputs) {
    const auto count = static_cast<int64_t>(heads.size());
    for (const DecodingHead& head : heads) {
      inputs_.add(hidden_of(head, hidden));
      inputs_.add(head.weight);
      for (const ResidualBlock& block : head.blocks) {
        inputs_.add(block.weight);
        if (block.bias.defined()) inputs_.add(block.bias);
      }
    }
    const Tensor& first = hidden_of(heads[0], hidden);
    device_ = labels.device();
    operands_ = half_operand(first).dtype();
    dtype_ = statistics_dtype(operands_);
    rows_ = row_count(first.shape());
    labels_ = labels.array().reshape({count, rows_});
    layout_.rows = rows_;
    layout_.columns = heads[0].weight.size(0);
    layout_.operands = operands_;
    layout_.logits = options.logits_dtype.value_or(LogitChunks::default_logits(operands_));
    layout_.device = device_;
    layout_.taught = std::any_of(heads.begin(), heads.end(),
                                 [](const DecodingHead& head) { return uses_teacher(head); });
    layout_.rows_per_chunk = options.rows_per_chunk;
    classes_ = options.classes ? options.classes : layout_.columns;
    make_normalisers();
  }

  DType dtype() const { return dtype_; }
  const Array& valid() const { return valid_; }
  const Array& losses() const { return losses_; }          // (K), divided
  const Array& statistics() const { return statistics_; }  // (K, RowStatistics::kCount)
  // (K, N, RowStatistics::kCount), with options.ranks
  const Array& all_rows() const { return all_rows_; }
  // λ_k · seed / normaliser_k, where `seed` is what the gradients shall be multiples of.
  void set_seed(const Array& seed) {
    factors_ = Array::empty({labels_.size(0)}, dtype_, device_);
    for (size_t k = 0; k < heads_.size(); ++k) at(factors_, k).fill(heads_[k].coefficient);
    binary(kernels::BinaryOp::mul, factors_, seed.expand(factors_.shape()), factors_);
    binary(kernels::BinaryOp::div, factors_, normalisers_, factors_);
  }
  Array largest_normaliser() const {
    const Array largest = Array::empty({1}, dtype_, device_);
    BINADE_DISPATCH(device_, reduce(kernels::ReduceOp::max, normalisers_, largest, 0));
    return largest.view({});
  }

  void run(bool gradients) {
    layout_.gradients = gradients;
    const LogitChunks chunks(kOp, layout_);
    if (gradients) expect_gradients(!chunks.is_whole());
    losses_ = Array::empty({labels_.size(0)}, dtype_, device_);
    row_losses_ = Array::empty({rows_}, dtype_, device_);
    if (options_.statistics) {
      statistics_ = Array::empty({labels_.size(0), RowStatistics::kCount}, dtype_, device_);
      const int64_t kept = options_.ranks ? labels_.size(0) : 1;
      all_rows_ = Array::empty({kept, rows_, RowStatistics::kCount}, dtype_, device_);
    }
    for (const size_t k : order()) {
      if (all_rows_.defined()) row_statistics_ = at(all_rows_, options_.ranks ? k : 0);
      run_head(chunks, k, gradients && heads_[k].coefficient > 0);
    }
    binary(kernels::BinaryOp::div, losses_, normalisers_, losses_);
  }

  // Σ λ·loss. A head without a part in it may be NaN.
  Array total() const {
    const Array sum = Array::zeros({}, dtype_, device_);
    for (size_t k = 0; k < heads_.size(); ++k)
      if (heads_[k].coefficient > 0)
        BINADE_DISPATCH(device_, axpy(heads_[k].coefficient, at(losses_, k), sum));
    return sum;
  }

 private:
  static bool uses_teacher(const DecodingHead& head) { return head.teacher.has_value(); }
  static Array at(const Array& values, size_t k) {
    return values.select(0, static_cast<int64_t>(k));
  }
  void binary(kernels::BinaryOp op, const Array& a, const Array& b, const Array& out) const {
    BINADE_DISPATCH(device_, binary(op, a, b, out));
  }

  void make_normalisers() {
    const Array ignored =
        Array::full({}, static_cast<double>(options_.ignore_index), labels_.dtype(), device_);
    const Array is_valid = Array::empty(labels_.shape(), DType::boolean, device_);
    BINADE_DISPATCH(device_, compare(kernels::CompareOp::ne, labels_,
                                     ignored.expand(labels_.shape()), is_valid));
    const Array count = Array::empty({labels_.size(0), 1}, DType::i64, device_);
    BINADE_DISPATCH(device_, reduce(kernels::ReduceOp::sum, is_valid, count, 0));
    valid_ = count.to(dtype_).view({labels_.size(0)});
    if (options_.normalisers.defined()) {
      normalisers_ = options_.normalisers.array().to(dtype_);
      return;
    }
    normalisers_ = empty_like(valid_);
    BINADE_DISPATCH(device_,
                    binary_scalar(kernels::BinaryOp::maximum, valid_, 1, false, normalisers_));
  }

  // Heads of one weight follow each other, so that the sums of one weight's gradient exist at a
  // time.
  std::vector<size_t> order() const {
    std::vector<size_t> order;
    std::vector<bool> done(heads_.size(), false);
    for (size_t first = 0; first < heads_.size(); ++first)
      for (size_t k = first; k < heads_.size(); ++k)
        if (!done[k] && heads_[k].weight.state() == heads_[first].weight.state()) {
          order.push_back(k);
          done[k] = true;
        }
    return order;
  }

  void expect_gradients(bool in_parts) {
    for (const DecodingHead& head : heads_) {
      if (head.coefficient == 0) continue;
      inputs_.expect(hidden_of(head, hidden_));
      inputs_.expect(head.weight, in_parts);
      for (const ResidualBlock& block : head.blocks) {
        inputs_.expect(block.weight);
        inputs_.expect(block.bias);
      }
    }
  }

  // Rows (N, D) in the dtype of the matmuls.
  Array operand(const Tensor& tensor, const char* what) const {
    const Array values = half_operand(tensor);
    check(values.dtype() == operands_, kOp, ": ", what, ' ', Kind{tensor}, " and hidden ",
          Kind{hidden_of(heads_[0], hidden_)},
          " must have one dtype; convert with to(x, dtype) or run under amp::Autocast");
    return rows_of(values);
  }

  // For LogitChunks::run.
  auto row_loss(const LogitChunks& chunks, size_t k, bool gradients) const {
    const DecodingHead& head = heads_[k];
    const Array labels = at(labels_, k), factor = gradients ? at(factors_, k) : Array();
    Array teacher_hidden, teacher_weight;
    if (uses_teacher(head)) {
      teacher_hidden = operand(head.teacher->hidden, "teacher.hidden");
      teacher_weight = operand(head.teacher->weight, "teacher.weight");
    }
    return [=, this, &chunks, &head](int64_t begin, int64_t end, const Array& logits,
                                     const Array& dlogits) {
      const Array targets = labels.slice(0, begin, end), losses = row_losses_.slice(0, begin, end);
      const Array counted =
          row_statistics_.defined() ? row_statistics_.slice(0, begin, end) : Array();
      if (!teacher_hidden.defined()) {
        plain_loss(logits, targets, head.hard, factor, losses, dlogits, counted);
        return;
      }
      const kernels::DistillationParams params{options_.ignore_index, head.hard, head.soft,
                                               head.acceptance, head.teacher->temperature};
      const Array taught =
          chunks.teacher_logits(teacher_hidden, teacher_weight, head.teacher->shift, begin, end);
      BINADE_DISPATCH(device_, distillation_with_gradient(logits, taught, classes_, targets, params,
                                                          factor, losses, dlogits, counted));
    };
  }

  void run_head(const LogitChunks& chunks, size_t k, bool gradients) {
    const DecodingHead& head = heads_[k];
    const Tensor& hidden = hidden_of(head, hidden_);
    const bool to_hidden = gradients && inputs_.wants(hidden);
    const bool to_blocks = gradients && Blocks::wants_gradient(head, head.blocks.size(), inputs_);
    const Array input = operand(hidden, "hidden");
    Blocks blocks(head, hidden, input);
    const Array rows = blocks.forward(input, to_hidden || to_blocks);

    LogitChunks::Gradients to;
    if (gradients) {
      const GradSlot::Destination weight = inputs_.open(head.weight);
      to.weight = weight.array;
      to.weight_beta = weight.beta;
    }
    // Without blocks the rows' gradient is the hidden's.
    GradSlot::Destination rows_gradient;
    if (to_hidden && head.blocks.empty()) {
      rows_gradient = inputs_.open_rows(hidden);
    } else if (to_hidden || to_blocks) {
      rows_gradient.array = empty_like(rows);
    }
    to.rows = rows_to_write(rows_gradient.array);
    to.rows_beta = rows_gradient.beta;

    chunks.run(rows, operand(head.weight, "weight"), gradients, to, row_loss(chunks, k, gradients));
    if (gradients) inputs_.close(head.weight);
    if (to.rows.defined()) blocks.backward(to.rows, to_hidden, inputs_);
    if (to_hidden && !head.blocks.empty()) add_to_hidden(hidden, to.rows);
    if (to_hidden) inputs_.close(hidden);
    sum_up(k);
  }

  void add_to_hidden(const Tensor& hidden, const Array& gradient) {
    const GradSlot::Destination to = inputs_.open_rows(hidden);
    const Array target = rows_to_write(to.array);
    if (to.beta == 0)
      BINADE_DISPATCH(device_, copy(gradient, target));
    else
      BINADE_DISPATCH(device_, axpy(1, gradient, target));
  }

  void plain_loss(const Array& logits, const Array& targets, double hard, Array factor,
                  const Array& losses, const Array& dlogits, const Array& counted) const {
    const kernels::CrossEntropyParams params{options_.ignore_index, 0};
    if (!dlogits.defined() && !counted.defined()) {
      const Array logsumexp = empty_like(losses);
      BINADE_DISPATCH(
          device_, cross_entropy(logits.slice(1, 0, classes_), targets, params, losses, logsumexp));
    } else {
      if (hard != 1 && factor.defined()) {
        const Array weighted = empty_like(factor);
        BINADE_DISPATCH(device_,
                        binary_scalar(kernels::BinaryOp::mul, factor, hard, false, weighted));
        factor = weighted;
      }
      BINADE_DISPATCH(device_, cross_entropy_with_gradient(logits, classes_, targets, params,
                                                           factor, losses, dlogits, counted));
    }
    if (hard != 1)
      BINADE_DISPATCH(device_, binary_scalar(kernels::BinaryOp::mul, losses, hard, false, losses));
  }

  void sum_up(size_t k) const {
    BINADE_DISPATCH(device_,
                    reduce(kernels::ReduceOp::sum, row_losses_, at(losses_, k).view({1}), 0));
    if (statistics_.defined())
      BINADE_DISPATCH(device_, reduce(kernels::ReduceOp::sum, row_statistics_,
                                      at(statistics_, k).unsqueeze(0), 0));
  }

  const Tensor& hidden_;
  const std::vector<DecodingHead>& heads_;
  const MultiHeadLossOptions& options_;
  Inputs& inputs_;
  Device device_;
  DType operands_ = DType::f32, dtype_ = DType::f32;
  int64_t rows_ = 0, classes_ = 0;  // of every head
  LogitChunks::Layout layout_;
  Array labels_;                         // (K, N)
  Array valid_, normalisers_, factors_;  // (K)
  Array losses_, statistics_;            // of all heads
  Array all_rows_;                       // (K or 1, N, RowStatistics::kCount)
  Array row_losses_, row_statistics_;    // of the head at hand
};

// From rows (K, N, RowStatistics::kCount): of the hits of rank 0, of rank 0 or 1, … those of the
// label's rank and above are 1.
Tensor ranks_of(const Array& rows, const Shape& shape) {
  const NoGrad off;
  const int64_t first = RowStatistics::kFirstHit;
  const Tensor hits = sum(Tensor(rows.slice(2, first, first + RowStatistics::kHits)), {2});
  const Tensor valid(rows.select(2, RowStatistics::kValid));
  const Tensor ranks = valid * static_cast<double>(RowStatistics::kHits + 1) - hits - 1.0;
  return reshape(to(ranks, DType::i32), shape);
}

}  // namespace

MultiHeadLoss multi_head_loss(const Tensor& hidden, const std::vector<DecodingHead>& heads,
                              const Tensor& labels, const MultiHeadLossOptions& options) {
  check_arguments(hidden, heads, labels, options);
  const Array* scale = current_loss_scale();
  check(!scale || scale->device() == labels.device(), kOp, ": labels ", Kind{labels},
        " and the loss scale of amp::Autocast live on different devices");
  Inputs inputs(scale != nullptr);
  MultiHead all(hidden, heads, labels, options, inputs);
  const bool gradients = grad_enabled() && any_requires_grad(inputs.tensors());

  // The gradients are made as those of seed · loss, and backward multiplies by dloss / seed.
  // Without a loss scale the rows' gradients are softmax − target or a little less, so that no half
  // number is lost.
  Array seed;
  if (gradients) {
    seed = scale ? scale->to(all.dtype()).reshape({}).clone() : all.largest_normaliser();
    all.set_seed(seed);
  }
  all.run(gradients);

  MultiHeadLoss result;
  if (gradients) {
    const auto kept = std::make_shared<std::vector<KeptGradient>>(inputs.take_kept());
    const auto fused = [kept, seed](Backward& backward) {
      const Array factor = empty_like(seed);
      BINADE_DISPATCH(seed.device(), binary(kernels::BinaryOp::div, backward.grad(), seed, factor));
      for (size_t i = 0; i < kept->size(); ++i)
        (*kept)[i].give(backward, static_cast<int>(i), factor);
    };
    result.loss = record(kOp, inputs.tensors(), {all.total()},
                         OnceDifferentiable{fused, "use cross_entropy() of each head's logits"})[0];
  } else {
    result.loss = record(kOp, inputs.tensors(), {all.total()}, FusedBackward())[0];
  }
  result.losses = Tensor(all.losses());
  if (!options.statistics) return result;
  const Array& counted = all.statistics();
  const int64_t first = RowStatistics::kFirstHit;
  result.valid = Tensor(all.valid());
  result.hits = Tensor(counted.slice(1, first, first + RowStatistics::kHits).contiguous());
  result.entropy = Tensor(counted.select(1, RowStatistics::kEntropy).contiguous());
  result.overlap = Tensor(counted.select(1, RowStatistics::kOverlap).contiguous());
  if (options.ranks) result.ranks = ranks_of(all.all_rows(), labels.shape());
  return result;
}

Tensor shifted_labels(const Tensor& labels, const Tensor& documents,
                      const std::vector<int64_t>& shifts, int64_t ignore_index) {
  const char* op = "shifted_labels";
  check_index(op, "labels", labels);
  check(labels.dims() == 2, op, ": labels must be (B, T), got ", Kind{labels});
  if (documents.defined()) {
    check_index(op, "documents", documents);
    check_same_shape(op, labels, documents);
    check_device(op, {labels, documents});
  }
  const int64_t length = labels.size(1);
  const Array values = labels.array();
  Shape shape = labels.shape();
  shape.insert(0, static_cast<int64_t>(shifts.size()));
  const Array result =
      Array::full(shape, static_cast<double>(ignore_index), labels.dtype(), labels.device());
  for (size_t k = 0; k < shifts.size(); ++k) {
    const int64_t shift = shifts[k];
    check(shift >= 0, op, ": shifts must be at least 0, got ", shift);
    if (shift >= length) continue;
    const Array to = result.select(0, static_cast<int64_t>(k)).slice(1, 0, length - shift);
    const Array from = values.slice(1, shift, length);
    if (!documents.defined()) {
      BINADE_DISPATCH(labels.device(), copy(from, to));
      continue;
    }
    const Array same = Array::empty(to.shape(), DType::boolean, labels.device());
    const Array ids = documents.array();
    BINADE_DISPATCH(labels.device(),
                    compare(kernels::CompareOp::eq, ids.slice(1, 0, length - shift),
                            ids.slice(1, shift, length), same));
    BINADE_DISPATCH(labels.device(), where(same, from, to, to));
  }
  return record_constant(op, {labels}, result);
}

}  // namespace binade
