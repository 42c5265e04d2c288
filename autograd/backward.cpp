// The walk over the tape, from a result back to the leaves.
#include <algorithm>
#include <queue>
#include <unordered_map>

#include <binade/autograd/graph.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/precision.h>

namespace binade {

namespace {

bool capturing() {
  if constexpr (kCudaBuilt) return cuda::is_capturing();
  return false;
}

}  // namespace

// ---- gradients in the making --------------------------------------------------------------------

GradSlot::Destination Pending::open() {
  if (tensor.defined()) {  // left by a walk with create_graph; it goes on as a plain value
    if (!bound) array = tensor.array();
    tensor = {};
  }
  column_sums = {};
  if (!holds) {
    if (!bound) array = Array::empty(shape, dtype, device);
    holds = true;
    return {array, 0};
  }
  // Added to in place only where nobody else looks at the same memory.
  if (!bound && (array.storage().use_count() > 1 || !array.is_contiguous())) array = array.clone();
  return {array, 1};
}

void Pending::add(const Array& gradient, const Array& sums) {
  check(gradient.shape() == shape && gradient.dtype() == dtype && gradient.device() == device,
        "backward produced a gradient of ", gradient.shape(), ' ', gradient.dtype(), " on ",
        gradient.device(), " for a tensor of ", shape, ' ', dtype, " on ", device);
  if (!holds && !bound) {
    array = gradient;
    column_sums = sums;
    holds = true;
    return;
  }
  const auto [target, beta] = open();
  if (beta == 0) {
    BINADE_DISPATCH(device, copy(gradient, target));
  } else {
    BINADE_DISPATCH(device, binary(kernels::BinaryOp::add, target, gradient, target));
  }
}

void Pending::add(const Tensor& gradient) {
  check(gradient.shape() == shape && gradient.dtype() == dtype, "backward produced a gradient of ",
        gradient.shape(), ' ', gradient.dtype(), " for a tensor of ", shape, ' ', dtype);
  if (holds && !tensor.defined()) tensor = Tensor(array);
  tensor = holds ? tensor + gradient : gradient;
  holds = true;
  if (bound) array.copy_from(tensor.array());  // whoever gave the buffer reads it there
}

GradSlot::Destination GradSlot::open() {
  if (pending_ == nullptr) return {};
  return pending_->open();
}

void GradSlot::add(const Array& gradient, const Array& column_sums) {
  if (pending_ != nullptr) pending_->add(gradient, column_sums);
}

bool GradSlot::wants_column_sums() const {
  return pending_ != nullptr && pending_->wants_column_sums;
}

// ---- the walk -----------------------------------------------------------------------------------

namespace {

// Gradients are computed in the dtypes of the forward pass, whatever policy is set by now.
class NoPolicy {
 public:
  NoPolicy() : previous_(exchange_precision_policy(nullptr)) {}
  ~NoPolicy() { exchange_precision_policy(previous_); }
  NoPolicy(const NoPolicy&) = delete;
  NoPolicy& operator=(const NoPolicy&) = delete;

 private:
  const PrecisionPolicy* previous_;
};

// Ops that a backward function is written in are reported as the backward pass of its op.
class Unobserved {
 public:
  Unobserved() : previous_(exchange_op_observer(nullptr)) {}
  ~Unobserved() { exchange_op_observer(previous_); }
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;

 private:
  OpObserver* previous_;
};

}  // namespace

class BackwardWalk {
 public:
  BackwardWalk(const BackwardOptions& options, std::vector<Tensor> only)
      : options_(options), only_(std::move(only)) {}
  // A walk inside the backward function of a node: see backward_within.
  BackwardWalk(const Backward& node, const TensorList& inputs)
      : outer_(node.walk_), outer_sequence_(node.sequence_), own_leaves_(&inputs) {}

  void seed(const Tensor& output, const Tensor& seed) {
    check(
        output.requires_grad(),
        "backward: the result does not require a gradient; no leaf with requires_grad leads to it");
    if (Pending* pending = slot_of(edge_of(output))) give(*pending, seed);
  }

  void run() {
    const NoPolicy off;
    while (!queue_.empty()) {
      const std::shared_ptr<Node> node = queue_.top().node;
      queue_.pop();
      std::vector<Pending> outputs = std::move(pending_.at(node.get()));
      pending_.erase(node.get());
      // A fused op may leave the gradient of an input out, when none of it comes from what was
      // used.
      if (std::none_of(outputs.begin(), outputs.end(), [](const Pending& p) { return p.holds; }))
        continue;
      finish_outputs(*node, outputs);
      visit(*node, outputs);
    }
    for (const auto& leaf : hooked_leaves_) finish(*leaf, grad_of(*leaf));
  }

