#include <binade/heads/mtp/text_ranks.h>

#include <algorithm>

#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/tape.h>
#include <binade/core/error.h>

namespace binade::heads::mtp {

namespace {

constexpr int64_t kLogitsAtOnce = int64_t{1} << 23;

// states (T, dim) → the `width` likeliest tokens of each row, (T, width).
std::vector<int32_t> likeliest(const nn::CausalLm& base, const Tensor& states, int64_t width) {
  const int64_t rows = states.size(0);
  const int64_t chunk = std::max<int64_t>(kLogitsAtOnce / base.config().vocab_size, 1);
  std::vector<int32_t> tokens;
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const Tensor logits = base.logits(slice(states, 0, begin, std::min(begin + chunk, rows)));
    const auto best = to(topk(logits, width, -1).second, DType::i32).to_vector<int32_t>();
    tokens.insert(tokens.end(), best.begin(), best.end());
  }
  return tokens;
}

}  // namespace

std::vector<std::vector<int32_t>> text_ranks(const MtpHeads& heads,
                                             const std::vector<int32_t>& text, int64_t first,
                                             int64_t width) {
  const auto length = static_cast<int64_t>(text.size());
  check(first >= 1 && first <= length, "ranks in a text of ", length,
        " tokens are counted behind 1 or more of them, got ", first);
  check(width >= 1, "heads are ranked by 1 or more guesses, asked for ", width);
  const NoGrad off;
  const int64_t roots = length - 1 - first;  // a text's last token is no pass's root
  std::vector<std::vector<int32_t>> ranks(static_cast<size_t>(std::max<int64_t>(roots, 0)));
  if (roots <= 0) return ranks;
  const nn::CausalLm& base = heads.base();
  width = std::min(width, base.config().vocab_size);
  const Tensor ids = Tensor::from(text, {1, length}, base.device());
  const TensorList outputs = heads.outputs(heads.trunk(ids, {}), ids, {}, {});
  for (int64_t k = 1; k <= heads.config().depth; ++k) {
    // Depth k at position root − 1 guesses token root + k.
    const Tensor& output = outputs[static_cast<size_t>(k - 1)];
    const std::vector<int32_t> guesses = likeliest(
        base, reshape(slice(output, 1, first - 1, first - 1 + roots), {roots, output.size(2)}),
        width);
    for (int64_t i = 0; i < roots && first + i + k < length; ++i) {
      const auto begin = guesses.begin() + i * width;
      const auto found = std::find(begin, begin + width, text[static_cast<size_t>(first + i + k)]);
      const bool begun = heads.config().kind == Kind::parallel || first + i >= k;
      ranks[static_cast<size_t>(i)].push_back(
          begun && found != begin + width ? static_cast<int32_t>(found - begin) : -1);
    }
  }
  return ranks;
}

}  // namespace binade::heads::mtp
