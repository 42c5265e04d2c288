#include <binade/autograd/custom_function.h>

#include <memory>
#include <utility>

#include <binade/autograd/graph.h>

namespace binade {

namespace {

// The gradient of `output`, zeros where nothing reached it.
Tensor or_zeros(const Tensor& gradient, const Tensor& output) {
  if (gradient.defined() || !is_floating(output.dtype())) return gradient;
  return Tensor(Array::zeros({}, output.dtype(), output.device()).expand(output.shape()));
}

}  // namespace

TensorList custom_function(const char* name, const TensorList& inputs, const CustomForward& forward,
                           CustomBackward backward) {
  check(forward != nullptr && backward != nullptr, "custom function ", name,
        " needs both a forward and a backward function");
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
    return output_of(node->lock(), static_cast<int>(index), output.array());
  };
  TensorList results =
      record(name, inputs, std::move(values),
             MultiOpsBackward([=, backward = std::move(backward)](const TensorList& grads) {
               TensorList in, out, dy;
               for (const Saved& input : saved_inputs) in.push_back(input.tensor());
               for (const Saved& output : saved_outputs) out.push_back(on_tape(output, out.size()));
               for (size_t i = 0; i < grads.size(); ++i) dy.push_back(or_zeros(grads[i], out[i]));
               return backward(in, out, dy);
             }));
  for (const Tensor& result : results)
    if (result.state()->node) *node = result.state()->node;
  return results;
}

}  // namespace binade
