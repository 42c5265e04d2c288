// Anomaly mode: names the op that first produced a NaN.
#include <binade/autograd/tape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

namespace {

// Reduces a whole array to one number (waits for the device).
double reduce_all(kernels::ReduceOp op, const Array& x) {
  const Array flat = x.reshape({-1});
  const Array out = Array::empty({1}, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), reduce(op, flat, out, 0));
  return out.item();
}

// max propagates NaN, so one reduction answers.
bool has_nan(const Array& x) {
  if (!x.defined() || !is_floating(x.dtype()) || x.numel() == 0) return false;
  const double largest = reduce_all(kernels::ReduceOp::max, x);
  return largest != largest;
}

std::string range(const Array& x) {
  if (!x.defined()) return "none";
  std::string text = concat(x.dtype(), ' ', x.shape());
  if (x.numel() == 0 || x.dtype() == DType::boolean) return text;
  return concat(text, " in [", reduce_all(kernels::ReduceOp::min, x), ", ",
                reduce_all(kernels::ReduceOp::max, x), "]");
}

class NanFinder : public OpObserver {
 public:
  void on_forward(const char* name, const TensorList& inputs,
                  const std::vector<Array>& outputs) override {
    for (const Array& output : outputs) {
      if (!has_nan(output)) continue;
      std::string text;
      for (const Tensor& input : inputs)
        text += "; input " + range(input.defined() ? input.array() : Array());
      fail("anomaly: the forward pass of ", name, " produced a NaN", text);
    }
  }
  void on_backward(const char* name, const std::vector<Array>& doutputs,
                   const std::vector<Array>& dinputs) override {
    for (const Array& gradient : dinputs) {
      if (!has_nan(gradient)) continue;
      std::string text;
      for (const Array& upstream : doutputs) text += "; gradient coming in " + range(upstream);
      fail("anomaly: the backward pass of ", name, " produced a NaN", text);
    }
  }
};

}  // namespace

AnomalyMode::AnomalyMode()
    : observer_(std::make_unique<NanFinder>()), previous_(exchange_op_observer(observer_.get())) {}

AnomalyMode::~AnomalyMode() {
  exchange_op_observer(previous_);
}

}  // namespace binade
