// What training an EAGLE head holds at most: it grows with the tokens of a row, not with their
// square.
#include <catch2/catch.hpp>

#include <binade/core/device.h>
#include <binade/heads/eagle/training.h>

#include "heads/eagle/heads.h"

using namespace binade;
using namespace binade::test;
namespace decoding = heads::decoding;
namespace eagle = heads::eagle;

namespace {

// The most that a forward and a backward pass over a row of T tokens hold beside what was there.
int64_t bytes_of(int64_t length, eagle::Version version, bool pack, Recompute recompute) {
  nn::CausalLmConfig config = small_config(nn::Family::llama);
  config.layers = 3;
  config.max_positions = length;
  const auto base = small_model(config);
  base->set_trainable(false);
  eagle::EagleConfig of_head = version == eagle::Version::eagle1
                                   ? eagle::EagleConfig::eagle1()
                                   : eagle::EagleConfig::eagle3(config, some_tokens(config));
  eagle::EagleHead head(base, std::move(of_head));
  head.set_recompute(recompute);
  std::vector<decoding::Document> documents;
  for (int64_t d = 0; d < (pack ? 4 : 1); ++d)
    documents.push_back(decoding::whole_document(
        random_ids(1, pack ? length / 4 : length, 61).array().to_vector<int32_t>()));
  const auto packed = std::make_shared<const decoding::PackedDocuments>(
      documents, decoding::PackingOptions{.batch_size = 1, .seq_len = length, .pack = pack});
  eagle::EagleLossOptions options = eagle::EagleLossOptions::of(version);
  options.steps = 4;
  const train::LossFunction loss = eagle::eagle_loss(head, pack, options);
  const train::StepData data =
      decoding::heads_data(packed, eagle::head_set(version, options), 1)(0);
  train::LossInputs in;
  for (const auto& [name, array] : data.micro_batches[0]) in.batch.add(name, Tensor(array));
  for (const auto& [name, count] : data.normalisers)
    in.normalisers.add(name, Tensor::scalar(count, DType::f32));
  const int64_t before = memory_stats(Device::cpu()).in_use;
  reset_peak_memory(Device::cpu());
  loss(in).value.backward();
  return memory_stats(Device::cpu()).peak_in_use - before;
}

void check_linear(int64_t shortest) {
  for (const eagle::Version version : {eagle::Version::eagle1, eagle::Version::eagle3}) {
    INFO(eagle::name_of(version));
    int64_t kept = 0;
    for (const Recompute recompute : {Recompute::nothing, Recompute::blocks}) {
      int64_t bytes[3];
      for (int64_t i = 0; i < 3; ++i)
        bytes[i] = bytes_of(shortest << i, version, /*pack=*/false, recompute);
      INFO("bytes: " << bytes[0] << ", " << bytes[1] << ", " << bytes[2]);
      const double first = static_cast<double>(bytes[1] - bytes[0]),
                   second = static_cast<double>(bytes[2] - bytes[1]);
      CHECK(first > 0);
      CHECK(second < 2.1 * first);  // of what grows with the square it would be 4
      if (recompute == Recompute::nothing) kept = bytes[2];
      // Of four steps all but their inputs and keys are dropped.
      if (recompute == Recompute::blocks && version == eagle::Version::eagle3)
        CHECK(static_cast<double>(bytes[2]) < 0.75 * static_cast<double>(kept));
      // On the CPU, attention over packed documents makes a mask of a byte a pair for a pass.
      const int64_t longest = shortest << 2;
      const int64_t packed = bytes_of(longest, version, /*pack=*/true, recompute);
      CHECK(static_cast<double>(packed - longest * longest) < 1.05 * static_cast<double>(bytes[2]));
    }
  }
}

}  // namespace

TEST_CASE("the memory of training an EAGLE head grows with the tokens of a row",
          "[heads][eagle][memory]") {
  check_linear(512);
}

TEST_CASE("the memory of training an EAGLE head grows with the tokens of a row of 16,384",
          "[heads][eagle][memory][long]") {
  check_linear(4096);
}
