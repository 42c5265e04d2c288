#include <binade/heads/decoding/compare_texts.h>

#include <algorithm>
#include <cmath>

#include <binade/core/error.h>

namespace binade::heads::decoding {
namespace {

double tolerance_of(DType dtype, double largest_size) {
  switch (dtype) {
    case DType::f16:
      return 16 * 0x1p-11 * largest_size;
    case DType::bf16:
      return 16 * 0x1p-8 * largest_size;
    default:
      return 256 * 0x1p-24 * largest_size;
  }
}

// The token at `place`; behind the end the likeliest stop id, −1 where there is none.
int32_t token_at(const std::vector<int32_t>& text, int64_t place,
                 const std::vector<int32_t>& stop_ids, const std::vector<float>& logits) {
  if (place < static_cast<int64_t>(text.size())) return text[static_cast<size_t>(place)];
  const auto likelier = [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] < logits[static_cast<size_t>(b)];
  };
  const auto stop = std::max_element(stop_ids.begin(), stop_ids.end(), likelier);
  return stop == stop_ids.end() ? -1 : *stop;
}

}  // namespace

int64_t TextComparison::near_ties() const {
  return std::count_if(differences.begin(), differences.end(),
                       [](const TextDifference& difference) { return difference.near_tie(); });
}

TextComparison compare_texts(const nn::CausalLm& model,
                             const std::vector<std::vector<int32_t>>& prompts,
                             const std::vector<std::vector<int32_t>>& plain,
                             const std::vector<std::vector<int32_t>>& speculative,
                             const std::vector<int32_t>& stop_ids) {
  check(plain.size() == prompts.size() && speculative.size() == prompts.size(),
        "texts to compare must be as many as prompts");
  const NoGrad no_grad;
  TextComparison result;
  result.texts = static_cast<int64_t>(prompts.size());
  for (size_t text = 0; text < prompts.size(); ++text) {
    const std::vector<int32_t>&a = plain[text], &b = speculative[text];
    if (a == b) continue;
    const auto parted = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
    TextDifference difference;
    difference.text = text;
    difference.place = parted.first - a.begin();
    std::vector<int32_t> ids = prompts[text];
    ids.insert(ids.end(), a.begin(), parted.first);
    const auto count = static_cast<int64_t>(ids.size());
    const Tensor hidden = model.hidden_states(Tensor::from(ids, {1, count}, model.device()));
    const Tensor last = slice(hidden, 1, count - 1, count);
    const std::vector<float> logits = model.logits(last).array().to_vector<float>();
    const float largest = *std::max_element(logits.begin(), logits.end());
    float size = 0;
    for (const float logit : logits) size = std::max(size, std::abs(logit));
    difference.largest = static_cast<double>(largest);
    difference.tolerance = tolerance_of(hidden.dtype(), static_cast<double>(size));
    const auto below = [&](int32_t token) {
      return token < 0 ? HUGE_VAL
                       : static_cast<double>(largest - logits[static_cast<size_t>(token)]);
    };
    difference.plain = token_at(a, difference.place, stop_ids, logits);
    difference.speculative = token_at(b, difference.place, stop_ids, logits);
    difference.plain_below = below(difference.plain);
    difference.speculative_below = below(difference.speculative);
    result.differences.push_back(difference);
  }
  return result;
}

}  // namespace binade::heads::decoding
