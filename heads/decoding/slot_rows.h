// SlotRows: a row of numbers for each slot of a batch, in memory that stays where it is.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>

namespace binade::heads::decoding {

// x (B, M, D) → (B, N, D): elements index (B, N) i32 of each row, cut to 0 … M − 1.
inline Tensor elements_at(const Tensor& x, const Tensor& index) {
  const int64_t rows = x.size(0), length = x.size(1);
  const auto number = [&](int64_t value) {
    return Tensor(Array::full({}, static_cast<double>(value), DType::i32, x.device()));
  };
  const Tensor first = Tensor(Array::arange(rows, DType::i32, x.device())) * number(length);
  const Tensor at = minimum(maximum(index, number(0)), number(length - 1));
  return embedding(reshape(x, {rows * length, x.size(2)}), unsqueeze(first, -1) + at);
}
// … (B, D): element index (B) of each row.
inline Tensor element_at(const Tensor& x, const Tensor& index) {
  return squeeze(elements_at(x, unsqueeze(index, -1)), 1);
}

// The slots of a pass's rows.
inline std::vector<int32_t> slots_of(const std::vector<int32_t>& slots, int64_t rows) {
  if (!slots.empty()) return slots;
  std::vector<int32_t> all(static_cast<size_t>(rows));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// Where the newest of a pass's tokens stand: the last that counts of each slot.
struct NewestRows {
  // counts (S) i32 of M tokens each.
  NewestRows(const Tensor& counts, int64_t length) {
    const auto number = [&](int64_t value) {
      return Tensor(Array::full({}, static_cast<double>(value), DType::i32, counts.device()));
    };
    const Tensor zero = number(0);
    running = unsqueeze(greater(counts, zero), -1);
    const Tensor place = minimum(maximum(counts - 1.0, zero), number(length - 1));
    if (counts.size(0) == 1) {
      among = place;
      return;
    }
    among =
        Tensor(Array::arange(counts.size(0), DType::i32, counts.device())) * number(length) + place;
  }
  // x (S, M, D) → (S, D).
  Tensor of(const Tensor& x) const { return index_select(reshape(x, {-1, x.size(2)}), 0, among); }

  Tensor running;  // (S, 1) bool
  Tensor among;    // (S) i32: among all S·M
};

class SlotRows {
 public:
  // Of the row for each slot in `slots`, from rows (B, D). The first call makes the memory, (S, D).
  void put(const std::vector<int32_t>& slots, const Tensor& rows, int64_t all_slots) {
    const Array& values = rows.array();
    if (!rows_.defined())
      rows_ = Array::zeros({all_slots, values.size(1)}, values.dtype(), values.device());
    for (size_t b = 0; b < slots.size(); ++b) {
      const auto row = static_cast<int64_t>(b);
      rows_.slice(0, slots[b], slots[b] + 1).copy_from(values.slice(0, row, row + 1));
    }
  }
  // Row sources[s] of rows (R, D) for each slot s that is running, sources (S) i32 and running (S)
  // or (S, 1) bool; undefined sources: row s.
  void update(const Tensor& rows, const Array& sources, const Array& running);
  bool defined() const { return rows_.defined(); }
  Tensor rows() const { return Tensor(rows_); }  // (S, D)

 private:
  Array rows_;
};

}  // namespace binade::heads::decoding
