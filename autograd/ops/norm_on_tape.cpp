#include <binade/autograd/ops/norm_on_tape.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>

namespace binade::ops {

void NormOnTape::operator()(BackwardOnTape& tape, const Tensor& x, const Tensor& weight,
                            int weight_input, int bias_input, const Tensor& dy) const {
  const DType wide = statistics_dtype(x.dtype());
  const Tensor in = to(x, wide), given = to(reshape(dy, x.shape()), wide);
  const Tensor deviations = subtract_mean ? in - mean(in, statistics, true) : in;
  const Tensor normalised = deviations * rsqrt(mean(square(deviations), statistics, true) + eps);
  if (tape.needed(weight_input)) tape.give(weight_input, sum(given * normalised, broadcast));
  if (subtract_mean && tape.needed(bias_input)) tape.give(bias_input, sum(given, broadcast));
  tape.through(normalised, given * to(weight, wide));
}

}  // namespace binade::ops
