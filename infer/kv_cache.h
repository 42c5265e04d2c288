// KvCache: the keys and values of the tokens seen so far, so that each new token costs one row.
//
//   KvCache cache(layers, batch);
//   hidden = model.hidden_states(prompts, cache.next(tokens));   // (B, T)
//   cache.advance(lengths);                                      // rows may be padded at the end
//   hidden = model.hidden_states(ids, cache.next(1));            // (B, 1)
//   cache.advance(1);
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <binade/nn/sequence.h>

namespace binade::infer {

class KvCache : public nn::KeyValueStore {
 public:
  // Room for `capacity` tokens a row at once; more is added in steps of kBucket, by copying. Memory
  // comes with the first keys: their dtype, device and sizes are the cache's.
  KvCache(int64_t layers, int64_t batch, int64_t capacity = 0);

  // The place of the next `tokens` tokens of every row. Rows of different lengths go on at their
  // own positions: each sees its own tokens only, and what padding left behind is overwritten.
  nn::Sequence next(int64_t tokens);
  // What next() announced is in: all of it, or the first lengths[b] tokens of row b.
  void advance(int64_t tokens);
  void advance(const std::vector<int64_t>& tokens);

  int64_t batch() const { return static_cast<int64_t>(lengths_.size()); }
  const std::vector<int64_t>& lengths() const { return lengths_; }  // tokens a row
  int64_t longest() const;

  // Throws Error where keys or values would be recorded on the tape: the cache has no gradient.
  std::pair<Tensor, Tensor> extend(int64_t layer, const Tensor& keys,
                                   const Tensor& values) override;

 private:
  static constexpr int64_t kBucket = 256;  // tokens

  struct Layer {
    Array keys, values;  // (B, Hkv, capacity, D)
  };
  bool is_ragged() const;
  // Writes `fresh` (B, Hkv, T, D) behind the rows' present tokens; returns all, (B, Hkv, Tk, D).
  Tensor append(Array& store, const Tensor& fresh) const;

  std::vector<Layer> layers_;
  std::vector<int64_t> lengths_;
  int64_t capacity_;
  Tensor positions_;  // of the pass under way, where rows differ: (B, T) i32
};

}  // namespace binade::infer
