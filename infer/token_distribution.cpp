#include <binade/infer/token_distribution.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <binade/core/error.h>

namespace binade::infer {
namespace {

double weight_of(float logit, float largest, double temperature) {
  if (logit == largest) return 1;  // +∞, too
  return std::exp((static_cast<double>(logit) - static_cast<double>(largest)) / temperature);
}

}  // namespace

void check_logits(std::span<const float> logits, std::string_view what) {
  check(!logits.empty(), what, " are empty");
  check(std::none_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); }), what,
        " have a NaN");
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  check(std::any_of(logits.begin(), logits.end(), [](float x) { return x > kNever; }), what,
        " are all minus infinity");
}

int32_t most_probable(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

LeftTokens left_tokens(std::span<const float> logits, const SamplingOptions& options) {
  LeftTokens left;
  left.tokens.resize(logits.size());
  std::iota(left.tokens.begin(), left.tokens.end(), 0);
  size_t kept = logits.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<size_t>(options.top_k));
  std::partial_sort(left.tokens.begin(), left.tokens.begin() + static_cast<int64_t>(kept),
                    left.tokens.end(), [&](int32_t a, int32_t b) {
                      const float x = logits[static_cast<size_t>(a)];
                      const float y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  const float largest = logits[static_cast<size_t>(left.tokens[0])];
  left.weights.resize(kept);
  for (size_t i = 0; i < kept; ++i) {
    left.weights[i] =
        weight_of(logits[static_cast<size_t>(left.tokens[i])], largest, options.temperature);
  }
  left.total = std::accumulate(left.weights.begin(), left.weights.end(), 0.0);
  if (options.top_p < 1) {
    const double enough = options.top_p * left.total;
    double sum = 0;
    size_t count = 0;
    while (count < kept && (count == 0 || sum < enough)) sum += left.weights[count++];
    kept = count;
    left.total = sum;
  }
  left.tokens.resize(kept);
  left.weights.resize(kept);
  return left;
}

std::vector<double> token_probabilities(std::span<const float> logits,
                                        const SamplingOptions& options, std::string_view what) {
  options.validate();
  check_logits(logits, what);
  std::vector<double> probabilities(logits.size());
  const auto best = static_cast<size_t>(most_probable(logits));
  if (options.temperature == 0) {
    probabilities[best] = 1;
    return probabilities;
  }
  if (options.top_k == 0 && options.top_p == 1) {  // nothing to sort for
    for (size_t i = 0; i < logits.size(); ++i)
      probabilities[i] = weight_of(logits[i], logits[best], options.temperature);
    const double total = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
    for (double& probability : probabilities) probability /= total;
    return probabilities;
  }
  const LeftTokens left = left_tokens(logits, options);
  for (size_t i = 0; i < left.tokens.size(); ++i)
    probabilities[static_cast<size_t>(left.tokens[i])] = left.weights[i] / left.total;
  return probabilities;
}

}  // namespace binade::infer
