// What a model over packed rows must be, whatever its weights.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

#include <binade/autograd/create.h>
#include <binade/autograd/ops.h>
#include <binade/heads/flow/flow.h>

#include "tiny_world.h"

using namespace binade;
using namespace binade::test;
using data::PackedSlots;
using data::PartKind;
using heads::flow::UnifiedLoss;

namespace {

std::shared_ptr<nn::MotModel> make_model(nn::ExpertChoice experts = nn::ExpertChoice::mot) {
  RandomState::current().set_seed(11);
  return std::make_shared<nn::MotModel>(tiny_config(experts));
}

// Weights at which everything matters: what begins at 0 or as a copy is neither.
void disturb(nn::MotModel& model) {
  RandomState::current().set_seed(12);
  nn::StateDict state = model.snapshot();
  for (auto& [name, value] : state) value = (Tensor(value) + 0.1 * randn(value.shape())).array();
  model.load_state(state);
}

PackedSlots pack(const std::vector<data::Sample>& samples) {
  data::RandomStream random(5, 0);
  return data::pack_each(samples, examples::world_layout(), random);
}

Tensor noise_for(const PackedSlots& packed) {
  RandomState::current().set_seed(21);
  return randn(packed.latents.shape());
}

UnifiedLoss loss_of(const nn::MotModel& model, const PackedSlots& packed, const Tensor& noise) {
  return heads::flow::unified_loss(model, heads::flow::on_device(packed, Device::cpu()),
                                   normalisers_of(packed), noise, 1);
}

nn::Halves hidden_of(const nn::MotModel& model, const PackedSlots& packed) {
  const train::Named<Tensor> batch = heads::flow::on_device(packed, Device::cpu());
  const Tensor times = heads::flow::times_of(batch.at("logit_times"), 1);
  return model.forward(heads::flow::inputs_of(batch, batch.at("latents"), times));
}

Array gradient(const nn::Module& model, const std::string& name) {
  for (const nn::NamedParameter& one : model.named_parameters())
    if (one.name == name) return one.parameter->tensor().grad();
  fail("no parameter ", name);
}

double largest(const Array& array) {
  if (!array.defined()) return 0;
  double most = 0;
  for (const float value : array.to(DType::f32).contiguous().to_vector<float>())
    most = std::max(most, std::abs(static_cast<double>(value)));
  return most;
}

bool belongs_to_generation(const std::string& name) {
  return name.find(nn::kGenerationSuffix) != std::string::npos;
}

}  // namespace

TEST_CASE("a fresh model's MSE is that of saying nothing", "[flow]") {
  const auto model = make_model();
  const PackedSlots packed = pack(world_samples(12));
  const Tensor noise = noise_for(packed);
  const double mse = loss_of(*model, packed, noise).mse.item();
  double sum = 0;
  const int64_t values = packed.latents.size(2);
  for (int64_t i = 0; i < packed.latents.numel(); ++i) {
    const double target = noise.array().data<float>()[i] - packed.latents.data<float>()[i];
    sum += packed.noised.data<float>()[i / values] > 0 ? target * target : 0;
  }
  CHECK(mse == Approx(sum / static_cast<double>(packed.noised_tokens * values)).epsilon(1e-5));
  CHECK(mse > 1.5);
  CHECK(mse < 3);
}

TEST_CASE("rows of text move nothing of generation", "[flow]") {
  const auto model = make_model();
  disturb(*model);
  const PackedSlots packed = pack({{data::text_part({9, 8, 7}, /*loss=*/true)}});
  const UnifiedLoss loss = loss_of(*model, packed, noise_for(packed));
  CHECK(loss.mse.item() == 0);  // no noise
  (loss.mse + loss.ce).backward();
  for (const nn::NamedParameter& one : model->named_parameters())
    if (belongs_to_generation(one.name) || one.name.rfind("llm2vae", 0) == 0 ||
        one.name.rfind("vae2llm", 0) == 0 || one.name.rfind("time_embedder", 0) == 0)
      CHECK(largest(one.parameter->tensor().grad()) == 0);
  CHECK(largest(gradient(*model, "language_model.model.layers.1.self_attn.q_proj.weight")) > 0);
}

