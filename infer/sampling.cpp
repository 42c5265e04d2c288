#include <binade/infer/sampling.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include <binade/core/random.h>
#include <binade/infer/token_distribution.h>

namespace binade::infer {
namespace {

// `uniform` picks from the tokens that are left, most probable first.
int32_t draw(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  const LeftTokens left = left_tokens(logits, options);
  double rest = uniform * left.total;
  for (size_t i = 0; i + 1 < left.tokens.size(); ++i) {
    rest -= left.weights[i];
    if (rest < 0) return left.tokens[i];
  }
  return left.tokens.back();
}

}  // namespace

void SamplingOptions::validate() const {
  check(temperature >= 0 && std::isfinite(temperature), "the temperature must be 0 or more, got ",
        temperature);
  check(top_k >= 0, "top_k must be 0 or more, got ", top_k);
  check(top_p > 0 && top_p <= 1, "top_p lies in (0, 1], got ", top_p);
}

std::vector<int32_t> sample(const Array& logits, const SamplingOptions& options, uint64_t step,
                            const std::vector<int32_t>& forbidden) {
  options.validate();
  check(logits.dims() == 2 && logits.numel() > 0, "sampling needs logits (B, V), got ",
        logits.shape());
  const auto vocabulary = static_cast<size_t>(logits.size(1));
  std::vector<float> values = logits.to_vector<float>();
  std::vector<int32_t> tokens;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    const std::span<float> scores(values.data() + static_cast<size_t>(row) * vocabulary,
                                  vocabulary);
    check(std::none_of(scores.begin(), scores.end(), [](float x) { return std::isnan(x); }),
          "the logits of row ", row, " have a NaN");
    for (const int32_t token : forbidden)
      if (token >= 0 && static_cast<size_t>(token) < vocabulary)
        scores[static_cast<size_t>(token)] = -std::numeric_limits<float>::infinity();
    const double uniform =
        uniform_of(philox(options.seed, step, static_cast<uint64_t>(row), 0).word[0]);
    tokens.push_back(options.temperature == 0 ? most_probable(scores)
                                              : draw(scores, options, uniform));
  }
  return tokens;
}

}  // namespace binade::infer
