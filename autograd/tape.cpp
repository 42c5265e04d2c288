// Recording: nodes come into being here. Walking them backward is in backward.cpp.
#include <binade/autograd/tape.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include <binade/autograd/graph.h>
#include <binade/autograd/leaf_collector.h>

namespace binade {

namespace {

// Of all threads together: a graph may be recorded by several, one after the other.
std::atomic<uint64_t> next_sequence{0};

Edge edge_to(const Tensor& input) {
  if (!input.requires_grad()) return {};
  const auto& state = input.state();
  if (state->node == nullptr) return {nullptr, 0, state};
  return {state->node, state->output, nullptr};
}

template <class Inputs>
bool any_requires_grad(const Inputs& inputs) {
  for (const Tensor& input : inputs)
    if (input.requires_grad()) return true;
  return false;
}

template <class Inputs>
TensorList record_node(const char* name, const Inputs& inputs, std::vector<Array> values,
                       Node::Function backward) {
  if (OpObserver* observer = current_op_observer())
    observer->on_forward(name, TensorList(inputs), values);
  for (const Tensor& input : inputs) LeafCollector::note(input);
  TensorList results;
  results.reserve(values.size());
  for (Array& value : values) results.emplace_back(std::move(value));
  if (!grad_enabled() || !any_requires_grad(inputs)) return results;

  auto node = std::make_shared<Node>();
  node->name = name;
  node->sequence = next_sequence.fetch_add(1, std::memory_order_relaxed);
  node->backward = std::move(backward);
  node->inputs.reserve(inputs.size());
  for (const Tensor& input : inputs) node->inputs.push_back(edge_to(input));
  for (size_t i = 0; i < results.size(); ++i) {
    const auto& state = results[i].state();
    node->outputs.push_back({state->value.shape(), state->value.dtype(), state->value.device(),
                             state, /*wants_column_sums=*/false, /*wants_relu_gradient=*/false,
                             /*hooks=*/nullptr});
    if (!is_floating(state->value.dtype())) continue;  // indices of a sort, say
    state->node = node;
    state->output = static_cast<int>(i);
    state->requires_grad = true;
  }
  return results;
}

// A moved-in vector of one array, as initializer lists would copy.
std::vector<Array> one(Array value) {
  std::vector<Array> values;
  values.push_back(std::move(value));
  return values;
}

thread_local LeafCollector* collector = nullptr;

}  // namespace

LeafCollector::LeafCollector() : previous_(std::exchange(collector, this)) {}

LeafCollector::~LeafCollector() {
  collector = previous_;
}

std::vector<std::shared_ptr<TensorState>> LeafCollector::take() {
  return std::exchange(leaves_, {});
}

void LeafCollector::note(const Tensor& input) {
  if (collector == nullptr || !input.requires_grad() || !input.is_leaf()) return;
  auto& leaves = collector->leaves_;
  if (std::find(leaves.begin(), leaves.end(), input.state()) == leaves.end())
    leaves.push_back(input.state());
}

// Long chains of nodes are freed in a loop: recursion through shared_ptr would overflow the stack.
Node::~Node() {
  std::vector<std::shared_ptr<Node>> orphans;
  const auto take_sole = [&orphans](Node& node) {
    node.backward = FusedBackward();  // first: saved tensors hold the nodes they came from
    for (Node::Output& output : node.outputs) output.hooks.reset();  // as hooks may
    for (Edge& edge : node.inputs)
      if (edge.node && edge.node.use_count() == 1) orphans.push_back(std::move(edge.node));
  };
  take_sole(*this);
  while (!orphans.empty()) {
    const std::shared_ptr<Node> node = std::move(orphans.back());
    orphans.pop_back();
    if (node.use_count() == 1) take_sole(*node);
  }
}

Saved::Saved(const Tensor& tensor) {
  if (!tensor.defined()) return;
  array_ = tensor.array();
  state_ = tensor.state();
  version_ = array_.storage()->version();
}

Saved::Saved(Array array) : array_(std::move(array)) {
  if (array_.defined()) version_ = array_.storage()->version();
}

Saved Saved::recomputed(const Tensor& tensor) {
  if (!tensor.defined()) return Saved();
  if (!tensor.state()->recipe) return Saved(tensor.array());
  Saved saved;
  saved.recipe_ = tensor.state()->recipe;
  return saved;
}

Array Saved::array() const {
  if (recipe_) return (*recipe_)();
  check(!array_.defined() || array_.storage()->version() == version_, "a value of shape ",
        array_.shape(),
        " that backward needs was changed in place after the "
        "forward pass; change it after backward, or work on a clone");
  return array_;
}

Tensor Saved::tensor() const {
  if (!defined()) return {};
  const Array value = array();
  return state_ ? Tensor(state_) : Tensor(value);
}

Tensor record(const char* name, std::initializer_list<Tensor> inputs, Array value,
              FusedBackward backward) {
  return record_node(name, inputs, one(std::move(value)), std::move(backward))[0];
}

Tensor record(const char* name, std::initializer_list<Tensor> inputs, Array value,
              OpsBackward backward) {
  return record_node(name, inputs, one(std::move(value)), std::move(backward))[0];
}

TensorList record(const char* name, const TensorList& inputs, std::vector<Array> values,
                  FusedBackward backward) {
  return record_node(name, inputs, std::move(values), std::move(backward));
}

TensorList record(const char* name, const TensorList& inputs, std::vector<Array> values,
                  MultiOpsBackward backward) {
  return record_node(name, inputs, std::move(values), std::move(backward));
}

Tensor record(const char* name, std::initializer_list<Tensor> inputs, Array value,
              TwofoldBackward backward) {
  return record_node(name, inputs, one(std::move(value)), std::move(backward))[0];
}

TensorList record(const char* name, const TensorList& inputs, std::vector<Array> values,
                  TwofoldBackward backward) {
  return record_node(name, inputs, std::move(values), std::move(backward));
}

Tensor record_constant(const char* name, std::initializer_list<Tensor> inputs, Array value) {
  const NoGrad off;
  return record_node(name, inputs, one(std::move(value)), FusedBackward())[0];
}

Tensor output_of(const std::shared_ptr<Node>& node, int output, const Array& value) {
  if (value.defined() && !is_floating(value.dtype())) return Tensor(value);
  const auto state = std::make_shared<TensorState>();
  state->value = value;
  state->node = node;
  state->output = output;
  state->requires_grad = true;
  return Tensor(state);
}

void want_relu_gradient(const Tensor& result) {
  if (const auto& node = result.state()->node) node->outputs[0].wants_relu_gradient = true;
}

void want_column_sums(const Tensor& result) {
  if (const auto& node = result.state()->node) node->outputs[0].wants_column_sums = true;
}

bool will_record(std::initializer_list<Tensor> inputs) {
  return grad_enabled() && any_requires_grad(inputs);
}

}  // namespace binade