TEST_CASE("drawing reads the keys of understanding and nothing else of its last layer", "[flow]") {
  const auto model = make_model();
  disturb(*model);
  std::vector<data::Sample> samples = world_samples(12);
  std::erase_if(samples,
                [](const data::Sample& sample) { return sample.back().kind != PartKind::noise; });
  REQUIRE(!samples.empty());
  const PackedSlots packed = pack(samples);
  loss_of(*model, packed, noise_for(packed)).mse.backward();
  const std::string last = "language_model.model.layers.1.";
  for (const char* read : {"self_attn.k_proj.weight", "self_attn.v_proj.weight"})
    CHECK(largest(gradient(*model, last + read)) > 0);
  for (const char* unread : {"self_attn.q_proj.weight", "self_attn.o_proj.weight",
                             "mlp.up_proj.weight", "mlp.down_proj.weight"})
    CHECK(largest(gradient(*model, last + unread)) == 0);
}

TEST_CASE("packs without pictures for the ViT, noise or labels have losses of 0", "[flow]") {
  const auto model = make_model();
  disturb(*model);
  const examples::World world = tiny_world();
  const Array picture = world.picture({{3, 3, 0}});
  const auto only = [&](const data::Sample& sample) {
    const PackedSlots packed = pack({sample});
    const UnifiedLoss loss = loss_of(*model, packed, noise_for(packed));
    (loss.mse + loss.ce).backward();  // and no crash
    for (const nn::NamedParameter& one : model->named_parameters()) {
      CHECK(std::isfinite(largest(one.parameter->tensor().grad())));
      one.parameter->tensor().zero_grad();
    }
    return std::pair(loss.mse.item(), loss.ce.item());
  };
  const auto noise = data::image_part(PartKind::noise, examples::latents_of(picture));
  const auto seen = data::image_part(PartKind::vit, picture);
  CHECK(only({data::text_part({5}), noise}).second == 0);
  CHECK(only({data::text_part({5}), noise}).first > 0);
  CHECK(only({seen, data::text_part({5}, true)}).first == 0);
  CHECK(only({seen, data::text_part({5}, true)}).second > 0);
  CHECK(only({seen, data::text_part({5})}) == std::pair(0.0, 0.0));
}

TEST_CASE("packed samples are what each is alone", "[flow]") {
  const auto experts =
      GENERATE(nn::ExpertChoice::dense, nn::ExpertChoice::moe, nn::ExpertChoice::mot);
  const auto model = make_model(experts);
  disturb(*model);
  const NoGrad off;
  const std::vector<data::Sample> samples = world_samples(5);
  const PackedSlots apart = pack(samples);
  data::SlotLayout layout = examples::world_layout();
  layout.understanding = layout.generation = layout.vit = 7;  // spare
  for (const data::Sample& sample : samples) {
    const data::SlotCounts counts = data::slots_of(sample, layout);
    layout.understanding += counts.understanding;
    layout.generation += counts.generation;
    layout.vit += counts.vit;
  }
  data::SlotPacker packer(layout, 1);
  data::RandomStream random(5, 0);  // as pack() has
  for (const data::Sample& sample : samples) packer.add(0, sample, random);
  const PackedSlots& together = packer.packed();
  const nn::Halves of_all = hidden_of(*model, together), of_each = hidden_of(*model, apart);
  double worst = 0;
  int64_t compared = 0;
  for (const bool generation : {false, true}) {
    const Array all = (generation ? of_all.generation : of_all.understanding).array();
    const Array each = (generation ? of_each.generation : of_each.understanding).array();
    const int64_t dim = all.size(2);
    const auto sample_of = [&](const PackedSlots& packed, int64_t row, int64_t slot) {
      const int64_t first = generation ? packed.ids.size(1) : 0;
      return packed.slots.data<int32_t>()[row * packed.slots.stride(0) + first + slot];
    };
    for (int64_t s = 0; s < std::ssize(samples); ++s) {
      int64_t at = 0;
      for (int64_t slot = 0; slot < all.size(1); ++slot) {
        if (sample_of(together, 0, slot) != s) continue;
        while (sample_of(apart, s, at) != 0) ++at;
        for (int64_t d = 0; d < dim; ++d)
          worst = std::max(
              worst, std::abs(double{all.contiguous().data<float>()[slot * dim + d]} -
                              each.contiguous().data<float>()[(s * each.size(1) + at) * dim + d]));
        ++at;
        ++compared;
      }
    }
  }
  CHECK(compared == together.used);
  CHECK(worst < 2e-5);
}

