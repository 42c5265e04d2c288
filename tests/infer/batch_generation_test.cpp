// Many texts through few slots.
#include <binade/infer/batch_generation.h>

#include <algorithm>
#include <map>

#include <catch2/catch.hpp>

#include <binade/infer/generate.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;
using infer::BatchGenerator;
using infer::Decoder;
using infer::SlotStates;
using Rows = std::vector<std::vector<int32_t>>;

namespace {

constexpr int64_t kNewTokens = 7;
const std::vector<int32_t> kStops = {11, 30};

// Prompts of 1 to 17 tokens, in no order.
Rows prompts_of(size_t count) {
  Rows prompts;
  for (size_t i = 0; i < count; ++i) {
    std::vector<int32_t> prompt;
    for (size_t t = 0; t < 1 + i * 5 % 17; ++t)
      prompt.push_back(static_cast<int32_t>((i * 7 + t * t + 3) % 61));
    prompts.push_back(prompt);
  }
  return prompts;
}

// Texts as a decoder of one slot writes them one by one, its draws at the place of each.
Rows one_by_one(const CausalLm& model, const Rows& prompts,
                const infer::SamplingOptions& sampling) {
  Rows texts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    Decoder decoder(model, {.choice = {.sampling = sampling, .stop_ids = kStops}});
    decoder.begin({0}, {prompts[i]}, {{.limit = kNewTokens, .place = static_cast<int32_t>(i)}});
    std::vector<int32_t> text;
    for (;;) {
      const SlotStates::Seen seen = SlotStates::read(decoder.choices().packed())[0];
      text.push_back(seen.token);
      if (!seen.running) break;
      decoder.step();
    }
    texts.push_back(text);
  }
  return texts;
}

infer::BatchGenerateOptions options_of(int64_t slots, const infer::SamplingOptions& sampling) {
  infer::BatchGenerateOptions options;
  options.slots = slots;
  options.capacity = 30;
  options.max_new_tokens = kNewTokens;
  options.stop_ids = kStops;
  options.sampling = sampling;
  return options;
}

// Every text comes once, and is what it is alone, whatever shares the batch.
void check_texts(Device device) {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  model->to(device);
  const Rows prompts = prompts_of(23);
  for (const double temperature : {0.0, 1.0}) {
    const infer::SamplingOptions sampling = {.temperature = temperature, .top_p = 0.95, .seed = 5};
    const Rows expected = one_by_one(*model, prompts, sampling);
    for (const int64_t slots : {1, 3, 8, 40})
      for (const int64_t rows : {0, 3})
        for (const bool few_shapes : {false, true})
          for (const int64_t ahead : {0, 5}) {
            INFO("temperature " << temperature << ", " << slots << " slots, " << rows
                                << " rows a pass, few shapes " << few_shapes << ", ahead "
                                << ahead);
            infer::BatchGenerateOptions options = options_of(slots, sampling);
            options.prefill_rows = rows;
            options.prefill_tokens = 40;
            options.few_shapes = few_shapes;
            options.steps_ahead = ahead;
            BatchGenerator generator(*model, options);
            // The order in which they are added is none of a text's business.
            for (size_t i = 0; i < prompts.size(); ++i) {
              const size_t n = i * 10 % prompts.size();
              generator.add({.number = static_cast<int64_t>(n), .prompt = prompts[n]});
            }
            std::map<int64_t, std::vector<int32_t>> texts;
            CHECK(generator.run([&](BatchGenerator::Reply reply) {
              const auto n = static_cast<size_t>(reply.number);
              CHECK(reply.prompt == prompts[n]);
              CHECK(reply.stopped ==
                    (std::count(kStops.begin(), kStops.end(), reply.tokens.back()) > 0));
              CHECK(texts.emplace(reply.number, std::move(reply.tokens)).second);
            }));
            REQUIRE(texts.size() == prompts.size());
            for (size_t i = 0; i < prompts.size(); ++i)
              CHECK(texts.at(static_cast<int64_t>(i)) == expected[i]);
            CHECK(generator.counts().replies == 23);
            CHECK(generator.waiting() == 0);
          }
  }
}

}  // namespace

TEST_CASE("a text in a batch is what it is alone, whatever shares the batch",
          "[batch_generation]") {
  check_texts(Device::cpu());
}
TEST_CASE("a text in a batch is what it is alone, whatever shares the batch, on the GPU",
          "[batch_generation][cuda]") {
  check_texts(test::cuda_or_skip());
}

TEST_CASE("the texts of a test end in both ways, and differ by their draws", "[batch_generation]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const Rows same(12, {1, 2, 3});
  const Rows drawn = one_by_one(*model, same, {.temperature = 1.0, .seed = 5});
  CHECK(std::count(drawn.begin(), drawn.end(), drawn[0]) == 1);
  const auto is_full = [](const auto& text) { return text.size() == kNewTokens; };
  const auto full = std::count_if(drawn.begin(), drawn.end(), is_full);
  CHECK(full > 0);
  CHECK(full < 12);
}

