// The rows of a pass as plain numbers (private to this folder).
#pragma once

#include <algorithm>

#include <binade/core/kernels/decode.h>

namespace binade::kernels::cpu {

struct RowReader32 {
  explicit RowReader32(const Array& array)
      : data(array.defined() ? array.data<int32_t>() : nullptr) {}
  int64_t at(int64_t i, int64_t otherwise) const { return data ? data[i] : otherwise; }
  const int32_t* data;
};

class PassView {
 public:
  // `tokens` a row.
  PassView(const PassRows& rows, int64_t tokens)
      : lengths_(rows.lengths),
        slots_(rows.slots),
        counts_(rows.counts),
        running_(rows.running),
        first_(rows.first),
        tokens_(tokens) {}

  int64_t slot(int64_t row) const { return slots_.at(row, row); }
  int64_t length(int64_t row) const { return lengths_.at(slot(row), 0); }
  // Where the row's first token goes.
  int64_t begin(int64_t row) const { return length(row) + first_; }
  int64_t count(int64_t row) const {
    if (running_.at(slot(row), 1) <= 0) return 0;
    return std::clamp<int64_t>(counts_.at(row, tokens_), 0, tokens_);
  }

 private:
  RowReader32 lengths_, slots_, counts_, running_;
  int64_t first_, tokens_;
};

}  // namespace binade::kernels::cpu
