// Whether texts that were written speculatively have the target's distribution: a χ² test over all
// texts of three tokens, against products of the target's probabilities.
#pragma once

#include <cmath>
#include <vector>

#include <catch2/catch.hpp>

#include <binade/heads/decoding/decode_texts.h>

#include "nn/tiny_models.h"

namespace binade::test {

// χ² as a standard normal (Wilson & Hilferty 1931).
inline double z_of(const std::vector<double>& seen, const std::vector<double>& expected) {
  double chi2 = 0;
  int used = 0;
  double rare_seen = 0, rare_expected = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (expected[i] < 10) {
      rare_seen += seen[i];
      rare_expected += expected[i];
      continue;
    }
    chi2 += std::pow(seen[i] - expected[i], 2) / expected[i];
    ++used;
  }
  if (rare_expected >= 10) {
    chi2 += std::pow(rare_seen - rare_expected, 2) / rare_expected;
    ++used;
  }
  const double freedom = used - 1, scale = 2 / (9 * freedom);
  return (std::cbrt(chi2 / freedom) - (1 - scale)) / std::sqrt(scale);
}

inline constexpr int64_t kSampleSlots = 50;
inline constexpr int64_t kWords = 4;
inline constexpr size_t kSampleLength = 3;
inline constexpr size_t kSampleTexts = 2500;
inline constexpr double kSampleTemperature = 0.8;

inline nn::CausalLmConfig few_words() {
  nn::CausalLmConfig config = small_config(nn::Family::llama);
  config.vocab_size = kWords;
  config.initializer_range = 0.2;
  return config;
}

// What the model says of texts of three tokens behind the prompt {2}, times the number of texts.
inline std::vector<double> expected_counts(const nn::CausalLm& model, double temperature) {
  std::vector<double> expected;
  const NoGrad no_grad;
  for (int32_t a = 0; a < kWords; ++a)
    for (int32_t b = 0; b < kWords; ++b)
      for (int32_t c = 0; c < kWords; ++c) {
        const std::vector<int32_t> text = {2, a, b, c};
        const std::vector<float> logits =
            model.forward(Tensor::from(text, {1, 4}, model.device())).to_vector<float>();
        double chance = static_cast<double>(kSampleTexts);
        for (size_t i = 0; i < kSampleLength; ++i) {
          double all = 0;
          for (size_t x = 0; x < kWords; ++x)
            all += std::exp(static_cast<double>(logits[i * kWords + x]) / temperature);
          const auto token = static_cast<size_t>(text[i + 1]);
          chance *= std::exp(static_cast<double>(logits[i * kWords + token]) / temperature) / all;
        }
        expected.push_back(chance);
      }
  return expected;
}

inline double z_of_samples(const nn::CausalLm& model, heads::decoding::Proposer& proposer,
                           double temperature, double said_temperature) {
  const auto rule = heads::decoding::speculative_sampling({.temperature = said_temperature});
  heads::decoding::SpeculativeDecoder decoder(model, proposer, *rule,
                                              {.slots = kSampleSlots, .capacity = 8, .seed = 3});
  const std::vector<std::vector<int32_t>> prompts(kSampleTexts, {2});
  const heads::decoding::DecodedTexts result =
      heads::decoding::decode_texts(decoder, prompts, {.max_new_tokens = kSampleLength});
  std::vector<double> seen(static_cast<size_t>(kWords * kWords * kWords));
  for (const std::vector<int32_t>& text : result.texts) {
    REQUIRE(text.size() == kSampleLength);
    seen[static_cast<size_t>((text[0] * kWords + text[1]) * kWords + text[2])] += 1;
  }
  return z_of(seen, expected_counts(model, temperature));
}

}  // namespace binade::test