  // The gradient collected for one of `only`.
  Tensor result(const Tensor& input) {
    const auto found = collected_.find(input.state().get());
    if (found == collected_.end() || !found->second.holds) return {};
    const Pending& pending = found->second;
    return pending.tensor.defined() ? pending.tensor : Tensor(pending.array);
  }

 private:
  struct Queued {
    std::shared_ptr<Node> node;
    bool operator<(const Queued& other) const { return node->sequence < other.node->sequence; }
  };

  static Edge edge_of(const Tensor& tensor) {
    const auto& state = tensor.state();
    if (state->node == nullptr) return {nullptr, 0, state};
    return {state->node, state->output, nullptr};
  }

  bool collecting() const { return !only_.empty(); }

  static bool contains(const TensorList& tensors, const TensorState* state) {
    return std::any_of(tensors.begin(), tensors.end(),
                       [state](const Tensor& tensor) { return tensor.state().get() == state; });
  }

  bool wanted(const TensorState* state) const { return contains(only_, state); }

  // Whether what an edge leads to was there before the node that this walk is inside of ran: more
  // of its gradient may come from elsewhere.
  bool leads_outside(const Edge& edge) const {
    if (outer_ == nullptr) return false;
    if (edge.leaf) return !contains(*own_leaves_, edge.leaf.get());
    return edge.node && edge.node->sequence < outer_sequence_;
  }

  // Leaves keep their gradient; grad() collects it aside.
  Pending& grad_of(TensorState& leaf) { return collecting() ? collected_[&leaf] : leaf.grad; }

  static void describe(Pending& pending, const Shape& shape, DType dtype, Device device) {
    pending.shape = shape;
    pending.dtype = dtype;
    pending.device = device;
  }

  // Where gradients along `edge` are summed; null when nobody wants them.
  Pending* slot_of(const Edge& edge) {
    if (leads_outside(edge)) return outer_->slot_of(edge);
    if (edge.leaf) {
      if (collecting() && !wanted(edge.leaf.get())) return nullptr;
      Pending& grad = grad_of(*edge.leaf);
      const Array& value = edge.leaf->value;
      describe(grad, value.shape(), value.dtype(), value.device());
      if (!edge.leaf->hooks.empty() && std::find(hooked_leaves_.begin(), hooked_leaves_.end(),
                                                 edge.leaf) == hooked_leaves_.end())
        hooked_leaves_.push_back(edge.leaf);
      return &grad;
    }
    if (!edge.node) return nullptr;
    const auto [found, inserted] = pending_.try_emplace(edge.node.get());
    if (inserted) {
      found->second.resize(edge.node->outputs.size());
      for (size_t i = 0; i < found->second.size(); ++i) {
        const Node::Output& output = edge.node->outputs[i];
        describe(found->second[i], output.shape, output.dtype, output.device);
        found->second[i].wants_column_sums = output.wants_column_sums;
      }
      queue_.push({edge.node});
    }
    return &found->second[static_cast<size_t>(edge.output)];
  }

  void give(Pending& pending, const Tensor& gradient) {
    if (options_.create_graph) {
      pending.add(gradient);
    } else {
      pending.add(gradient.array());
    }
  }

  // Hooks see a gradient once it is complete; tensors that keep theirs get it then.
  void finish(TensorState& state, Pending& pending) {
    if (state.hooks.empty()) return;
    pending.column_sums = {};
    check(!capturing(),
          "a tensor hook runs on the host and would not run in a replayed CUDA graph; remove the "
          "hook or run the step without capture");
    for (const auto& [id, hook] : std::vector(state.hooks)) {
      const Array before = pending.tensor.defined() ? pending.tensor.array() : pending.array;
      const Array replaced = hook(before);
      if (!replaced.defined()) continue;
      check(!options_.create_graph, "a hook cannot replace a gradient under create_graph");
      check(replaced.shape() == pending.shape && replaced.dtype() == pending.dtype,
            "a hook returned a gradient of ", replaced.shape(), ' ', replaced.dtype(),
            " for a tensor of ", pending.shape, ' ', pending.dtype);
      if (pending.bound) {
        pending.array.copy_from(replaced);
      } else {
        pending.array = replaced;
      }
    }
  }

  void finish_outputs(Node& node, std::vector<Pending>& outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto state = node.outputs[i].tensor.lock();
      if (!state || !outputs[i].holds) continue;
      finish(*state, outputs[i]);
      if (collecting() && wanted(state.get())) collected_[state.get()] = outputs[i];
      if (state->retains_grad && !collecting()) {
        describe(state->grad, outputs[i].shape, outputs[i].dtype, outputs[i].device);
        if (options_.create_graph) {
          state->grad.add(outputs[i].tensor);
        } else {
          state->grad.add(outputs[i].array);
        }
      }
    }
  }

