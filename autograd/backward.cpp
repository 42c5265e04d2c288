// The walk over the tape, from a result back to the leaves.
#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <queue>
#include <unordered_map>
#include <utility>

#include <binade/autograd/graph.h>
#include <binade/autograd/no_policy.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/watched_leaves.h>

namespace binade {

namespace {

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
  friend class BackwardOnTape;

 public:
  // `only`: the tensors whose gradients grad() collects; none for backward().
  BackwardWalk(const BackwardOptions& options, const TensorList& only)
      : options_(options), collecting_(!only.empty()), mode_(options.create_graph) {
    for (const Tensor& tensor : only)
      if (tensor.requires_grad()) collected_[place_of(tensor)];
  }
  // A walk inside the backward function of a node: see backward_within.
  BackwardWalk(const Backward& node, const TensorList& inputs)
      : outer_(node.walk_), outer_sequence_(node.sequence_), own_leaves_(&inputs), mode_(false) {}

  void seed(const Tensor& output, const Tensor& seed) {
    check(
        output.requires_grad(),
        "backward: the result does not require a gradient; no leaf with requires_grad leads to it");
    check(seed.shape() == output.shape() && seed.dtype() == output.dtype() &&
              seed.device() == output.device(),
          "backward: a seed of ", seed.shape(), ' ', seed.dtype(), " on ", seed.device(),
          " for a result of ", output.shape(), ' ', output.dtype(), " on ", output.device());
    if (Pending* pending = slot_of(edge_of(output))) give(*pending, seed);
  }

  // `watch`: is told about the leaves; or null.
  void run(GradientWatch* watch = nullptr) {
    if (watch != nullptr) start_watch(*watch);
    while (!queue_.empty()) {
      if (watched_) watched_->come_to(queue_.top().node->sequence);
      const std::shared_ptr<Node> node = queue_.top().node;
      queue_.pop();
      std::vector<Pending> outputs = std::move(pending_.at(node.get()));
      pending_.erase(node.get());
      // A fused op may leave the gradient of an input out, when none of it comes from what was
      // used.
      if (std::none_of(outputs.begin(), outputs.end(), [](const Pending& p) { return p.holds; }))
        continue;
      check(!node->freed, "backward ran through ", node->name,
            " before and freed what it needs; pass retain_graph to run it twice");
      finish_outputs(*node, outputs);
      visit(node, outputs);
    }
    for (Leaf& leaf : leaves_) finish_leaf(leaf);
    if (watched_) watched_->finish();
    const Unobserved copies_are_no_ops;
    // What the leaves of recompute keep goes no further than its node.
    if (outer_ == nullptr && !collecting_)
      for (Leaf& leaf : leaves_) leaf.state->grad.own();
    for (const auto& state : retained_) state->grad.own();
  }

  // The gradients collected for `only`, in order.
  TensorList results(const TensorList& inputs) {
    TensorList results;
    for (const Tensor& input : inputs) {
      const auto found = collected_.find(place_of(input));
      if (found == collected_.end() || !found->second.holds) {
        results.emplace_back();
        continue;
      }
      const Pending& pending = found->second;
      results.push_back(pending.tensor.defined() ? pending.tensor : Tensor(pending.array));
    }
    collected_.clear();
    const Unobserved copies_are_no_ops;
    for (Tensor& result : results) own(result);
    return results;
  }

 private:
  struct Queued {
    std::shared_ptr<Node> node;
    bool operator<(const Queued& other) const { return node->sequence < other.node->sequence; }
  };
  // Where a tensor stands in the graph, whichever handle one has of it: a node and which of its
  // outputs, or a leaf.
  using Place = std::pair<const void*, int>;

  // A leaf that this walk has reached.
  struct Leaf {
    std::shared_ptr<TensorState> state;
    bool
        is_apart;  // its gradient of this walk is for the hooks, before it is added to the kept one
    Pending apart;
  };

  // A second input of one node that leads where another one does. A fused function writes every
  // slot as if it had it alone, so this one is written apart and added afterwards.
  struct Repeated {
    Pending* shared;
    Pending apart;
  };

  static Edge edge_of(const Tensor& tensor) {
    const auto& state = tensor.state();
    if (state->node == nullptr) return {nullptr, 0, state};
    return {state->node, state->output, nullptr};
  }

  static Place place_of(const Tensor& tensor) {
    const TensorState* state = tensor.state().get();
    if (state != nullptr && state->node != nullptr) return {state->node.get(), state->output};
    return {state, -1};
  }

