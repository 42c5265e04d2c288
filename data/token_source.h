// A long row of tokens that training reads windows of.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace binade::data {

// Immutable and safe to read from several threads.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  virtual int64_t size() const = 0;        // in tokens
  virtual int64_t vocab_size() const = 0;  // every token is in [0, vocab_size)
  // Copies tokens first .. first + out.size() - 1. Error when they are out of range.
  virtual void read(int64_t first, std::span<int32_t> out) const = 0;
};

// Tokens in memory.
class MemoryTokens : public TokenSource {
 public:
  // Error when a token is not in the vocabulary.
  MemoryTokens(std::vector<int32_t> tokens, int64_t vocab_size);

  int64_t size() const override { return static_cast<int64_t>(tokens_.size()); }
  int64_t vocab_size() const override { return vocab_size_; }
  void read(int64_t first, std::span<int32_t> out) const override;

 private:
  std::vector<int32_t> tokens_;
  int64_t vocab_size_;
};

// Throws Error unless [first, first + count) lies in [0, size).
void check_token_range(int64_t first, size_t count, int64_t size);

}  // namespace binade::data
