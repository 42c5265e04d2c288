// Guessing among the most frequent tokens only. A guess costs little more than the read of the
// output layer; N of its V rows are read in N/V of the time, and text is written with few of the
// tokens (Zhao et al. 2025, "FR-Spec"). What is accepted stays the target's choice among all of
// them: a token outside is never guessed, and that is all.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <binade/autograd/tensor.h>

namespace binade::heads::decoding {

class DraftVocabulary {
 public:
  DraftVocabulary() = default;  // all tokens
  // In any order. Throws Error for none, for one that comes twice, and for one outside of
  // [0, vocabulary).
  DraftVocabulary(std::vector<int32_t> ids, int64_t vocabulary);
  // The `size` tokens with the largest counts (V), of equals the smaller id; all of them where the
  // vocabulary is no larger. Throws Error for a size below 1.
  static DraftVocabulary most_frequent(std::span<const int64_t> counts, int64_t size);

  bool whole() const { return ids_.empty(); }
  const std::vector<int32_t>& ids() const { return ids_; }  // ascending; empty for all tokens
  // Of `vocabulary` tokens, those that are among them.
  int64_t size(int64_t vocabulary) const {
    return whole() ? vocabulary : static_cast<int64_t>(ids_.size());
  }

 private:
  std::vector<int32_t> ids_;
};

// An output layer as guesses are made with it.
class DraftOutput {
 public:
  // logits(hidden) (R, N) for hidden (R, dim). names (N) i32: the tokens of its columns; undefined:
  // they are their own.
  explicit DraftOutput(std::function<Tensor(const Tensor&)> logits, Array names = {})
      : logits_(std::move(logits)), names_(std::move(names)) {}
  // Of a part: the rows of weight (≥ V, dim) that belong to its tokens are copied.
  DraftOutput(const Tensor& weight, const DraftVocabulary& part);

  // tokens (R, k) i32, rows with a contiguous last dimension: the k likeliest of each row of hidden
  // (R, dim), of equals the smaller id first; kNoToken where logits have a NaN.
  void guess(const Tensor& hidden, const Array& tokens) const;

 private:
  std::function<Tensor(const Tensor&)> logits_;
  Array names_;  // (N) i32: tokens of the columns; undefined: they are their own
};

}  // namespace binade::heads::decoding
