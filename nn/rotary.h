// Rotary position embedding (Su et al. 2021): tables of cosines and sines in f32.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include <binade/nn/module.h>
#include <binade/nn/rope_frequencies.h>
#include <binade/nn/sequence.h>

namespace binade::nn {

// The rows of the tables for one forward pass.
class RotaryTables {
 public:
  RotaryTables(Tensor cos, Tensor sin, bool a_row_per_token)
      : cos_(std::move(cos)), sin_(std::move(sin)), a_row_per_token_(a_row_per_token) {}
  // x (B, T, H, D), the layout of a projection → rotated, (B, H, T, D).
  Tensor rotate(const Tensor& x) const;
  // Whether the rows of a batch share their positions, and so these tables (T, R/2).
  bool shared() const { return !a_row_per_token_; }
  const Tensor& cos() const { return cos_; }
  const Tensor& sin() const { return sin_; }

 private:
  Tensor cos_, sin_;  // (T, R/2), or (B·T, R/2) with a row per token
  bool a_row_per_token_;
};

// Where frequencies depend on the length of a text (dynamic, longrope), a pass over whole texts
// turns all tokens by those of its length: of a row of Sequence::lengths, else of all its tokens. A
// pass of decoding turns a token by those of the text that it ends, as transformers does.
class Rotary : public Module {
 public:
  Rotary(int64_t head_dim, int64_t max_positions, const RopeConfig& config);
  // The rows for `tokens` tokens a sequence. Throws Error beyond max_positions (unless the
  // positions are on the device: then the device's fault word says so), and for rows of several
  // texts whose lengths may matter.
  RotaryTables at(const Sequence& sequence, int64_t tokens) const;

 private:
  using Tables = std::pair<Tensor, Tensor>;  // cosines and sines, (T, R/2)
  // Those of a text of `length` tokens, for its first `tokens`. Kept for the next pass where such
  // passes are alike, the last used ones. A graph that is captured meanwhile owns what it reads.
  Tables of_text(int64_t length, int64_t tokens, bool keep) const;
  Tables rows(int64_t begin, int64_t end) const;

  int64_t head_dim_;
  RopeConfig config_;
  BufferPtr cos_, sin_;  // (max_positions, R/2): row p is that of a text of p + 1 tokens
  mutable std::mutex mutex_;
  struct Longer {
    int64_t length;
    Tables tables;
  };
  mutable std::vector<Longer> longer_;  // of texts beyond the original positions; newest use last
};

}  // namespace binade::nn
