// ../shared/models/stories260k: a real model, from its files to its text.
#include <algorithm>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/data/tokenizer.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>

#include "nn/tiny_models.h"
#include "shared.h"

using namespace binade;

namespace {

void check_stories(Device device) {
  const auto folder = test::shared_path("models/stories260k");
  const auto fixture = test::shared_path("fixtures/stories260k_logits.safetensors");
  if (!folder || !fixture) return;
  const SafetensorsFile expected(*fixture);
  const std::shared_ptr<nn::CausalLm> model = nn::load_hf(*folder, {.device = device});
  model->eval();

  const Tensor ids(expected.get("input_ids").to(DType::i32).to(device));
  CHECK(test::relative_difference(model->forward(ids).array(), expected.get("logits")) < 1e-4);

  const std::unique_ptr<data::Tokenizer> tokenizer = data::load_tokenizer(*folder);
  nn::check_vocabulary(*model, tokenizer->vocab_size());
  const std::vector<int32_t> story = infer::generate(*model, {{1}}, {.max_new_tokens = 256})[0];
  const std::vector<int32_t> greedy = expected.get("greedy").to_vector<int32_t>();
  CHECK(std::equal(greedy.begin() + 1, greedy.end(), story.begin()));

  // The README ends with the story, whose lines were left as they are.
  const std::string readme = read_text_file(*folder + "/README.md");
  std::string text = tokenizer->decode(story);
  text.erase(0, text.find_first_not_of(' '));
  const std::string told = readme.substr(readme.find("Once upon a time"));
  CHECK(text.substr(0, 400) == told.substr(0, 400));
  CHECK(told.find(text) == 0);
}

}  // namespace

TEST_CASE("stories260k tells its story", "[stories]") {
  check_stories(Device::cpu());
}
TEST_CASE("stories260k tells its story on the GPU", "[stories][cuda]") {
  check_stories(test::cuda_or_skip());
}
