#include <binade/core/error.h>
#include <binade/data/token_source.h>

#include <algorithm>

namespace binade::data {

void check_token_range(int64_t first, size_t count, int64_t size) {
  check(first >= 0 && first <= size && count <= static_cast<uint64_t>(size - first), "tokens ",
        first, " to ", first + static_cast<int64_t>(count), " are out of range: there are ", size);
}

MemoryTokens::MemoryTokens(std::vector<int32_t> tokens, int64_t vocab_size)
    : tokens_(std::move(tokens)), vocab_size_(vocab_size) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    check(tokens_[i] >= 0 && tokens_[i] < vocab_size, "token ", i, " has id ", tokens_[i],
          ", which is out of range for a vocabulary of ", vocab_size);
  }
}

void MemoryTokens::read(int64_t first, std::span<int32_t> out) const {
  check_token_range(first, out.size(), size());
  std::copy_n(tokens_.begin() + first, out.size(), out.begin());
}

}  // namespace binade::data
