// Files of Medusa heads against the classes of serving engines: scripts/long/medusa_engines.sh runs
// the first case, lets the engines read and write, and runs the second.
#include <cstdlib>
#include <filesystem>

#include <catch2/catch.hpp>

#include <binade/core/safetensors.h>
#include <binade/heads/medusa/files.h>
#include <binade/nn/hf.h>

#include "nn/tiny_models.h"
#include "skip.h"

using namespace binade;
namespace fs = std::filesystem;
namespace medusa = heads::medusa;

namespace {

fs::path exchange_folder() {
  const char* folder = std::getenv("BINADE_MEDUSA_ENGINES");
  if (folder == nullptr) test::skip("run scripts/long/medusa_engines.sh");
  return folder;
}

std::shared_ptr<nn::CausalLm> read_base() {
  std::shared_ptr<nn::CausalLm> base = nn::load_hf(exchange_folder() / "base");
  base->eval();
  return base;
}

Array logits_of(const medusa::MedusaHeads& heads, const Tensor& hidden) {
  const NoGrad off;
  TensorList logits;
  for (int64_t k = 0; k < heads.config().heads; ++k) logits.push_back(heads.logits(k, hidden));
  return stack(logits, 0).array();
}

}  // namespace

TEST_CASE("Medusa heads are written for engines to read", "[.medusa-engines-write]") {
  const fs::path folder = exchange_folder();
  nn::save_hf(*test::small_model(test::small_config(nn::Family::llama)), folder / "base");
  const auto base = read_base();
  const NoGrad off;
  const Tensor hidden = base->hidden_states(test::random_ids(1, 9, 61));
  for (const auto& [name, config] : std::vector<std::pair<std::string, medusa::MedusaConfig>>{
           {"one_block", {.heads = 3, .layers = 1}},
           {"two_blocks", {.heads = 2, .layers = 2}},
           {"shared_output", {.heads = 3, .layers = 1, .own_output = false}}}) {
    medusa::MedusaHeads heads(base, config);
    for (const nn::NamedParameter& named : heads.named_parameters())
      named.parameter->assign(nn::init::normal(0.3)(named.parameter->shape(), Device::cpu()));
    for (const medusa::Layout layout : {medusa::Layout::original, medusa::Layout::vllm})
      medusa::save_medusa(heads, folder / name / medusa::name_of(layout),
                          {.layout = layout, .base_name = "base", .dtype = DType::f32});
    write_safetensors(folder / name / "expected.safetensors",
                      {{"hidden", hidden.array()},
                       {"logits", logits_of(heads, hidden)},
                       {"base_head", base->head_weight().array()}});
  }
}

TEST_CASE("Medusa heads that engines wrote are read", "[.medusa-engines-read]") {
  const auto base = read_base();
  int folders = 0;
  for (const auto& entry : fs::directory_iterator(exchange_folder() / "from_engines")) {
    INFO(entry.path());
    const SafetensorsFile expected(entry.path() / "expected.safetensors.check");
    const auto heads = medusa::load_medusa(entry.path(), base);
    CHECK(test::relative_difference(logits_of(*heads, Tensor(expected.get("hidden"))),
                                    expected.get("logits")) < 1e-6);
    ++folders;
  }
  CHECK(folders == 4);
}
