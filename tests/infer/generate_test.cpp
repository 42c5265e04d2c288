#include <binade/infer/generate.h>

#include <algorithm>

#include <catch2/catch.hpp>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;
using infer::generate;
using Rows = std::vector<std::vector<int32_t>>;

namespace {

// Greedy decoding by running the whole sequence again for every token.
std::vector<int32_t> without_cache(const CausalLm& model, std::vector<int32_t> ids, int count) {
  const NoGrad no_grad;
  std::vector<int32_t> fresh;
  for (int i = 0; i < count; ++i) {
    const auto length = static_cast<int64_t>(ids.size());
    const std::vector<float> logits = model.forward(Tensor::from(ids, {1, length}))
                                          .array()
                                          .select(1, length - 1)
                                          .to_vector<float>();
    fresh.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    ids.push_back(fresh.back());
  }
  return fresh;
}

const Rows kPrompts = {{1, 2, 3, 4, 5}, {7}, {8, 9, 10}};

}  // namespace

TEST_CASE("a batch of prompts of different lengths generates what each does alone", "[generate]") {
  for (const Family family : {Family::gpt2, Family::llama, Family::qwen3}) {
    INFO(name_of(family));
    const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(family));
    const Rows together = generate(*model, kPrompts, {.max_new_tokens = 10});
    for (size_t row = 0; row < kPrompts.size(); ++row) {
      CHECK(together[row] == without_cache(*model, kPrompts[row], 10));
      CHECK(generate(*model, {kPrompts[row]}, {.max_new_tokens = 10})[0] == together[row]);
    }
  }
}

TEST_CASE("tokens are handed out as they come, stop ids are not", "[generate]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const Rows free = generate(*model, kPrompts, {.max_new_tokens = 12});
  const int32_t stop = free[0][4];
  const auto until_stop = [&](const std::vector<int32_t>& row) {
    return std::vector<int32_t>(row.begin(), std::find(row.begin(), row.end(), stop));
  };
  Rows streamed(3);
  const Rows stopped =
      generate(*model, kPrompts, {.max_new_tokens = 12, .stop_ids = {stop}},
               [&](int64_t row, int32_t id) { streamed[static_cast<size_t>(row)].push_back(id); });
  CHECK(streamed == stopped);
  for (size_t row = 0; row < 3; ++row) CHECK(stopped[row] == until_stop(free[row]));
  CHECK(stopped[0].size() <= 4);
}

TEST_CASE("stop ids wait for the least number of tokens", "[generate]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const int32_t first = generate(*model, {kPrompts[0]}, {.max_new_tokens = 1})[0][0];
  CHECK(generate(*model, {kPrompts[0]}, {.max_new_tokens = 5, .stop_ids = {first}})[0].empty());
  const Rows longer = generate(*model, {kPrompts[0]},
                               {.max_new_tokens = 5, .min_new_tokens = 3, .stop_ids = {first}});
  CHECK(longer[0].size() >= 3);
  CHECK(std::count(longer[0].begin(), longer[0].end(), first) == 0);
}

TEST_CASE("a seed generates the same text again", "[generate]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const auto with_seed = [&](uint64_t seed) {
    return generate(*model, kPrompts,
                    {.max_new_tokens = 12, .sampling = {.temperature = 1, .seed = seed}});
  };
  CHECK(with_seed(1) == with_seed(1));
  CHECK(with_seed(1) != with_seed(2));
}

TEST_CASE("generation fills the model's positions and not one more", "[generate][bad-input]") {
  for (const Family family : {Family::gpt2, Family::llama}) {
    const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(family));
    CHECK(generate(*model, {{1, 2, 3}}, {.max_new_tokens = 46})[0].size() == 46);
    CHECK_THROWS_WITH(generate(*model, {{1, 2, 3}}, {.max_new_tokens = 47}),
                      Catch::Contains("do not fit the model's 48 positions"));
  }
}

TEST_CASE("prompts that cannot be read are refused", "[generate][bad-input]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  CHECK_THROWS_WITH(generate(*model, {}), Catch::Contains("prompt"));
  CHECK_THROWS_WITH(generate(*model, {{1}, {}}, {.max_new_tokens = 1}), Catch::Contains("BOS"));
  CHECK_THROWS_WITH(generate(*model, {{1, 61}}, {.max_new_tokens = 1}),
                    Catch::Contains("61 is out of range"));
  CHECK_THROWS_WITH(generate(*model, {{-1}}, {.max_new_tokens = 1}),
                    Catch::Contains("out of range"));
  model->train();
  CHECK_THROWS_WITH(generate(*model, {{1}}, {.max_new_tokens = 1}), Catch::Contains("eval()"));
}
