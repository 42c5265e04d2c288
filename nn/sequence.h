// Where the tokens of a forward pass stand in their sequences, and what they may look at.
#pragma once

#include <utility>

#include <binade/autograd/tensor.h>

namespace binade::nn {

// What attention asks of a key-value cache (infer/kv_cache.h has the one that generation uses).
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  // Keeps the new keys and values (B, Hkv, T, D) of a layer and returns all that this pass may look
  // at, (B, Hkv, Tk, D) each.
  virtual std::pair<Tensor, Tensor> extend(int64_t layer, const Tensor& keys,
                                           const Tensor& values) = 0;
};

// The default is training's case: whole sequences from position 0, causal.
struct Sequence {
  int64_t start = 0;  // position of the first token of every row
  Tensor positions;   // (B, T) i32, token by token, where rows differ; then not `start`
  Tensor mask;        // as AttentionOptions::mask, in place of the causal one
  KeyValueStore* cache = nullptr;  // no gradient flows through it
};

}  // namespace binade::nn