  void visit(Node& node, std::vector<Pending>& outputs) {
    check(!node.freed, "backward ran through ", node.name,
          " before and freed what it needs; pass retain_graph to run it twice");
    if (const auto* fused = std::get_if<FusedBackward>(&node.backward)) {
      check(!options_.create_graph, node.name,
            " has a fused gradient that is not differentiable again (create_graph)");
      run_fused(node, *fused, outputs);
    } else {
      run_ops(node, outputs);
    }
    if (!options_.retain_graph && !options_.create_graph) {
      node.backward = FusedBackward();  // frees what was saved as soon as it was used
      node.freed = true;
    }
  }

  void run_fused(Node& node, const FusedBackward& function, std::vector<Pending>& outputs) {
    Backward backward;
    backward.retained_ = options_.retain_graph;
    backward.walk_ = this;
    backward.sequence_ = node.sequence;
    backward.slots_.resize(node.inputs.size());
    for (size_t i = 0; i < node.inputs.size(); ++i)
      backward.slots_[i].pending_ = slot_of(node.inputs[i]);
    for (Pending& output : outputs) {
      backward.grads_.push_back(std::move(output.array));
      backward.column_sums_.push_back(std::move(output.column_sums));
    }
    outputs.clear();
    function(backward);
    if (OpObserver* observer = current_op_observer()) {
      std::vector<Array> inputs;
      for (const GradSlot& slot : backward.slots_)
        inputs.push_back(slot.pending_ ? slot.pending_->array : Array());
      observer->on_backward(node.name, backward.grads_, inputs);
    }
  }

  void run_ops(Node& node, std::vector<Pending>& outputs) {
    TensorList grads;
    for (Pending& output : outputs) {
      grads.push_back(output.tensor.defined()  ? output.tensor
                      : output.array.defined() ? Tensor(output.array)
                                               : Tensor());
    }
    outputs.clear();
    TensorList results;
    {
      const GradModeScope mode(options_.create_graph);
      const Unobserved unobserved;
      if (const auto* single = std::get_if<OpsBackward>(&node.backward)) {
        results = (*single)(grads[0]);
      } else {
        results = std::get<MultiOpsBackward>(node.backward)(grads);
      }
    }
    check(results.size() == node.inputs.size(), node.name, "'s backward returned ", results.size(),
          " gradients for ", node.inputs.size(), " inputs");
    if (OpObserver* observer = current_op_observer()) {
      std::vector<Array> doutputs, dinputs;
      for (const Tensor& grad : grads) doutputs.push_back(grad.defined() ? grad.array() : Array());
      for (const Tensor& grad : results) dinputs.push_back(grad.defined() ? grad.array() : Array());
      observer->on_backward(node.name, doutputs, dinputs);
    }
    grads.clear();
    for (size_t i = 0; i < results.size(); ++i) {
      const Tensor gradient = std::move(results[i]);
      if (!gradient.defined()) continue;
      if (Pending* pending = slot_of(node.inputs[i])) give(*pending, gradient);
    }
  }

  BackwardOptions options_;
  std::vector<Tensor> only_;
  BackwardWalk* outer_ = nullptr;
  uint64_t outer_sequence_ = 0;
  const TensorList* own_leaves_ = nullptr;
  std::priority_queue<Queued> queue_;
  std::unordered_map<Node*, std::vector<Pending>> pending_;
  std::unordered_map<TensorState*, Pending> collected_;
  std::vector<std::shared_ptr<TensorState>> hooked_leaves_;
};

namespace {

Tensor ones_like(const Tensor& output) {
  check(output.numel() == 1,
        "backward without a seed needs a result of one element, this one has "
        "shape ",
        output.shape());
  return Tensor::ones(output.shape(), output.dtype(), output.device());
}

}  // namespace

void Tensor::backward(const BackwardOptions& options) const {
  backward(ones_like(*this), options);
}

void Tensor::backward(const Tensor& seed, const BackwardOptions& options) const {
  BackwardWalk walk(options, {});
  walk.seed(*this, seed);
  walk.run();
}

void backward_within(Backward& node, const TensorList& inputs, const TensorList& outputs,
                     const TensorList& seeds) {
  BackwardWalk walk(node, inputs);
  for (size_t i = 0; i < outputs.size(); ++i) walk.seed(outputs[i], seeds[i]);
  walk.run();
}

TensorList grad(const TensorList& outputs, const TensorList& inputs, const TensorList& seeds,
                const BackwardOptions& options) {
  check(seeds.empty() || seeds.size() == outputs.size(), "grad: ", seeds.size(), " seeds for ",
        outputs.size(), " outputs");
  check(!inputs.empty(), "grad needs at least one input");
  BackwardWalk walk(options, inputs);
  for (size_t i = 0; i < outputs.size(); ++i)
    walk.seed(outputs[i], seeds.empty() ? ones_like(outputs[i]) : seeds[i]);
  walk.run();
  TensorList results;
  for (const Tensor& input : inputs) results.push_back(walk.result(input));
  return results;
}

}  // namespace binade
