#include <binade/autograd/ops/recurrent_on_tape.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/matmul.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>

namespace binade::ops {

namespace {

// For tensors of which only the place on the tape matters.
Array stand_in(const Shape& shape, const Array& like) {
  return Array::zeros({}, like.dtype(), like.device()).expand(shape);
}

// The steps (B, G·H) of the op's input 0, (B, T, G·H), without their values.
TensorList steps_of_input(const BackwardOnTape& tape, const Array& kept, int64_t columns) {
  const Tensor x = tape.input(0);
  const int64_t steps = kept.size(0), batch = kept.size(1);
  if (!x.defined()) return TensorList(static_cast<size_t>(steps));
  const Array value = stand_in({batch, columns}, kept);
  return record("split", TensorList{x}, std::vector<Array>(static_cast<size_t>(steps), value),
                [value, dtype = tape.input_dtype(0)](const TensorList& dys) -> TensorList {
                  TensorList parts;
                  for (const Tensor& dy : dys) parts.push_back(dy.defined() ? dy : Tensor(value));
                  return {to(stack(parts, 1), dtype)};
                });
}

}  // namespace

Tensor part_of(const Tensor& x, int64_t i, int64_t width) {
  return slice(x, -1, i * width, (i + 1) * width);
}

StepsOnTape::StepsOnTape(const BackwardOnTape& tape, const Array& weight, const Array& kept,
                         Gradients gradients)
    : op_(tape.op()), kept_(kept.to(statistics_dtype(kept.dtype()))), gradients_(gradients) {
  x_ = steps_of_input(tape, kept_, weight.size(0));
  weight_ = to(tape.input(1, weight), kept_.dtype());
  if (const Tensor bias = tape.input(2); bias.defined())
    bias_ = record(
        "input", {bias}, stand_in({weight.size(0)}, kept_),
        [dtype = tape.input_dtype(2)](const Tensor& dy) -> TensorList { return {to(dy, dtype)}; });
}

Tensor StepsOnTape::kept(int64_t t, const Tensor& state) const {
  const Array value = kept_.select(0, t);
  return custom_function(
      op_, {x_[static_cast<size_t>(t)], weight_, bias_, state},
      [value](const TensorList&) -> TensorList { return {Tensor(value)}; },
      [gradients = gradients_](const TensorList& in, const TensorList& out,
                               const TensorList& dy) -> TensorList {
        const auto [dx, dsums] = gradients(out[0], dy[0]);
        const Tensor &weight = in[1], &state = in[3];
        return {dx, matmul(transpose(dsums, 0, 1), state), sum(dsums, {0}), matmul(dsums, weight)};
      })[0];
}

}  // namespace binade::ops
