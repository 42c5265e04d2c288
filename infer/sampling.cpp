#include <binade/infer/sampling.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include <binade/core/random.h>

namespace binade::infer {
namespace {

int32_t greedy(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// `uniform` picks from the tokens that are left, most probable first.
int32_t draw(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  size_t kept = order.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<size_t>(options.top_k));
  std::partial_sort(order.begin(), order.begin() + static_cast<int64_t>(kept), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = logits[static_cast<size_t>(a)];
                      const float y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });

  std::vector<double> weights(kept);
  const double largest = logits[static_cast<size_t>(order[0])];
  for (size_t i = 0; i < kept; ++i)
    weights[i] = std::exp((logits[static_cast<size_t>(order[i])] - largest) / options.temperature);
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p < 1) {
    const double enough = options.top_p * total;
    double sum = 0;
    size_t count = 0;
    while (count < kept && (count == 0 || sum < enough)) sum += weights[count++];
    kept = count;
    total = sum;
  }
  double left = uniform * total;
  for (size_t i = 0; i + 1 < kept; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
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
    tokens.push_back(options.temperature == 0 ? greedy(scores) : draw(scores, options, uniform));
  }
  return tokens;
}

}  // namespace binade::infer
