// The small model beside its peer in plain PyTorch: torch_bagel.json is what
// scripts/long/bagel_cases.py found.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <map>

#include <binade/autograd/ops.h>
#include <binade/core/file.h>
#include <binade/heads/flow/flow.h>
#include <nlohmann/json.hpp>

#include "../../nn/hashed_weights.h"
#include "parsed_json.h"
#include "tiny_world.h"

using namespace binade;
using namespace binade::test;
using data::PartKind;

namespace {

Array hashed(const std::string& name, const Shape& shape, double scale = 1, double offset = 0) {
  std::vector<float> values;
  for (const double one : directions(name, shape.numel()))
    values.push_back(static_cast<float>(offset + scale * one));
  return Array::from(values, shape);
}

nn::MotConfig peer_config() {
  nn::MotConfig config;
  config.block = {.dim = 16, .heads = 4, .kv_heads = 2, .hidden = 24};
  config.layers = 2;
  config.vit = {.dim = 32, .layers = 1, .heads = 1, .hidden = 128};
  return config;
}

data::PackedSlots peer_pack() {
  const Array first = hashed("first", {3, 8, 8}), second = hashed("second", {3, 8, 8});
  const auto noise = data::image_part(PartKind::noise, examples::latents_of(first));
  const std::vector<data::Sample> samples = {
      {data::text_part({7, 9}), noise},
      {data::image_part(PartKind::vae, examples::latents_of(second)),
       data::image_part(PartKind::vit, second), data::text_part({8}),
       data::text_part({5, 6}, /*loss=*/true), data::text_part({12}), noise}};
  data::SlotLayout layout = examples::world_layout();
  layout.understanding = layout.generation = layout.vit = 2;  // spare
  for (const data::Sample& sample : samples) {
    const data::SlotCounts counts = data::slots_of(sample, layout);
    layout.understanding += counts.understanding;
    layout.generation += counts.generation;
    layout.vit += counts.vit;
  }
  data::SlotPacker packer(layout, 1);
  data::RandomStream random(1, 0);
  for (const data::Sample& sample : samples) packer.add(0, sample, random);
  data::PackedSlots packed = packer.packed();
  for (int64_t i = 0; i < packed.noised.numel(); ++i)
    if (packed.noised.data<float>()[i] > 0) packed.logit_times.data<float>()[i] = 0.3f;
  return packed;
}

void check_close(const Array& got, const nlohmann::json& want, double tolerance) {
  REQUIRE(got.numel() == std::ssize(want));
  const Array values = got.to(DType::f32).contiguous();
  double worst = 0;
  for (int64_t i = 0; i < got.numel(); ++i)
    worst = std::max(worst, std::abs(double{values.data<float>()[i]} -
                                     want[static_cast<size_t>(i)].get<double>()));
  CHECK(worst < tolerance);
}

}  // namespace

TEST_CASE("packed rows, losses, logits, velocities and gradients are the peer's", "[flow][peer]") {
  const nlohmann::json golden = test::parsed(
      read_text_file(BINADE_SOURCE_DIR "/tests/heads/flow/torch_bagel.json"))["cases"][0];
  const data::PackedSlots packed = peer_pack();
  const int64_t tokens = packed.slots.size(2);
  const auto* slots = packed.slots.data<int32_t>();
  std::map<int32_t, double> first_split;  // the peer counts splits of a row, not of a sample
  int64_t wrong = 0;
  for (int64_t i = 0; i < tokens; ++i) {
    const auto peer = [&](int64_t field) {
      return golden["slots"][static_cast<size_t>(field * tokens + i)].get<double>();
    };
    wrong += slots[i] != peer(0);
    if (slots[i] < 0) continue;
    const double first = first_split.try_emplace(slots[i], peer(2)).first->second;
    wrong += slots[tokens + i] != peer(1) || slots[2 * tokens + i] != peer(2) - first ||
             slots[3 * tokens + i] != peer(3) ||
             packed.positions.data<int32_t>()[i] !=
                 golden["positions"][static_cast<size_t>(i)].get<double>();
  }
  CHECK(wrong == 0);

  nn::MotModel model(peer_config());
  nn::StateDict state;
  for (const auto& [name, value] : model.state()) {
    const bool norm = name.find("norm") != std::string::npos && name.ends_with("weight");
    state[name] = hashed(name, value.shape(), 0.2, norm ? 1 : 0);
  }
  model.load_state(state);
  const train::Named<Tensor> batch = heads::flow::on_device(packed, Device::cpu());
  const Tensor noise(hashed("noise", packed.latents.shape()));
  const heads::flow::UnifiedLoss loss =
      heads::flow::unified_loss(model, batch, normalisers_of(packed), noise, 1);
  CHECK(loss.mse.item() == Approx(golden["mse"][0].get<double>()).epsilon(1e-5));
  CHECK(loss.ce.item() == Approx(golden["ce"][0].get<double>()).epsilon(1e-5));
  const Tensor times = heads::flow::times_of(batch.at("logit_times"), 1);
  const nn::Halves hidden = model.forward(
      heads::flow::inputs_of(batch, heads::flow::noised(batch.at("latents"), noise, times), times));
  // In slots that are not spare: the peer's spare ones see themselves.
  const int64_t text = packed.ids.size(1) - 2, latents = packed.latents.size(1) - 2;
  const auto used = [](const nlohmann::json& all, int64_t count) {
    return nlohmann::json(all.begin(), all.begin() + count);
  };
  check_close(slice(model.logits(hidden.understanding), 1, 0, text).array(),
              used(golden["logits"], text * 64), 1e-4);
  check_close(slice(model.velocity(hidden.generation), 1, 0, latents).array(),
              used(golden["velocity"], latents * 48), 1e-4);

  (loss.mse + 0.25 * loss.ce).backward();
  for (const nn::NamedParameter& one : model.named_parameters()) {
    INFO(one.name);
    const Array gradient = one.parameter->tensor().grad();
    REQUIRE(gradient.defined());
    const std::vector<double> probe = directions(one.name + "/probe", gradient.numel());
    double projected = 0, size = 0;
    for (int64_t i = 0; i < gradient.numel(); ++i) {
      projected += probe[static_cast<size_t>(i)] * gradient.data<float>()[i];
      size += std::abs(probe[static_cast<size_t>(i)] * gradient.data<float>()[i]);
    }
    CHECK(projected ==
          Approx(golden["gradients"][one.name].get<double>()).margin(1e-4 * size + 1e-6));
  }
}
