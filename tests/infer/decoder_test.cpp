#include <binade/infer/decoder.h>

#include <algorithm>

#include <catch2/catch.hpp>

#include <binade/infer/generate.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;
using infer::Decoder;
using infer::SlotStates;
using infer::TokenTree;
using Rows = std::vector<std::vector<int32_t>>;

namespace {

Array i32(const std::vector<int32_t>& values, Device device) {
  return Array::from(values, {static_cast<int64_t>(values.size())}, device);
}

std::vector<int32_t> alone(const CausalLm& model, const std::vector<int32_t>& prompt,
                           int64_t count) {
  return infer::generate(model, {prompt}, {.max_new_tokens = count})[0];
}

// Texts join when a slot is free and leave when they are done; each is what it is alone.
void check_joining(Device device) {
  for (const Family family : test::kFamilies) {
    const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(family));
    model->to(device);
    const Rows prompts = {{1, 2, 3, 4, 5}, {7}, {8, 9, 10}, {11, 12}};
    const std::vector<int32_t> limits = {4, 9, 5, 3};
    Decoder decoder(*model, {.slots = 2, .capacity = 20});
    Rows texts(prompts.size());
    std::vector<int> text_of = {-1, -1};  // slot by slot
    size_t next = 0;
    for (int guard = 0; guard < 30; ++guard) {
      std::vector<int32_t> slots;
      Rows fresh;
      std::vector<SlotStates::Start> starts;
      for (int32_t slot = 0; slot < 2 && next < prompts.size(); ++slot) {
        if (text_of[static_cast<size_t>(slot)] >= 0) continue;
        text_of[static_cast<size_t>(slot)] = static_cast<int>(next);
        slots.push_back(slot);
        fresh.push_back(prompts[next]);
        starts.push_back({.limit = limits[next++]});
      }
      const std::vector<SlotStates::Seen> before = SlotStates::read(decoder.choices().packed());
      const auto collect = [&](int32_t slot) {
        const SlotStates::Seen seen =
            SlotStates::read(decoder.choices().packed())[static_cast<size_t>(slot)];
        int& text = text_of[static_cast<size_t>(slot)];
        texts[static_cast<size_t>(text)].push_back(seen.token);
        if (!seen.running) text = -1;
      };
      if (!slots.empty()) {
        decoder.begin(slots, fresh, starts);
        for (const int32_t slot : slots) collect(slot);
        continue;  // some may be done at once
      }
      if (!before[0].running && !before[1].running) break;
      decoder.step();
      for (int32_t slot = 0; slot < 2; ++slot)
        if (before[static_cast<size_t>(slot)].running) collect(slot);
    }
    for (size_t i = 0; i < prompts.size(); ++i)
      CHECK(texts[i] == alone(*model, prompts[i], limits[i]));
  }
}

// Greedy speculation with a tree whose first path is right: the text stays that of plain decoding.
void check_speculation(Device device, Family family) {
  INFO(name_of(family));
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(family));
  model->to(device);
  const Rows prompts = {{1, 2, 3, 4, 5}, {7}};
  const Rows plain = {alone(*model, prompts[0], 8), alone(*model, prompts[1], 8)};
  Decoder decoder(*model, {.slots = 2, .capacity = 24});
  decoder.begin({0, 1}, prompts);
  // Node 0 is the newest token; 1 is wrong, 2 right; 3 is a wrong child of 1, 4 a right one of 2.
  TokenTree tree;
  tree.depths = i32({0, 1, 1, 2, 2}, device);
  tree.visible = Array::from(std::vector<int64_t>{1, 0b11, 0b101, 0b1011, 0b10101}, {5}, device);
  std::vector<int32_t> draft;
  for (const std::vector<int32_t>& row : plain)
    draft.insert(draft.end(), {row[0], (row[1] + 1) % 60, row[1], 3, row[2]});
  const Tensor hidden = decoder.run(Tensor::from(draft, {2, 5}, device), tree);
  CHECK(hidden.shape() == Shape{2, 5, model->config().dim});
  const NoGrad no_grad;
  const std::vector<float> logits = model->logits(hidden).to_vector<float>();
  const int64_t vocabulary = model->config().vocab_size;
  const auto best = [&](size_t row, size_t node) {
    const auto begin = logits.begin() + static_cast<int64_t>(5 * row + node) * vocabulary;
    return static_cast<int32_t>(std::max_element(begin, begin + vocabulary) - begin);
  };
  for (size_t row = 0; row < 2; ++row) {
    CHECK(best(row, 0) == plain[row][1]);
    CHECK(best(row, 2) == plain[row][2]);
    CHECK(best(row, 4) == plain[row][3]);
  }
  // Row 0 takes three nodes, row 1 two: what follows is what plain decoding writes.
  decoder.accept(Array::from(std::vector<int32_t>{0, 2, 4, 0, 2, 0}, {2, 3}, device),
                 i32({3, 2}, device));
  decoder.choose(
      Tensor(cat({slice(slice(hidden, 0, 0, 1), 1, 4, 5), slice(slice(hidden, 0, 1), 1, 2, 3)}, 0)
                 .array()
                 .select(1, 0)));
  CHECK(decoder.choices().tokens().to_vector<int32_t>() ==
        std::vector<int32_t>{plain[0][3], plain[1][2]});
  for (size_t step = 1; step < 4; ++step) {
    decoder.step();
    CHECK(decoder.choices().tokens().to_vector<int32_t>() ==
          std::vector<int32_t>{plain[0][3 + step], plain[1][2 + step]});
  }
}

}  // namespace

