// KvCache: the keys and values of the tokens seen so far, so that each new token costs one row.
//
//   KvCache cache(layers, slots, capacity, device);
//   hidden = model.hidden_states(prompts, cache.prefill({0, 1}, {7, 3}));  // (2, 7), padded
//   hidden = model.hidden_states(ids, cache.decode(1));                    // (slots, 1)
//   cache.advance(ones);
//
// It holds a fixed number of tokens for a fixed number of sequences, its slots, and never moves:
// lengths are on the device, and a pass of decode() reads there whatever changes from one to the
// next. Captured as a graph, it may be replayed.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/nn/sequence.h>

namespace binade::infer {

// The pending tokens of a pass as a tree (or several, one a slot). Undefined arrays: a chain, each
// token the child of the one before.
struct TokenTree {
  // Edges from the root to a token, (T) or (B, T) i32: its position is that of the root plus this.
  Array depths;
  // Which pending tokens a token sees, (T) or (B, T) i64: bit j of its word stands for token j.
  // Its own bit and those of its ancestors; all tokens see the whole prefix.
  Array visible;
};

class KvCache : public nn::KeyValueStore {
 public:
  static constexpr int64_t kMostPending = 64;

  // Memory for the keys and values comes with the first pass: their dtype and sizes are the
  // cache's. A pass may bring `spare` tokens more than a slot has room for, which are never held:
  // the last of a draft tree, where a text ends. Throws Error for sizes that are not positive.
  KvCache(int64_t layers, int64_t slots, int64_t capacity, Device device = {}, int64_t spare = 0);
  ~KvCache() override;
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // A pass of whole prompts into some slots, whose content is forgotten; other slots keep theirs.
  // Row b of the pass (B, T) is the first lengths[b] tokens of what slot slots[b] will hold, the
  // rest is padding. Throws Error for a length beyond T or the capacity, for slots that are not
  // there or come twice.
  nn::Sequence prefill(const std::vector<int32_t>& slots, const std::vector<int32_t>& lengths);

  // A pass of 1 to kMostPending tokens for every slot, behind the tokens that it holds and behind
  // `first` pending tokens of earlier passes. They are pending, too, until advance() or compact()
  // takes them; the next pass with a `first` of 0 overwrites them. `running` (slots) i32 on the
  // device: slots where it is not positive are left out; undefined: none is. A slot that has no
  // room is an Error on the CPU, on a GPU a device fault (core/device_errors.h).
  nn::Sequence decode(int64_t tokens, const Array& running = {}, const TokenTree& tree = {},
                      int64_t first = 0);

  // The first counts[s] pending tokens of slot s are held from now on; counts (slots) i32 on the
  // device.
  void advance(const Array& counts);
  // Of the pending tokens nodes[s] (slots, M) i32, ascending, the first counts[s] are held from now
  // on, in that order. On the path of a tree every node comes behind its parent.
  void compact(const Array& nodes, const Array& counts);

  int64_t slots() const { return lengths_.size(0); }
  int64_t capacity() const { return capacity_; }
  // Tokens held, (slots) i32 on the device. A smaller number written here takes back the last
  // tokens.
  const Array& lengths() const { return lengths_; }

  // Throws Error where the result would be recorded on the tape: the cache has no gradient.
  Tensor attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                int64_t window) override;
  bool takes_few_rows(int64_t window) const override;
  bool attends_in_block(const kernels::FewRows& in,
                        const kernels::FewRowsAttention& layers) const override;
  Array attend_few_rows(int64_t layer, const kernels::FewRows& in,
                        const kernels::FewRowsAttention& layers, double scale) override;

 private:
  // For keys of a pass, (B, H, T, D).
  void allocate(int64_t heads, int64_t head_dim, DType dtype);
  void check_layer(int64_t layer) const;
  // q and out (B, Hq, T, D).
  void attend_cached(const Array& q, const Array& keys, const Array& values, double scale,
                     int64_t window, const Array& out) const;
  void check_flags(const char* what, const Array& array) const;  // (slots) i32 or undefined
  void check_pass(const Tensor& keys) const;

  int64_t layers_, capacity_, spare_;
  Array lengths_;
  Array keys_, values_;  // (layers, slots, Hkv, capacity + spare, D)
  struct Pass;
  std::unique_ptr<Pass> pass_;  // the one under way
};

}  // namespace binade::infer
