// Recording: nodes come into being here. Walking them backward is in backward.cpp.
#include <binade/autograd/tape.h>

#include <atomic>
#include <utility>

#include <binade/autograd/graph.h>

namespace binade {

namespace {

// Of all threads together: a graph may be recorded by several, one after the other.
std::atomic<uint64_t> next_sequence{0};
thread_local OpObserver* observer = nullptr;
thread_local Recompute recompute_choice = Recompute::nothing;

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
  if (observer) observer->on_forward(name, TensorList(inputs), values);
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
    node->outputs.push_back(
        {state->value.shape(), state->value.dtype(), state->value.device(), state});
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

}  // namespace

// Long chains of nodes are freed in a loop: recursion through shared_ptr would overflow the stack.
Node::~Node() {
  std::vector<std::shared_ptr<Node>> orphans;
  const auto take_sole = [&orphans](Node& node) {
    node.backward = FusedBackward();  // first: saved tensors hold the nodes they came from
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

Saved Saved::remade(const Tensor& tensor) {
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

Recompute parse_recompute(std::string_view name) {
  constexpr std::string_view kNames[] = {"nothing", "norms", "activations", "norms+activations",
                                         "blocks"};
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<Recompute>(i);
  fail("unknown kind of recompute \"", name,
       "\"; it is nothing, norms, activations, norms+activations or blocks");
}

RecomputeScope::RecomputeScope(Recompute choice)
    : previous_(std::exchange(recompute_choice, choice)) {}
RecomputeScope::~RecomputeScope() {
  recompute_choice = previous_;
}

bool makes_again(Recompute what) {
  return (static_cast<int>(recompute_choice) & static_cast<int>(what)) != 0;
}

void attach_recipe(const Tensor& result, Recipe recipe) {
  result.state()->recipe = std::make_shared<const Recipe>(std::move(recipe));
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

Tensor record_constant(const char* name, std::initializer_list<Tensor> inputs, Array value) {
  const NoGrad off;
  return record_node(name, inputs, one(std::move(value)), FusedBackward())[0];
}

void want_column_sums(const Tensor& result) {
  if (const auto& node = result.state()->node) node->outputs[0].wants_column_sums = true;
}

bool will_record(std::initializer_list<Tensor> inputs) {
  return grad_enabled() && any_requires_grad(inputs);
}

TensorList custom_function(const char* name, const TensorList& inputs, CustomForward forward,
                           CustomBackward backward) {
  TensorList outputs;
  {
    const NoGrad off;
    outputs = forward(inputs);
  }
  std::vector<Array> values;
  std::vector<Saved> saved_inputs, saved_outputs;
  for (const Tensor& input : inputs) saved_inputs.emplace_back(input);
  for (const Tensor& output : outputs) {
    check(output.defined(), "custom function ", name, " returned an undefined tensor");
    values.push_back(output.array());
    saved_outputs.emplace_back(output.array());
  }
  // Backward gets the outputs on the tape, so that its own gradient sees where they came from.
  const auto node = std::make_shared<std::weak_ptr<Node>>();
  const auto on_tape = [node](const Saved& output, size_t index) {
    Tensor tensor(output.array());
    if (!is_floating(tensor.dtype())) return tensor;
    tensor.state()->node = node->lock();
    tensor.state()->output = static_cast<int>(index);
    tensor.state()->requires_grad = true;
    return tensor;
  };
  TensorList results =
      record(name, inputs, std::move(values),
             MultiOpsBackward([=, backward = std::move(backward)](const TensorList& grads) {
               TensorList in, out;
               for (const Saved& input : saved_inputs) in.push_back(input.tensor());
               for (const Saved& output : saved_outputs) out.push_back(on_tape(output, out.size()));
               return backward(in, out, grads);
             }));
  for (const Tensor& result : results)
    if (result.state()->node) *node = result.state()->node;
  return results;
}

OpObserver* exchange_op_observer(OpObserver* next) {
  return std::exchange(observer, next);
}

OpObserver* current_op_observer() {
  return observer;
}

}  // namespace binade
