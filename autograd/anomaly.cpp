#include <binade/autograd/anomaly.h>

#include <string>

#include <binade/autograd/value_range.h>

namespace binade {

namespace {

class NanFinder : public OpObserver {
 public:
  void on_forward(const char* name, const TensorList& inputs,
                  const std::vector<Array>& outputs) override {
    for (const Array& output : outputs) {
      if (finiteness(output) != Finiteness::nan) continue;
      std::string text;
      for (const Tensor& input : inputs)
        text += "; input " + describe_range(input.defined() ? input.array() : Array());
      fail("anomaly: the forward pass of ", name, " produced a NaN", text);
    }
  }
  void on_backward(const char* name, const std::vector<Array>& doutputs,
                   const std::vector<Array>& dinputs) override {
    for (const Array& gradient : dinputs) {
      if (finiteness(gradient) != Finiteness::nan) continue;
      std::string text;
      for (const Array& upstream : doutputs)
        text += "; gradient coming in " + describe_range(upstream);
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
