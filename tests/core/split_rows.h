// Rows that pack splits, as slots and as the mask that says the same. The mask comes from the
// samples as sequences, not from kernels::sees().
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include <binade/core/array.h>
#include <binade/core/kernels/split_rules.h>

namespace binade::test {

// A sample as a sequence: which split each of its tokens belongs to, and the mode of each split.
struct Sequence {
  std::vector<int32_t> split, modes;
};

inline Sequence random_sequence(std::mt19937& random) {
  Sequence sequence;
  const int splits = 1 + static_cast<int>(random() % 6);
  for (int32_t split = 0; split < splits; ++split) {
    sequence.modes.push_back(static_cast<int32_t>(random() % 3));
    sequence.split.insert(sequence.split.end(), 1 + random() % 20, split);
  }
  return sequence;
}

// What BAGEL's code builds token by token: of the earlier splits all but the noised ones; of its
// own a text token those up to itself, an image token all.
inline bool may_see(const Sequence& sequence, size_t q, size_t k) {
  const int32_t own = sequence.split[q], other = sequence.split[k];
  if (own == other) return sequence.modes[static_cast<size_t>(own)] != 0 || k <= q;
  return other < own && sequence.modes[static_cast<size_t>(other)] != 2;
}

struct SplitRows {
  Array slots;  // (B, 4, T) i32
  Array mask;   // (B, 1, T, T) bool
};

// Rows with nothing in them but spare slots.
inline SplitRows spare_rows(int64_t batch, int64_t tokens) {
  const SplitRows rows{Array::empty({batch, kernels::kSlotFields, tokens}, DType::i32),
                       Array::zeros({batch, 1, tokens, tokens}, DType::boolean)};
  std::fill_n(rows.slots.data<int32_t>(), rows.slots.numel(), -1);
  return rows;
}

// Puts a sample into row `b`: its token i at places[i].
inline void place(const SplitRows& rows, int64_t b, int32_t sample, const Sequence& sequence,
                  const int64_t* places) {
  const int64_t tokens = rows.slots.size(2);
  int32_t* const slots = rows.slots.data<int32_t>() + b * kernels::kSlotFields * tokens;
  bool* const mask = rows.mask.data<bool>() + b * tokens * tokens;
  const size_t count = sequence.split.size();
  for (size_t i = 0; i < count; ++i) {
    const int64_t at = places[i];
    slots[at] = sample;
    slots[at + tokens] = static_cast<int32_t>(i);
    slots[at + 2 * tokens] = sequence.split[i];
    slots[at + 3 * tokens] = sequence.modes[static_cast<size_t>(sequence.split[i])];
    for (size_t k = 0; k < count; ++k) mask[at * tokens + places[k]] = may_see(sequence, i, k);
  }
}

// Rows of samples, whose tokens lie anywhere among spare slots.
inline SplitRows random_split_rows(int64_t batch, int64_t tokens, std::mt19937& random) {
  const SplitRows rows = spare_rows(batch, tokens);
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<int64_t> places(static_cast<size_t>(tokens));
    std::iota(places.begin(), places.end(), 0);
    // Within windows, so that whole blocks belong to few samples.
    for (int64_t first = 0; first < tokens; first += 100)
      std::shuffle(places.begin() + first, places.begin() + std::min(first + 100, tokens), random);
    size_t used = 0;
    for (int32_t sample = 0;; ++sample) {
      const Sequence sequence = random_sequence(random);
      if (used + sequence.split.size() > places.size() - 7) break;
      place(rows, b, sample, sequence, places.data() + used);
      used += sequence.split.size();
    }
  }
  return rows;
}

// Rows whose slots are in order and all used: samples of splits of the given length and modes, each
// split a sample of its own or all of them one sample. The last one is cut off.
inline SplitRows even_split_rows(int64_t batch, int64_t tokens, int64_t length, bool one_sample,
                                 const std::vector<int32_t>& modes) {
  const SplitRows rows = spare_rows(batch, tokens);
  std::vector<int64_t> places(static_cast<size_t>(tokens));
  std::iota(places.begin(), places.end(), 0);
  for (int64_t b = 0; b < batch; ++b) {
    Sequence sequence;
    int32_t sample = 0;
    for (int64_t first = 0; first < tokens; first += length) {
      const int64_t count = std::min(length, tokens - first);
      const auto split = static_cast<int32_t>(sequence.modes.size());
      sequence.modes.push_back(modes[static_cast<size_t>(first / length) % modes.size()]);
      sequence.split.insert(sequence.split.end(), static_cast<size_t>(count), split);
      if (one_sample && first + count < tokens) continue;
      place(rows, b, sample++, sequence,
            places.data() + first + count - static_cast<int64_t>(sequence.split.size()));
      sequence = {};
    }
  }
  return rows;
}

}  // namespace binade::test
