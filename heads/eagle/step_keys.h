// INTERNAL. The keys and values of a training-time test: what attention of a step sees of the steps
// before it.
#pragma once

#include <binade/autograd/ops/attention.h>
#include <binade/core/error.h>
#include <binade/nn/sequence.h>

namespace binade::heads::eagle {

// For one pass of one layer: attend() adds the pass's own keys and values to those of earlier
// steps. Gradients flow through it. No state is shared between passes, so that one may be run again
// in backward.
class StepKeys : public nn::KeyValueStore {
 public:
  // keys and values (B, Hkv, T, D) of steps 0, 1, …; documents (B, T) i32, or undefined.
  StepKeys(TensorList keys, TensorList values, Tensor documents)
      : keys_(std::move(keys)), values_(std::move(values)), documents_(std::move(documents)) {}

  const Tensor& newest_keys() const { return keys_.back(); }
  const Tensor& newest_values() const { return values_.back(); }

  Tensor attend(int64_t /*layer*/, const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                int64_t window) override {
    check(window == 0, "a draft layer has no sliding window");
    keys_.push_back(k);
    values_.push_back(v);
    AttentionOptions options;
    options.causal = true;
    options.documents = documents_;
    options.scale = scale;
    return attention_with_columns(q, keys_[0], values_[0], {keys_.begin() + 1, keys_.end()},
                                  {values_.begin() + 1, values_.end()}, options);
  }

 private:
  TensorList keys_, values_;
  Tensor documents_;
};

}  // namespace binade::heads::eagle