  static void own(Tensor& result) {
    if (!result.defined()) return;
    Pending pending;
    pending.holds = true;
    pending.tensor = std::move(result);
    pending.own();
    result = std::move(pending.tensor);
  }

  // Whether what an edge leads to was there before the node that this walk is inside of ran: more
  // of its gradient may come from elsewhere.
  bool leads_outside(const Edge& edge) const {
    if (outer_ == nullptr) return false;
    if (edge.leaf)
      return std::none_of(own_leaves_->begin(), own_leaves_->end(),
                          [&](const Tensor& own) { return own.state() == edge.leaf; });
    return edge.node && edge.node->sequence < outer_sequence_;
  }

  // Whether anybody but the node itself gets the gradient of its output.
  bool is_looked_at(const Node& node, int output) const {
    const Node::Output& of = node.outputs[static_cast<size_t>(output)];
    const auto tensor = of.tensor.lock();
    return (of.hooks && !of.hooks->entries.empty()) || (tensor && tensor->retains_grad) ||
           collected_.count({&node, output}) != 0;
  }

  void start_watch(GradientWatch& watch) {
    std::vector<const Node*> nodes;
    for (const auto& [node, outputs] : pending_) nodes.push_back(node);
    std::vector<std::shared_ptr<TensorState>> seeded;
    for (const Leaf& leaf : leaves_) seeded.push_back(leaf.state);
    watched_.emplace(watch, nodes, seeded);
  }

  // Where gradients along `edge` are summed; null when nobody wants them.
  Pending* slot_of(const Edge& edge) {
    if (leads_outside(edge)) return outer_->slot_of(edge);
    if (edge.leaf) return slot_of_leaf(edge.leaf);
    if (!edge.node) return nullptr;
    const auto [found, inserted] = pending_.try_emplace(edge.node.get());
    if (inserted) {
      found->second.resize(edge.node->outputs.size());
      for (size_t i = 0; i < found->second.size(); ++i) {
        const Node::Output& output = edge.node->outputs[i];
        found->second[i].describe(output.shape, output.dtype, output.device);
        found->second[i].wants_column_sums = output.wants_column_sums;
        found->second[i].wants_relu_gradient =
            output.wants_relu_gradient && !is_looked_at(*edge.node, static_cast<int>(i));
      }
      queue_.push({edge.node});
    }
    return &found->second[static_cast<size_t>(edge.output)];
  }

  // Straight into the gradient that the leaf keeps, unless a hook is to see what this walk brings.
  Pending* slot_of_leaf(const std::shared_ptr<TensorState>& state) {
    if (!state->requires_grad) return nullptr;  // any more
    const auto describe = [&state](Pending& pending) {
      pending.describe(state->value.shape(), state->value.dtype(), state->value.device());
      return &pending;
    };
    Leaf*& known = leaf_of_[state.get()];
    if (known == nullptr) {
      if (collecting_ && collected_.count({state.get(), -1}) == 0) return nullptr;
      known = &leaves_.emplace_back(Leaf{state, collecting_ || is_hooked(*state), {}});
    }
    return describe(known->is_apart ? known->apart : state->grad);
  }

  void give(Pending& pending, const Tensor& gradient) {
    if (options_.create_graph) {
      pending.add(gradient);
    } else {
      pending.add(gradient.array());
    }
  }

  void give(Pending& pending, const Pending& gradient) {
    if (gradient.tensor.defined()) {
      pending.add(gradient.tensor);
    } else {
      pending.add(gradient.array);
    }
  }

  void finish_leaf(Leaf& leaf) {
    if (!leaf.is_apart) return;
    call_hooks(leaf.state->hooks, leaf.apart, options_.create_graph);
    if (!leaf.apart.holds) return;
    if (collecting_) {
      collected_[{leaf.state.get(), -1}] = std::move(leaf.apart);
    } else {
      Pending& kept = leaf.state->grad;
      kept.describe(leaf.apart.shape, leaf.apart.dtype, leaf.apart.device);
      give(kept, leaf.apart);
    }
    leaf.apart = {};
  }