TEST_CASE("what spare slots hold changes nothing", "[flow]") {
  const auto model = make_model();
  disturb(*model);
  const PackedSlots packed = pack(world_samples(6));
  const Tensor noise = noise_for(packed);
  const UnifiedLoss before = loss_of(*model, packed, noise);
  const auto poison = [](const Array& values, const Array& keep, int64_t each, auto unused,
                         auto value) {
    using Value = decltype(value);
    for (int64_t i = 0; i < values.numel(); ++i)
      if (unused(keep, i / each)) values.data<Value>()[i] = value;
  };
  const int64_t tokens = packed.slots.size(2), understanding = packed.ids.size(1);
  const auto spare = [&](bool generation) {
    return [=](const Array& slots, int64_t slot) {
      const int64_t width = generation ? tokens - understanding : understanding;
      return slots.data<int32_t>()[slot / width * slots.stride(0) + slot % width +
                                   (generation ? understanding : 0)] < 0;
    };
  };
  const auto no_image = [](const Array& images, int64_t patch) {
    return images.data<int32_t>()[patch] < 0;
  };
  poison(packed.ids, packed.slots, 1, spare(false), int32_t{63});
  poison(packed.latents, packed.slots, packed.latents.size(2), spare(true), 1e3f);
  poison(packed.latent_places, packed.slots, 1, spare(true), int32_t{255});
  poison(packed.patches, packed.patch_images, packed.patches.size(2), no_image, -1e3f);
  poison(packed.patch_places, packed.patch_images, 1, no_image, int32_t{200});
  const UnifiedLoss after = loss_of(*model, packed, noise);
  CHECK(after.mse.item() == before.mse.item());
  CHECK(after.ce.item() == before.ce.item());
}

TEST_CASE("dense is a mixture of transformers whose experts are copies", "[flow]") {
  const auto dense = make_model(nn::ExpertChoice::dense);
  disturb(*dense);
  const PackedSlots packed = pack(world_samples(6));
  const Tensor noise = noise_for(packed);
  const UnifiedLoss want = loss_of(*dense, packed, noise);
  for (const auto experts : {nn::ExpertChoice::moe, nn::ExpertChoice::mot}) {
    const auto model = make_model(experts);
    nn::StateDict state = dense->snapshot();
    for (const auto& [name, value] : model->state()) {
      if (!belongs_to_generation(name)) continue;
      std::string copied = name;
      copied.erase(copied.find(nn::kGenerationSuffix), std::string(nn::kGenerationSuffix).size());
      state[name] = state.at(copied);
    }
    model->load_state(state);
    const UnifiedLoss got = loss_of(*model, packed, noise);
    CHECK(got.mse.item() == Approx(want.mse.item()).epsilon(1e-6));
    CHECK(got.ce.item() == Approx(want.ce.item()).epsilon(1e-6));
  }
}

TEST_CASE("generation begins as a copy of understanding", "[flow]") {
  const auto model = make_model();
  const nn::StateDict state = model->state();
  int64_t pairs = 0;
  for (const auto& [name, value] : state) {
    if (!belongs_to_generation(name)) continue;
    std::string copied = name;
    copied.erase(copied.find(nn::kGenerationSuffix), std::string(nn::kGenerationSuffix).size());
    CHECK(state.at(copied).to_vector<float>() == value.to_vector<float>());
    ++pairs;
  }
  CHECK(pairs == 2 * 14 + 1);  // of each layer 4 weights, 3 biases, 4 norms, 3 of the MLP
}

TEST_CASE("unknown architectures are refused", "[flow][errors]") {
  CHECK_THROWS_WITH(nn::parse_expert_choice("moa"),
                    Catch::Contains("unknown architecture 'moa'; there are dense, moe and mot"));
  nn::MotConfig config = tiny_config();
  config.block.kv_heads = 3;
  CHECK_THROWS_WITH(nn::MotModel(config), Catch::Contains("cannot be shared by 4 query heads"));
}
