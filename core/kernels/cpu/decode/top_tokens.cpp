// The most probable tokens of rows of logits.
#include <algorithm>
#include <cmath>
#include <limits>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/drafts.h>

namespace binade::kernels::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Keeps the `count` best of what it is shown in ascending order of ids.
class Best {
 public:
  Best(int32_t* tokens, int64_t count) : tokens_(tokens), count_(count) {}

  void show(float logit, int32_t token) {
    if (held_ == count_ && logit <= logits_[count_ - 1]) return;
    int64_t place = held_ < count_ ? held_++ : count_ - 1;
    for (; place > 0 && logit > logits_[place - 1]; --place) {
      logits_[place] = logits_[place - 1];
      tokens_[place] = tokens_[place - 1];
    }
    logits_[place] = logit;
    tokens_[place] = token;
  }
  float largest() const { return logits_[0]; }

 private:
  float logits_[kMostTopTokens] = {};
  int32_t* tokens_;
  int64_t count_, held_ = 0;
};

void top_of_row(const float* logits, int64_t vocabulary, const int32_t* names, int32_t* tokens,
                int64_t count) {
  Best best(tokens, count);
  bool valid = true;
  for (int64_t i = 0; i < vocabulary; ++i) {
    valid = valid && !std::isnan(logits[i]);
    best.show(logits[i], static_cast<int32_t>(i));
  }
  if (!valid || best.largest() == kNever)
    std::fill_n(tokens, count, -1);
  else if (names)
    std::transform(tokens, tokens + count, tokens, [&](int32_t column) { return names[column]; });
}

}  // namespace

void top_tokens(const Array& logits, const Array& names, const Array& tokens) {
  const int64_t vocabulary = logits.size(1), count = tokens.size(1);
  const Rows rows(logits);
  auto* out = tokens.data<int32_t>();
  const int32_t* named = names.defined() ? names.data<int32_t>() : nullptr;
  parallel_for(logits.size(0), row_grain(vocabulary), [&](int64_t begin, int64_t end) {
    RowReader<float> reader;
    for (int64_t r = begin; r < end; ++r)
      top_of_row(reader.read(rows[r], rows.dtype, vocabulary), vocabulary, named,
                 out + r * tokens.stride(0), count);
  });
}

}  // namespace binade::kernels::cpu
