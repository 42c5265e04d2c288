// What an EAGLE head's training reads of the model, from a file instead of the model's passes.
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/core/random.h>
#include <binade/heads/eagle/training.h>
#include <binade/optim/adamw.h>

#include "heads/eagle/heads.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace eagle = heads::eagle;
using decoding::HiddenCache;

namespace {

constexpr uint32_t kModel = 5;

std::shared_ptr<const decoding::PackedDocuments> documents_of(bool pack) {
  std::vector<decoding::Document> documents;
  for (const int64_t length : {14, 9, 11, 20, 6, 17, 8})
    documents.push_back(
        decoding::whole_document(random_ids(1, length, 61).array().to_vector<int32_t>()));
  return std::make_shared<const decoding::PackedDocuments>(
      documents, decoding::PackingOptions{.batch_size = 2, .seq_len = 24, .pack = pack, .seed = 5});
}

// The losses of some steps, of a head that begins the same each time.
std::vector<double> losses(const std::shared_ptr<nn::CausalLm>& base,
                           const eagle::EagleConfig& config, const amp::Preset& preset,
                           const std::shared_ptr<const decoding::PackedDocuments>& documents,
                           const std::filesystem::path& cache_path) {
  RandomState::current().set_seed(3);
  const auto head = std::make_shared<eagle::EagleHead>(base, config);
  preset.apply(*head);
  std::shared_ptr<const HiddenCache> cache;
  if (!cache_path.empty()) {
    const decoding::CachedStates states = eagle::cached_states(*head, preset);
    decoding::write_hidden_cache(cache_path, *base, states, kModel, *documents, preset);
    cache = std::make_shared<const HiddenCache>(cache_path, states, kModel, *documents, 0);
  }
  optim::AdamW optimizer(optim::split_by_decay(*head, 0));
  amp::GradScaler scaler(Device::cpu(), {});
  eagle::EagleLossOptions loss = eagle::EagleLossOptions::of(config.version);
  loss.steps = 3;
  train::TrainStep step(eagle::eagle_loss(*head, documents->options().pack, loss), optimizer,
                        scaler, preset, {});
  const auto data =
      decoding::heads_data(documents, eagle::head_set(config.version, loss), 1, cache);
  for (int64_t i = 0; i < 8; ++i) {
    const train::StepData now = data(i);
    step.run(i, now.micro_batches, now.normalisers, 5e-3);
  }
  std::vector<double> result;
  for (const train::StepReport& report : step.take_reports(true)) result.push_back(report.loss);
  return result;
}

}  // namespace

TEST_CASE("training an EAGLE head from a cache is training behind the model, bit by bit",
          "[heads][eagle][hidden_cache]") {
  for (const char* name : {"fp32", "fp16", "bf16"}) {
    const amp::Preset preset = amp::Preset::parse(name);
    const auto base = eagle_base();
    preset.apply(*base);
    for (const eagle::EagleConfig& config : eagle_configs(base->config()))
      for (const bool pack : {true, false}) {
        INFO(name << ", " << eagle::name_of(config.version) << (pack ? ", packed" : ""));
        const TemporaryFolder folder;
        const auto documents = documents_of(pack);
        const auto behind = losses(base, config, preset, documents, {});
        CHECK(losses(base, config, preset, documents, folder / "cache") == behind);
        for (const double loss : behind) CHECK(std::isfinite(loss));
      }
  }
}

TEST_CASE("a cache of what another EAGLE head reads is refused",
          "[heads][eagle][hidden_cache][bad-input]") {
  const auto base = eagle_base();
  const auto documents = documents_of(true);
  const amp::Preset fp32 = amp::Preset::parse("fp32"), bf16 = amp::Preset::parse("bf16");
  eagle::EagleConfig config = eagle::EagleConfig::eagle3(base->config());
  const eagle::EagleHead three(base, config), one(base, eagle::EagleConfig::eagle1());
  const TemporaryFolder folder;
  const auto path = folder / "cache";
  decoding::write_hidden_cache(path, *base, eagle::cached_states(three, fp32), kModel, *documents,
                               fp32);
  const auto open = [&](const decoding::CachedStates& states) {
    HiddenCache(path, states, kModel, *documents, 0);
  };
  CHECK_NOTHROW(open(eagle::cached_states(three, fp32)));
  CHECK_THROWS_WITH(open(eagle::cached_states(three, bf16)),
                    Contains("of preset fp32") && Contains("not") && Contains("of preset bf16"));
  CHECK_THROWS_WITH(open(eagle::cached_states(one, fp32)), Contains("layers 0, 1, 2"));
  CHECK_THROWS_WITH(open(decoding::last_hidden_states(*base)), Contains("remove it"));
  nn::CausalLmConfig deeper = small_config(nn::Family::llama);
  deeper.layers = 4;
  const auto other = small_model(deeper);
  config.layers = {0, 1, 3};
  CHECK_THROWS_WITH(open(eagle::cached_states(eagle::EagleHead(other, config), fp32)),
                    Contains("not hidden states and the streams that enter layers 0, 1, 3"));
}