  // Hooks, and tensors that keep their gradient.
  void finish_outputs(Node& node, std::vector<Pending>& outputs) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Pending& gradient = outputs[i];
      if (!gradient.holds) continue;
      call_hooks(node.outputs[i].hooks, outputs[i], options_.create_graph);
      if (collecting_) {
        const auto wanted = collected_.find({&node, static_cast<int>(i)});
        if (wanted != collected_.end()) wanted->second = gradient;
      } else if (const auto state = node.outputs[i].tensor.lock(); state && state->retains_grad) {
        state->grad.describe(gradient.shape, gradient.dtype, gradient.device);
        give(state->grad, gradient);
        retained_.push_back(state);
      }
    }
  }

  void visit(const std::shared_ptr<Node>& visited, std::vector<Pending>& outputs) {
    Node& node = *visited;
    if (const auto* twofold = std::get_if<TwofoldBackward>(&node.backward)) {
      if (options_.create_graph)
        run_on_tape(visited, *twofold, outputs);
      else
        run_fused(
            node, [&](Backward& backward) { twofold->run(&backward, nullptr); }, outputs);
    } else if (const auto* fused = std::get_if<FusedBackward>(&node.backward)) {
      check(!options_.create_graph, node.name,
            ": its gradient has no gradient (create_graph); to have one, an op says what its "
            "gradient is in public ops, too (autograd/on_tape.h)");
      run_fused(node, *fused, outputs);
    } else {
      run_ops(node, outputs);
    }
    if (!options_.retain_graph && !options_.create_graph) {
      node.backward = FusedBackward();  // frees what was saved as soon as it was used
      for (Node::Output& output : node.outputs) output.hooks.reset();
      node.freed = true;
    }
  }

  template <class Function>
  void run_fused(Node& node, const Function& function, std::vector<Pending>& outputs) {
    Backward backward;
    backward.retained_ = options_.retain_graph;
    backward.walk_ = this;
    backward.sequence_ = node.sequence;
    std::list<Repeated> repeated;
    backward.slots_.reserve(node.inputs.size());
    for (const Edge& edge : node.inputs) {
      Pending* pending = slot_of(edge);
      const auto is_same = [&](const GradSlot& slot) { return slot.pending_ == pending; };
      if (pending && std::any_of(backward.slots_.begin(), backward.slots_.end(), is_same)) {
        Repeated& again = repeated.emplace_back(Repeated{pending, {}});
        again.apart.describe(pending->shape, pending->dtype, pending->device);
        pending = &again.apart;
      }
      backward.slots_.emplace_back().pending_ = pending;
    }
    backward.outputs_.reserve(outputs.size());
    for (Pending& output : outputs)
      backward.outputs_.push_back(
          {std::move(output.array), std::move(output.column_sums), output.through_relu});
    outputs.clear();
    function(backward);
    if (OpObserver* observer = current_op_observer()) {
      std::vector<Array> doutputs, inputs;
      for (const Backward::Output& output : backward.outputs_) doutputs.push_back(output.gradient);
      for (const GradSlot& slot : backward.slots_)
        inputs.push_back(slot.pending_ && slot.pending_->holds ? slot.pending_->array : Array());
      observer->on_backward(node.name, doutputs, inputs);
    }
    for (const Repeated& again : repeated)
      if (again.apart.holds) again.shared->add(again.apart.array);
  }

  // The gradients of a node's outputs, as what is written in public ops takes them.
  static TensorList take_gradients(std::vector<Pending>& outputs) {
    TensorList grads;
    for (Pending& output : outputs) {
      grads.push_back(output.tensor.defined()  ? output.tensor
                      : output.array.defined() ? Tensor(output.array)
                                               : Tensor());
    }
    outputs.clear();
    return grads;
  }

  // What it records meanwhile and goes through is walked, and observed, as any other op.
  void run_on_tape(const std::shared_ptr<Node>& node, const TwofoldBackward& twofold,
                   std::vector<Pending>& outputs) {
    BackwardOnTape tape(*this, node, take_gradients(outputs));
    {
      const Unobserved unobserved;
      twofold.run(nullptr, &tape);
    }
    observe_backward(*node, tape.grads_, tape.given_);
  }

  static void observe_backward(const Node& node, const TensorList& grads,
                               const TensorList& results) {
    OpObserver* observer = current_op_observer();
    if (observer == nullptr) return;
    std::vector<Array> doutputs, dinputs;
    for (const Tensor& grad : grads) doutputs.push_back(grad.defined() ? grad.array() : Array());
    for (const Tensor& grad : results) dinputs.push_back(grad.defined() ? grad.array() : Array());
    observer->on_backward(node.name, doutputs, dinputs);
  }

  void run_ops(Node& node, std::vector<Pending>& outputs) {
    TensorList grads = take_gradients(outputs);
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
    observe_backward(node, grads, results);
    grads.clear();
    for (size_t i = 0; i < results.size(); ++i) {
      const Tensor gradient = std::move(results[i]);
      if (!gradient.defined()) continue;
      if (Pending* pending = slot_of(node.inputs[i])) give(*pending, gradient);
    }
  }

  BackwardOptions options_;
  bool collecting_ = false;
  BackwardWalk* outer_ = nullptr;
  uint64_t outer_sequence_ = 0;
  const TensorList* own_leaves_ = nullptr;
  // What the walk runs under: sums are recorded where the gradients are to be differentiable.
  NoPolicy
      no_policy_;  // gradients have the dtypes of the forward pass, whatever policy is set by now
  GradModeScope mode_;
  std::priority_queue<Queued> queue_;
  std::unordered_map<Node*, std::vector<Pending>> pending_;
  std::deque<Leaf> leaves_;  // in the order they were reached in
  std::unordered_map<const TensorState*, Leaf*> leaf_of_;
  std::vector<std::shared_ptr<TensorState>> retained_;  // inner tensors that keep what came
  std::map<Place, Pending> collected_;
  std::optional<WatchedLeaves> watched_;
};

