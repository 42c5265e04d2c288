#include <binade/infer/perplexity.h>

#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;
using infer::perplexity;

namespace {

// The mean loss by hand: token t is predicted from tokens [first_seen(t), t).
template <class FirstSeen>
double mean_loss(const CausalLm& model, const std::vector<int32_t>& tokens,
                 const FirstSeen& first_seen) {
  const NoGrad no_grad;
  double sum = 0;
  for (size_t t = 1; t < tokens.size(); ++t) {
    const std::vector<int32_t> context(tokens.begin() + static_cast<int64_t>(first_seen(t)),
                                       tokens.begin() + static_cast<int64_t>(t));
    const auto length = static_cast<int64_t>(context.size());
    const std::vector<double> logits = model.forward(Tensor::from(context, {1, length}))
                                           .array()
                                           .select(1, length - 1)
                                           .to_vector<double>();
    double total = 0;
    for (const double logit : logits) total += std::exp(logit);
    sum += std::log(total) - logits[static_cast<size_t>(tokens[t])];
  }
  return sum / static_cast<double>(tokens.size() - 1);
}

}  // namespace

TEST_CASE("every token is predicted once from its window", "[perplexity]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const std::vector<int32_t> tokens = test::random_ids(1, 47, 61).to_vector<int32_t>();
  for (const int64_t batch : {1, 3, 8}) {
    INFO("batch " << batch);
    // Windows of 10 inputs side by side: token t sees the tokens of its window before it.
    const infer::Perplexity apart = perplexity(*model, tokens, {.window = 10, .batch = batch});
    CHECK(apart.tokens == 46);
    CHECK(apart.loss == Approx(mean_loss(*model, tokens, [](size_t t) {
                          return (t - 1) / 10 * 10;
                        })).epsilon(1e-5));
    CHECK(apart.value() == Approx(std::exp(apart.loss)));
    // Windows that move on by 4: after the first, each predicts its last 4 tokens.
    int64_t done = 0;
    const infer::Perplexity strided =
        perplexity(*model, tokens, {.window = 10, .stride = 4, .batch = batch},
                   [&](int64_t tokens_done) { done = tokens_done; });
    CHECK(strided.tokens == 46);
    CHECK(done == 46);
    CHECK(strided.loss == Approx(mean_loss(*model, tokens, [](size_t t) -> size_t {
                            return t <= 10 ? 0 : (t - 10 + 3) / 4 * 4;
                          })).epsilon(1e-5));
  }
}

TEST_CASE("a text shorter than the window is one window", "[perplexity]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::gpt2));
  const std::vector<int32_t> tokens = {5, 6, 7};
  CHECK(perplexity(*model, tokens).loss ==
        Approx(mean_loss(*model, tokens, [](size_t) { return 0; })).epsilon(1e-5));
}

TEST_CASE("perplexity refuses what it cannot measure", "[perplexity][bad-input]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const auto measure = [&](std::vector<int32_t> tokens, infer::PerplexityOptions options = {}) {
    return perplexity(*model, tokens, options);
  };
  CHECK_THROWS_WITH(measure({1}), Catch::Contains("two tokens"));
  CHECK_THROWS_WITH(measure({1, 61}), Catch::Contains("61 is out of range"));
  CHECK_THROWS_WITH(measure({1, 2}, {.window = 49}), Catch::Contains("48 tokens"));
  CHECK_THROWS_WITH(measure({1, 2}, {.window = 8, .stride = 9}), Catch::Contains("stride"));
}
