// INTERNAL. A hash map from pairs of token ids to small values: open addressing, no removal. BPE
// looks up one pair for every two neighbouring symbols, which is most of what it does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace binade::data {

template <class Value>
class PairMap {
 public:
  PairMap() { slots_.resize(16); }

  size_t size() const { return size_; }

  const Value* find(int32_t left, int32_t right) const {
    const Slot& slot = slots_[locate(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.value;
  }

  // The value of the pair, made by default if it is new. A later insertion may move it.
  Value& operator()(int32_t left, int32_t right) {
    const uint64_t key = key_of(left, right);
    size_t at = locate(key);
    if (slots_[at].key == kEmpty) {
      if (2 * (size_ + 1) > slots_.size()) {
        grow();
        at = locate(key);
      }
      slots_[at].key = key;
      ++size_;
    }
    return slots_[at].value;
  }

  // Calls visit(left, right, value) for every pair, in no particular order.
  template <class Visit>
  void for_each(const Visit& visit) {
    for (Slot& slot : slots_) {
      if (slot.key != kEmpty) {
        visit(static_cast<int32_t>(slot.key >> 32), static_cast<int32_t>(slot.key), slot.value);
      }
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // ids are not negative
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

  size_t locate(uint64_t key) const {
    uint64_t hash = key * 0x9E3779B97F4A7C15u;  // Fibonacci hashing, high bits folded in
    hash ^= hash >> 32;
    size_t at = hash & (slots_.size() - 1);
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (Slot& slot : old) {
      if (slot.key != kEmpty) slots_[locate(slot.key)] = std::move(slot);
    }
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  size_t size_ = 0;
};

}  // namespace binade::data
