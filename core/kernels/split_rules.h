// Who sees whom in a packed row of texts and images, once for CPU and GPU (BAGEL, arXiv
// 2505.14683, section 3). Each slot of a row belongs to a sample and, within it, to a split: a
// text, an image or a noised image. A slot says so in four numbers, so that it may lie anywhere in
// its row, and no mask of T · T elements exists.
#pragma once

#include <cstdint>

#include <binade/core/host_device.h>

namespace binade::kernels {

enum SplitMode : int32_t {
  kCausalSplit = 0,  // text: a slot sees those before it
  kFullSplit = 1,    // an image: its slots see each other
  kNoiseSplit = 2,   // a noised image: likewise, and no other split sees it
};

struct Slot {
  int32_t sample;  // −1: a spare slot: neither sees nor is seen, whatever (NaN, too) lies there
  int32_t order;   // its place in the sample
  int32_t split;   // a number in the sample
  int32_t mode;    // SplitMode
};
inline constexpr int64_t kSlotFields = 4;

BINADE_HOST_DEVICE inline bool sees(const Slot& q, const Slot& k) {
  const bool own = q.split == k.split;
  return q.sample == k.sample && q.sample >= 0 &&
         (k.order <= q.order || (own && q.mode != kCausalSplit)) && (k.mode != kNoiseSplit || own);
}

// The same in three comparisons, for who evaluates it often: meets(asking(q), asked(k)) is sees(q,
// k), as long as all slots of a split have its mode and numbers of splits and orders are not
// negative. A slot keeps its sample, or is spare as before.
BINADE_HOST_DEVICE inline Slot asking(const Slot& q) {
  return {q.sample < 0 ? -1 : q.sample, q.order, q.mode == kCausalSplit ? -1 : q.split, q.mode};
}
BINADE_HOST_DEVICE inline Slot asked(const Slot& k) {
  return {k.sample < 0 ? -2 : k.sample, k.mode == kNoiseSplit ? INT32_MAX : k.order, k.split,
          k.mode};
}
BINADE_HOST_DEVICE inline bool meets(const Slot& asking, const Slot& asked) {
  const bool same = asking.sample == asked.sample, own = asked.split == asking.split,
             reached = asked.order <= asking.order;
  return same & (reached | own);  // no branches
}

// Slots (B, 4, T) in memory: the fields in the order above, contiguous along T.
struct SlotTable {
  const int32_t* data;  // null: there are none
  int64_t batch_stride, field_stride;

  BINADE_HOST_DEVICE const int32_t* field(int64_t batch, int64_t number) const {
    return data + batch * batch_stride + number * field_stride;
  }
  BINADE_HOST_DEVICE Slot at(int64_t batch, int64_t place) const {
    const int32_t* first = field(batch, 0) + place;
    return {first[0], first[field_stride], first[2 * field_stride], first[3 * field_stride]};
  }
};

}  // namespace binade::kernels
