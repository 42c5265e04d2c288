#include <binade/amp/overflow_diagnosis.h>

#include <string_view>

#include <binade/core/value_range.h>

namespace binade::amp {

class OverflowDiagnosis::Finder : public OpObserver {
 public:
  void on_forward(const char* name, const TensorList& inputs,
                  const std::vector<Array>& outputs) override {
    // Masks are filled with -inf on purpose; the softmax behind them gives finite values.
    if (!op.empty() || std::string_view(name) == "masked_fill") return;
    for (const Array& output : outputs) {
      if (!note(name, "forward", output)) continue;
      for (const Tensor& input : inputs)
        text += "input " + describe_range(input.defined() ? input.array() : Array()) + ", ";
      text += "output " + describe_range(output);
      return;
    }
  }

  void on_backward(const char* name, const std::vector<Array>& doutputs,
                   const std::vector<Array>& dinputs) override {
    if (!op.empty()) return;
    for (const Array& gradient : dinputs) {
      if (!note(name, "backward", gradient)) continue;
      in_backward = true;
      for (const Array& upstream : doutputs)
        text += "gradient coming in " + describe_range(upstream) + ", ";
      text += "gradient going out " + describe_range(gradient);
      return;
    }
  }

  std::string op, text;
  bool in_backward = false;

 private:
  // Begins the text if `produced` is not finite.
  bool note(const char* name, const char* pass, const Array& produced) {
    const Finiteness worst = finiteness(produced);
    if (worst == Finiteness::finite) return false;
    op = name;
    text = concat("the ", pass, " pass of ", name, " produced ",
                  worst == Finiteness::nan ? "NaN: " : "inf: ");
    return true;
  }
};

OverflowDiagnosis::OverflowDiagnosis()
    : finder_(std::make_unique<Finder>()), previous_(exchange_op_observer(finder_.get())) {}

OverflowDiagnosis::~OverflowDiagnosis() {
  exchange_op_observer(previous_);
}

bool OverflowDiagnosis::found() const {
  return !finder_->op.empty();
}
const std::string& OverflowDiagnosis::op() const {
  return finder_->op;
}
bool OverflowDiagnosis::in_backward() const {
  return finder_->in_backward;
}
const std::string& OverflowDiagnosis::text() const {
  return finder_->text;
}

}  // namespace binade::amp
