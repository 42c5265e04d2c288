#include <binade/heads/mtp/text_ranks.h>

#include <algorithm>

#include <binade/autograd/ops/shape.h>
#include <binade/autograd/tape.h>
#include <binade/core/error.h>
#include <binade/heads/mtp/draft_plan.h>

namespace binade::heads::mtp {

namespace {

constexpr int64_t kLogitsAtOnce = int64_t{1} << 23;

// states (T, dim) → the `width` likeliest tokens of each row, (T, width).
std::vector<int32_t> likeliest(const decoding::DraftOutput& output, int64_t vocabulary,
                               const Tensor& states, int64_t width) {
  const int64_t rows = states.size(0), chunk = std::max<int64_t>(kLogitsAtOnce / vocabulary, 1);
  const Array tokens = Array::empty({rows, width}, DType::i32, states.device());
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(begin + chunk, rows);
    output.guess(slice(states, 0, begin, end), tokens.slice(0, begin, end));
  }
  return tokens.to_vector<int32_t>();
}

}  // namespace

std::vector<std::vector<int32_t>> text_ranks(const MtpHeads& heads,
                                             const std::vector<int32_t>& text, int64_t first,
                                             int64_t width,
                                             const decoding::DraftVocabulary& vocabulary) {
  const auto length = static_cast<int64_t>(text.size());
  check(first >= 1 && first <= length, "ranks in a text of ", length,
        " tokens are counted behind 1 or more of them, got ", first);
  check(width >= 1, "heads are ranked by 1 or more guesses, asked for ", width);
  const NoGrad off;
  const int64_t roots = length - 1 - first;  // a text's last token is no pass's root
  std::vector<std::vector<int32_t>> ranks(static_cast<size_t>(std::max<int64_t>(roots, 0)));
  if (roots <= 0) return ranks;
  const nn::CausalLm& base = heads.base();
  const int64_t among = vocabulary.size(base.config().vocab_size);
  width = std::min(width, among);
  const decoding::DraftOutput output_layer = draft_output(base, vocabulary);
  const Tensor ids = Tensor::from(text, {1, length}, base.device());
  const TensorList outputs = heads.outputs(heads.trunk(ids, {}), ids, {}, {});
  for (int64_t k = 1; k <= heads.config().depth; ++k) {
    // Depth k at position root − 1 guesses token root + k.
    const Tensor& output = outputs[static_cast<size_t>(k - 1)];
    const std::vector<int32_t> guesses = likeliest(
        output_layer, among,
        reshape(slice(output, 1, first - 1, first - 1 + roots), {roots, output.size(2)}), width);
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