TEST_CASE("texts join and leave a decoder without a trace in the others", "[decoder]") {
  check_joining(Device::cpu());
}
TEST_CASE("texts join and leave a decoder without a trace in the others on the GPU",
          "[decoder][cuda]") {
  check_joining(test::cuda_or_skip());
}
TEST_CASE("a verified tree goes on as plain decoding", "[decoder]") {
  for (const Family family : test::kFamilies) check_speculation(Device::cpu(), family);
}
TEST_CASE("a verified tree goes on as plain decoding on the GPU", "[decoder][cuda]") {
  const Device device = test::cuda_or_skip();
  for (const Family family : test::kFamilies) check_speculation(device, family);
}

namespace {

// The next token by a pass over the whole text, without a cache.
int32_t by_whole_text(const CausalLm& model, const std::vector<int32_t>& text) {
  const NoGrad no_grad;
  const auto length = static_cast<int64_t>(text.size());
  const Array logits = model.forward(Tensor::from(text, {1, length})).array();
  const std::vector<float> last = logits.select(0, 0).select(0, length - 1).to_vector<float>();
  return static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin());
}

CausalLmConfig longrope_config() {
  CausalLmConfig config = test::small_config(Family::phi3);
  config.rope = {.scaling = RopeScaling::longrope,
                 .factor = 4,
                 .short_factor = {1, 1.5, 2, 2.5},
                 .long_factor = {3, 4, 5, 6},
                 .original_max_positions = 12};
  return config;
}

}  // namespace

TEST_CASE("greedy texts within windows are those of whole passes", "[decoder]") {
  for (const int64_t window : {1, 2, 5, 11}) {
    INFO("window " << window);
    for (const Family family : {Family::mistral, Family::gemma3_text}) {
      CausalLmConfig config = test::small_config(family);
      config.window = window;
      const std::shared_ptr<CausalLm> model = test::small_model(config);
      std::vector<int32_t> text = {1, 2, 3, 4, 5, 6, 7};
      const std::vector<int32_t> fresh = alone(*model, text, 20);
      for (const int32_t token : fresh) {
        CHECK(token == by_whole_text(*model, text));
        text.push_back(token);
      }
    }
  }
}

TEST_CASE("longrope texts keep to their side of the original positions", "[decoder]") {
  const std::shared_ptr<CausalLm> model = test::small_model(longrope_config());
  for (const std::vector<int32_t>& prompt :
       {std::vector<int32_t>{1, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}}) {
    std::vector<int32_t> text = prompt;
    for (const int32_t token : alone(*model, prompt, 10)) {
      CHECK(token == by_whole_text(*model, text));
      text.push_back(token);
    }
  }
  CHECK_THROWS_WITH(alone(*model, {1, 2, 3}, 11), Catch::Contains("cross the 12 positions"));
  Decoder decoder(*model, {.slots = 2, .capacity = 30});
  CHECK(decoder.room(3) == 10);
  CHECK(decoder.room(12) == 1);
  CHECK(decoder.room(13) == 18);
  // Without a limit a text ends there; one beside it, on the other side, goes on.
  decoder.begin({0, 1}, {{1, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}});
  std::vector<int> tokens = {1, 1};
  for (int step = 0; step < 30; ++step) {
    const auto before = SlotStates::read(decoder.choices().packed());
    decoder.step();
    for (size_t slot = 0; slot < 2; ++slot) tokens[slot] += before[slot].running ? 1 : 0;
  }
  CHECK(tokens == std::vector<int>{10, 18});
}

TEST_CASE("a decoder refuses what it has no room for", "[decoder][bad-input]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  CHECK_THROWS_WITH(Decoder(*model, {.capacity = 49}), Catch::Contains("48 positions"));
  Decoder decoder(*model, {.slots = 2, .capacity = 6});
  const Rows long_prompt = {{1, 2, 3, 4, 5, 6, 7}};
  CHECK_THROWS_WITH(decoder.begin({0}, long_prompt), Catch::Contains("capacity of 6"));
  CHECK_THROWS_WITH(decoder.prefill({0}, long_prompt), Catch::Contains("capacity of 6"));
  CHECK_THROWS_WITH(decoder.begin({0}, {{1, 2, 3, 4, 5}}, {{.limit = 3}}),
                    Catch::Contains("3 new ones"));
  CHECK_THROWS_WITH(decoder.begin({2}, {{1}}), Catch::Contains("no slot 2"));
  CHECK_THROWS_WITH(decoder.begin({0, 1}, {{1}}), Catch::Contains("do not fit together"));
  CHECK_THROWS_WITH(decoder.begin({0}, {{1}}, {{.limit = 3, .place = 1 << 24}}),
                    Catch::Contains("2^24"));
  // Without a limit a slot ends where its room does: six tokens are read, the newest is not.
  decoder.begin({0}, {{1, 2}});
  int tokens = 1;
  while (SlotStates::read(decoder.choices().packed())[0].running && tokens < 20) {
    decoder.step();
    ++tokens;
  }
  CHECK(tokens == 5);
  model->train();
  CHECK_THROWS_WITH(Decoder(*model, {}), Catch::Contains("eval()"));
}