namespace {

// Shape and dtype of what an edge leads to.
std::pair<Shape, DType> look_of(const Edge& edge) {
  if (edge.leaf) return {edge.leaf->value.shape(), edge.leaf->value.dtype()};
  const Node::Output& output = edge.node->outputs[static_cast<size_t>(edge.output)];
  return {output.shape, output.dtype};
}

bool is_same_view(const Array& a, const Array& b) {
  bool same = a.shares_storage(b) && a.offset() == b.offset();
  for (int i = 0; same && i < a.dims(); ++i) same = a.stride(i) == b.stride(i);
  return same;
}

Tensor ones_like(const Tensor& output) {
  check(output.numel() == 1,
        "backward without a seed needs a result of one element, this one has "
        "shape ",
        output.shape());
  return Tensor::ones(output.shape(), output.dtype(), output.device());
}

}  // namespace

BackwardOnTape::BackwardOnTape(BackwardWalk& walk, std::shared_ptr<Node> node, TensorList grads)
    : walk_(walk), node_(std::move(node)), grads_(std::move(grads)), given_(node_->inputs.size()) {}

const char* BackwardOnTape::op() const {
  return node_->name;
}

bool BackwardOnTape::needed(int input) const {
  return walk_.slot_of(node_->inputs[static_cast<size_t>(input)]) != nullptr;
}

DType BackwardOnTape::input_dtype(int i) const {
  return look_of(node_->inputs[static_cast<size_t>(i)]).second;
}

Tensor BackwardOnTape::input(int i, const Array& value) const {
  const Edge& edge = node_->inputs[static_cast<size_t>(i)];
  if (!edge.needed()) return value.defined() ? Tensor(value) : Tensor();
  const auto [shape, dtype] = look_of(edge);
  const bool same_look = value.defined() && value.shape() == shape && value.dtype() == dtype;
  if (edge.leaf) {
    const Tensor leaf(edge.leaf);
    if (!value.defined() || (same_look && is_same_view(value, leaf.array()))) return leaf;
  } else if (!value.defined() || same_look) {
    return output_of(edge.node, edge.output, value);
  }
  return record("input", {input(i)}, value,
                [shape = shape, dtype = dtype](const Tensor& gradient) -> TensorList {
                  return {to(reshape(gradient, shape), dtype)};
                });
}

Tensor BackwardOnTape::output(int i, const Array& value) const {
  return output_of(node_, i, value);
}

void BackwardOnTape::give(int i, const Tensor& gradient) {
  if (!gradient.defined()) return;
  Pending* pending = walk_.slot_of(node_->inputs[static_cast<size_t>(i)]);
  if (pending == nullptr) return;
  Tensor& given = given_[static_cast<size_t>(i)];
  given = to(reshape(gradient, pending->shape), pending->dtype);
  walk_.give(*pending, given);
}

void BackwardOnTape::through(const Tensor& value, const Tensor& gradient) {
  if (value.requires_grad()) walk_.seed(value, to(reshape(gradient, value.shape()), value.dtype()));
}

void Tensor::backward(const BackwardOptions& options) const {
  backward(ones_like(*this), options);
}

void Tensor::backward(const Tensor& seed, const BackwardOptions& options) const {
  GradientWatch* watch = current_gradient_watch();
  const GradientWatch::Scope not_inside(nullptr);
  BackwardWalk walk(options, {});
  walk.seed(*this, seed);
  walk.run(watch);
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
  return walk.results(inputs);
}

}  // namespace binade
