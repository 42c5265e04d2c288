// Where the tokens of a forward pass stand in their sequences, and what they may look at.
#pragma once

#include <cstdint>
#include <vector>

#include <binade/autograd/tensor.h>

namespace binade::kernels {
struct FewRows;
struct FewRowsAttention;
}  // namespace binade::kernels

namespace binade::nn {

// What attention asks of a key-value cache (infer/kv_cache.h has the one that generation uses): it
// keeps what a pass brings, and attends to all that the pass may look at.
class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;
  // q (B, Hq, T, D), k and v (B, Hkv, T, D) of a layer, rotated where the model rotates → (B, Hq,
  // T, D). Its memory is laid out (B, T, Hq, D), so that merging the heads copies nothing. `scale`
  // of the scores; 0: 1/√D. window > 0: a token sees so many positions at most, its own among
  // them. What generation uses has no gradient.
  virtual Tensor attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                        double scale, int64_t window) = 0;

  // The same for the few rows of a step of decoding, on a GPU, whose projections are still to be
  // made (core/kernels/few_rows.h): in.x (B·T, dim), row b·T + t → (B·T, Hq·D), or what
  // layers.output makes of it, in parts. They know no window: only where takes_few_rows() says so
  // of the pass, for a layer with such a window (0: none).
  virtual bool takes_few_rows(int64_t /*window*/) const { return false; }
  // Whether attend_few_rows() does all of it up to layers.output in one kernel.
  virtual bool attends_in_block(const kernels::FewRows&, const kernels::FewRowsAttention&) const {
    return false;
  }
  virtual Array attend_few_rows(int64_t layer, const kernels::FewRows& in,
                                const kernels::FewRowsAttention& layers, double scale);
};

// The default is training's case: whole sequences from position 0, causal.
struct Sequence {
  int64_t start = 0;  // position of the first token of every row
  Tensor positions;   // (B, T) i32, token by token, where rows differ; then not `start`
  // Of a pass over prompts: the tokens of each row, behind which there is padding; empty: all.
  std::vector<int32_t> lengths;
  Tensor mask;       // as AttentionOptions::mask, in place of the causal one; without a cache
  Tensor documents;  // (B, T) i32, in place of a mask: see AttentionOptions; without a cache
  KeyValueStore* cache = nullptr;
  int64_t layers = 0;  // only so many of the first layers, then the last norm; 0: all
};

}  // namespace binade::nn
