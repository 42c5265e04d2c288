// SlotCache: the keys and values of packed passes seen so far, and what their slots are. What a
// later pass sees is told by the slots (AttentionOptions::query_slots), so that rows may hold
// different numbers of tokens, and spare slots cost no more than their memory.
//
//   SlotCache cache(layers, rows, capacity, device);
//   in.store = &cache;
//   cache.begin(in.slots);
//   model.forward(in);   // attends to what is held, and to itself
//   cache.keep();        // or not: a pass over noised latents leaves nothing behind
#pragma once

#include <cstdint>

#include <binade/nn/mot/block.h>

namespace binade::infer {

class SlotCache : public nn::SlotStore {
 public:
  // Memory for the keys comes with the first pass. Throws Error for sizes that are not positive.
  SlotCache(int64_t layers, int64_t rows, int64_t capacity, Device device);

  // A pass over slots (rows, 4, T) i32 on the device. What the pass before brought is forgotten
  // unless it was kept. Throws Error where T slots are more than there is room for.
  void begin(const Tensor& slots);
  Tensor attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v) override;
  // The tokens of the pass are held from now on.
  void keep();

  int64_t held() const { return held_; }  // slots of a row
  int64_t capacity() const { return slots_.size(2); }

 private:
  int64_t layers_, held_ = 0, pass_ = 0;
  Array slots_;          // (rows, 4, capacity) i32
  Array keys_, values_;  // (layers, rows, Hkv, capacity, D)
};

}  // namespace binade::infer
