// INTERNAL: the tape's inside, nodes, edges and the state of tensors. Only the sources in autograd/
// include it; it may change in any version.
#pragma once

#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include <binade/autograd/grad_loan.h>
#include <binade/autograd/on_tape.h>
#include <binade/autograd/tape.h>

namespace binade {

using GradHook = std::function<Array(const Array&)>;

// Of one tensor, in the order they are called in.
struct Hooks {
  std::vector<std::pair<int, GradHook>> entries;
  int next_id = 0;
};

// A gradient while it is being summed, or kept on a leaf.
struct Pending {
  Array array;         // valid when `holds`; for a bound leaf always its buffer
  Tensor tensor;       // the gradient on the tape, with create_graph
  bool holds = false;  // false: the next contribution overwrites
  bool bound = false;  // `array` belongs to somebody else and must be written in place
  Array column_sums;   // of `array` (…, D), if it came with them: (D)
  bool wants_column_sums = false;
  bool through_relu = false;  // of `array`: see want_relu_gradient()
  bool wants_relu_gradient = false;
  std::weak_ptr<GradLoan> loan;  // of a bound buffer, while this does not hold
  // Called before a bound buffer is written; null: nobody asks for that.
  std::shared_ptr<const std::function<void()>> guard;
  // What the gradient must look like.
  Shape shape;
  DType dtype = DType::f32;
  Device device;

  void describe(const Shape& shape, DType dtype, Device device);
  GradSlot::Destination open();
  void add(const Array& gradient, const Array& sums = {}, bool masked = false);
  void add(const Tensor& gradient);
  // The buffer and what a loan of it wrote there become the gradient; false if that is no longer
  // there.
  bool accept(const std::shared_ptr<GradLoan>& given);
  // Moves out what a loan has written.
  void end_loan();
  // The bound buffer will be written.
  void before_write() const {
    if (guard) (*guard)();
  }
  // For a gradient that is handed out: afterwards it is contiguous and nobody else sees its memory.
  // One that nobody else holds is not copied.
  void own();
};

// What a Tensor points to.
struct TensorState {
  Array value;
  std::shared_ptr<Node> node;  // the op it came from; null for leaves
  int output = 0;              // which of the node's outputs
  bool requires_grad = false;
  bool retains_grad = false;             // an inner tensor whose gradient is kept
  Pending grad;                          // of leaves, and of tensors with retain_grad
  std::shared_ptr<Hooks> hooks;          // of leaves; null: none
  std::shared_ptr<const Recipe> recipe;  // how the value is recomputed; null: it is kept
  // Of leaves, called before the value is given away (value_guard.h); null: nobody asks for that.
  std::shared_ptr<const std::function<void()>> value_guard;
};

// Hooks see a gradient once it is complete, and may put another in its place. `create_graph`: of
// the walk.
void call_hooks(const std::shared_ptr<Hooks>& hooks, Pending& gradient, bool create_graph);

// Where the gradient of one input goes: to an output of another node, or to a leaf.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
  std::shared_ptr<TensorState> leaf;
  bool needed() const { return node != nullptr || leaf != nullptr; }
};

class Node {
 public:
  struct Output {
    Shape shape;
    DType dtype;
    Device device;
    std::weak_ptr<TensorState> tensor;  // for retain_grad, while somebody holds it
    bool wants_column_sums = false;     // see want_column_sums()
    bool wants_relu_gradient = false;   // see want_relu_gradient()
    std::shared_ptr<Hooks> hooks;       // null: none
  };
  using Function = std::variant<FusedBackward, TwofoldBackward, OpsBackward, MultiOpsBackward>;

  const char* name = "";
  uint64_t sequence = 0;  // order of recording: inputs always come before what uses them
  std::vector<Edge> inputs;
  std::vector<Output> outputs;
  // Leaves that the backward function may reach although they are none of the inputs.
  std::vector<std::shared_ptr<TensorState>> hidden_leaves;
  Function backward;
  bool freed = false;  // backward ran without retain_graph
  ~Node();
};

// Output `output` of the node on the tape, with its value.
Tensor output_of(const std::shared_ptr<Node>& node, int output, const Array& value);

// For the backward function of a node that records ops and walks back over them, `outputs` being
// their results: gradients of `inputs`, which are leaves made for it, are kept by these. All others
// go where the walk that called the function wants them.
void backward_within(Backward& node, const TensorList& inputs, const TensorList& outputs,
                     const TensorList& seeds);

}  // namespace binade