TEST_CASE("texts without stop ids are those of generate()", "[batch_generation]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::gpt2));
  const Rows prompts = prompts_of(6);
  infer::BatchGenerateOptions options = options_of(4, {});
  options.stop_ids.clear();
  BatchGenerator generator(*model, options);
  for (size_t i = 0; i < prompts.size(); ++i)
    generator.add({.number = static_cast<int64_t>(i), .prompt = prompts[i]});
  generator.run([&](const BatchGenerator::Reply& reply) {
    const auto& prompt = prompts[static_cast<size_t>(reply.number)];
    CHECK(reply.tokens == infer::generate(*model, {prompt}, {.max_new_tokens = kNewTokens})[0]);
    CHECK_FALSE(reply.stopped);
  });
  CHECK(generator.counts().replies == 6);
}

TEST_CASE("a text that goes on draws where the one before it ended", "[batch_generation]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const infer::SamplingOptions sampling = {.temperature = 1.0, .seed = 9};
  const auto write = [&](int64_t new_tokens) {
    infer::BatchGenerateOptions options = options_of(2, sampling);
    options.max_new_tokens = new_tokens;
    options.stop_ids.clear();
    BatchGenerator generator(*model, options);
    generator.add({.number = 3, .prompt = {1, 2, 3}});
    generator.add({.number = 4, .prompt = {5}});
    std::map<int64_t, std::vector<int32_t>> texts;
    generator.run([&](BatchGenerator::Reply reply) {
      std::vector<int32_t>& text = texts[reply.number];
      text.insert(text.end(), reply.tokens.begin(), reply.tokens.end());
      if (text.size() == 12) return;
      BatchGenerator::Text next{reply.number, std::move(reply.prompt),
                                static_cast<int64_t>(text.size())};
      next.prompt.insert(next.prompt.end(), reply.tokens.begin(), reply.tokens.end());
      generator.add(std::move(next));
    });
    return texts;
  };
  CHECK(write(4) == write(12));
}

TEST_CASE("prompts of one pass have like lengths", "[batch_generation]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  infer::BatchGenerateOptions options = options_of(4, {});
  options.capacity = 48;
  options.prefill_rows = 4;
  options.few_shapes = true;
  BatchGenerator generator(*model, options);
  for (int64_t i = 0; i < 16; ++i)
    generator.add({.number = i, .prompt = std::vector<int32_t>(i % 2 == 0 ? 40 : 20, 1)});
  generator.run([](const BatchGenerator::Reply&) {});
  // 8 prompts of 40 tokens in two passes, 8 of 20 in two more.
  CHECK(generator.counts().passes == 4);
  CHECK(generator.counts().prompt_tokens == 8 * 60);
  CHECK(generator.counts().padding == 0);
}

TEST_CASE("a queue that is stopped keeps what has ended, and can go on", "[batch_generation]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const Rows prompts = prompts_of(9);
  const Rows expected = one_by_one(*model, prompts, {});
  BatchGenerator generator(*model, options_of(2, {}));
  for (size_t i = 0; i < prompts.size(); ++i)
    generator.add({.number = static_cast<int64_t>(i), .prompt = prompts[i]});
  std::map<int64_t, std::vector<int32_t>> texts;
  const auto keep = [&](BatchGenerator::Reply reply) {
    texts.emplace(reply.number, std::move(reply.tokens));
  };
  int rounds = 0;
  CHECK_FALSE(generator.run(keep, [&] { return ++rounds < 12; }));
  CHECK(!texts.empty());
  CHECK(texts.size() < prompts.size());
  CHECK(generator.waiting() > 0);
  CHECK(generator.run(keep));  // those that were under way are not begun anew
  CHECK(texts.size() == prompts.size() - 2);
  for (const auto& [number, text] : texts) CHECK(text == expected[static_cast<size_t>(number)]);
}

TEST_CASE("a batch refuses texts that it has no room for", "[batch_generation][bad-input]") {
  using Catch::Contains;
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  BatchGenerator generator(*model, options_of(2, {}));
  CHECK(generator.fits(24));
  CHECK_FALSE(generator.fits(25));
  CHECK_THROWS_WITH(generator.add({.prompt = std::vector<int32_t>(25, 1)}),
                    Contains("25 tokens") && Contains("capacity of 30"));
  nn::CausalLmConfig longrope = test::small_config(Family::phi3);
  longrope.rope = {.scaling = nn::RopeScaling::longrope,
                   .factor = 4,
                   .short_factor = {1, 1.5, 2, 2.5},
                   .long_factor = {3, 4, 5, 6},
                   .original_max_positions = 12};
  const std::shared_ptr<CausalLm> short_texts = test::small_model(longrope);
  BatchGenerator of_short(*short_texts, options_of(2, {}));
  CHECK(of_short.fits(6));
  CHECK_THROWS_WITH(of_short.add({.prompt = std::vector<int32_t>(7, 1)}),
                    Contains("7 tokens") && Contains("cross the 12 positions"));
  CHECK_THROWS_WITH(generator.add({.number = 3}), Contains("text 3 is empty"));
  CHECK_THROWS_WITH(generator.add({.number = 1 << 24, .prompt = {1}}), Contains("2^24"));
  infer::BatchGenerateOptions options = options_of(0, {});
  CHECK_THROWS_WITH(BatchGenerator(*model, options), Contains("needs slots"));
  options = options_of(1, {});
  options.capacity = 49;
  CHECK_THROWS_WITH(BatchGenerator(*model, options), Contains("48 positions"));
}
