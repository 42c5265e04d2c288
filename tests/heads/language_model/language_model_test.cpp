// What a language model adds to the trainer: batches of windows, and the validation loss.
#include <binade/heads/language_model/language_model.h>

#include <catch2/catch.hpp>

#include <binade/data/token_source.h>

#include "train/small_run.h"

using namespace binade;
using namespace binade::test;
namespace lm = heads::language_model;

namespace {

std::shared_ptr<const data::WindowSampler> windows(int64_t tokens, int64_t batch_size) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>(i * i % kVocabulary));
  return std::make_shared<data::WindowSampler>(
      std::make_shared<data::MemoryTokens>(ids, kVocabulary),
      data::SamplerOptions{
          .batch_size = batch_size, .seq_len = kLength, .order = data::DataOrder::kSequential});
}

}  // namespace

TEST_CASE("a step's windows are split into micro-batches row by row", "[heads][language_model]") {
  const auto sampler = windows(100, 4);
  lm::WindowBatches whole(sampler, 1, Device::cpu()), halves(sampler, 2, Device::cpu());
  for (int64_t step = 3; step < 6; ++step) {
    const train::StepData a = whole(step), b = halves(step);
    REQUIRE(a.micro_batches.size() == 1);
    REQUIRE(b.micro_batches.size() == 2);
    CHECK(a.tokens == 4 * kLength);
    CHECK(b.tokens == a.tokens);
    CHECK(b.normalisers.at("targets") == a.normalisers.at("targets"));
    for (const char* part : {"inputs", "targets"}) {
      std::vector<int32_t> joined;
      for (const train::Batch& batch : b.micro_batches)
        for (const int32_t id : batch.at(part).to_vector<int32_t>()) joined.push_back(id);
      CHECK(joined == a.micro_batches[0].at(part).to_vector<int32_t>());
    }
  }
  CHECK_THROWS_WITH(whole(9), Catch::Contains("steps must follow each other"));
  CHECK_THROWS_WITH(lm::WindowBatches(sampler, 3, Device::cpu()),
                    Catch::Contains("4 rows cannot be split into 3"));
}

TEST_CASE("the validation loss is the mean over tokens and counts no window twice",
          "[heads][language_model]") {
  SmallRun run;
  run.model->eval();
  // 7 windows in batches of 4: the second batch has a row too many.
  const auto sampler = windows(7 * kLength + 1, 4);
  REQUIRE(sampler->window_count() == 7);
  double sum = 0;
  const Tensor one = Tensor::scalar(1, DType::f32, Device::cpu());
  for (int64_t window = 0; window < 7; ++window) {
    std::vector<int32_t> inputs, targets;
    for (int64_t t = window * kLength; t < (window + 1) * kLength; ++t) {
      inputs.push_back(static_cast<int32_t>(t * t % kVocabulary));
      targets.push_back(static_cast<int32_t>((t + 1) * (t + 1) % kVocabulary));
    }
    sum += run.model
               ->loss(Tensor::from(inputs, {1, kLength}, Device::cpu()),
                      Tensor::from(targets, {1, kLength}, Device::cpu()), one)
               .item();
  }
  CHECK(lm::validation_loss(*run.model, *sampler, run.preset, 100) ==
        Approx(sum / (7 * kLength)).epsilon(1e-5));
}
