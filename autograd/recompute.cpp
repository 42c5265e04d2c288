#include <binade/autograd/recompute.h>

#include <iterator>
#include <utility>

#include <binade/autograd/graph.h>
#include <binade/autograd/leaf_collector.h>
#include <binade/core/precision.h>
#include <binade/core/random.h>

namespace binade {

namespace {

thread_local Recompute recompute_choice = Recompute::nothing;

// The precision and the random place of the first run, for the second.
class SameCircumstances {
 public:
  SameCircumstances(const Precision& precision, uint64_t place)
      : precision_(precision), previous_place_(RandomState::current().place()) {
    RandomState::current().set_place(place);
  }
  ~SameCircumstances() { RandomState::current().set_place(previous_place_); }
  SameCircumstances(const SameCircumstances&) = delete;
  SameCircumstances& operator=(const SameCircumstances&) = delete;

 private:
  PrecisionScope precision_;
  uint64_t previous_place_;
};

struct SegmentGradient {
  std::function<TensorList(const TensorList&)> segment;
  std::vector<Saved> inputs;
  size_t count;  // of outputs
  Precision precision;
  uint64_t place;

  // The segment's outputs again, on the tape.
  TensorList run_again(const TensorList& arguments) const {
    const EnableGrad on;
    TensorList outputs = segment(arguments);
    check(outputs.size() == count, "recompute: the segment returned ", count,
          " tensors in the forward pass and ", outputs.size(), " in backward");
    return outputs;
  }

  void operator()(Backward& backward) const {
    const SameCircumstances same(precision, place);
    TensorList leaves;
    for (size_t i = 0; i < inputs.size(); ++i)
      leaves.push_back(inputs[i].defined()
                           ? Tensor(inputs[i].array(), backward.needed(static_cast<int>(i)))
                           : Tensor());
    const TensorList again = run_again(leaves);
    // One walk for all outputs, so that every node inside runs once.
    const NoGrad off;
    TensorList roots, seeds;
    for (size_t i = 0; i < again.size(); ++i) {
      if (!backward.grad(static_cast<int>(i)).defined() || !again[i].requires_grad()) continue;
      roots.push_back(again[i]);
      seeds.emplace_back(backward.grad(static_cast<int>(i)));
    }
    backward_within(backward, leaves, roots, seeds);
    for (size_t i = 0; i < leaves.size(); ++i) {
      if (!leaves[i].requires_grad()) continue;
      if (const Array grad = leaves[i].grad(); grad.defined())
        backward.slot(static_cast<int>(i)).add(grad);
    }
  }

  // What the segment records now is part of the gradient's graph: nothing is saved any more.
  void operator()(BackwardOnTape& tape) const {
    const SameCircumstances same(precision, place);
    TensorList arguments;
    for (size_t i = 0; i < inputs.size(); ++i)
      arguments.push_back(inputs[i].defined() ? tape.input(static_cast<int>(i), inputs[i].array())
                                              : Tensor());
    const TensorList again = run_again(arguments);
    for (size_t i = 0; i < again.size(); ++i)
      if (const Tensor& dy = tape.grad(static_cast<int>(i)); dy.defined())
        tape.through(again[i], dy);
  }
};

}  // namespace

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

bool recomputes(Recompute what) {
  return (static_cast<int>(recompute_choice) & static_cast<int>(what)) != 0;
}

void attach_recipe(const Tensor& result, Recipe recipe) {
  result.state()->recipe = std::make_shared<const Recipe>(std::move(recipe));
}

TensorList recompute(std::function<TensorList(const TensorList&)> segment,
                     const TensorList& inputs) {
  check(segment != nullptr, "recompute needs a function");
  if (!grad_enabled()) return segment(inputs);
  const uint64_t place = RandomState::current().place();
  const Precision precision = Precision::current();

  TensorList outputs;
  LeafCollector collector;
  {
    const NoGrad off;
    outputs = segment(inputs);
  }
  // Parameters that the segment uses without having them among its inputs: the inner backward
  // reaches them.
  std::vector<std::shared_ptr<TensorState>> leaves = collector.take();
  std::vector<Array> values;
  for (const Tensor& output : outputs) {
    check(output.defined(), "recompute: output ", values.size(), " of the segment is undefined");
    values.push_back(output.array());
  }
  std::vector<Saved> saved;
  for (const Tensor& input : inputs) saved.emplace_back(input);

  // An anchor that requires a gradient makes sure that the node is recorded, whatever the inputs.
  TensorList recorded = inputs;
  recorded.emplace_back(Array::empty({0}, DType::f32), true);

  const size_t count = values.size();
  TensorList results =
      record("recompute", recorded, std::move(values),
             SegmentGradient{std::move(segment), std::move(saved), count, precision, place});
  for (const Tensor& result : results)
    if (const auto& node = result.state()->node) node->hidden_leaves = leaves;
  return results;
}

}  // namespace binade
