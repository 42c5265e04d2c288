// Deferred parameters: the same bits as those of parameters that are made at once, whatever is done
// to them before they are read, and no memory until then.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/core/device.h>
#include <binade/core/random.h>
#include <binade/core/safetensors.h>
#include <binade/heads/eagle/eagle.h>
#include <binade/heads/medusa/medusa.h>
#include <binade/heads/mtp/mtp.h>
#include <binade/heads/rank/ranker.h>
#include <binade/nn/attention.h>
#include <binade/nn/batch_norm.h>
#include <binade/nn/conv1d.h>
#include <binade/nn/conv2d.h>
#include <binade/nn/conv_transpose1d.h>
#include <binade/nn/conv_transpose2d.h>
#include <binade/nn/deferred.h>
#include <binade/nn/group_norm.h>
#include <binade/nn/hf.h>
#include <binade/nn/lora.h>
#include <binade/nn/mlp.h>
#include <binade/nn/models/causal_lm.h>
#include <binade/nn/mot/flux_autoencoder.h>
#include <binade/nn/norm.h>
#include <binade/nn/recurrent.h>
#include <binade/nn/sparse_embedding.h>

#include "gpu.h"
#include "heads/flow/tiny_world.h"
#include "nn/tiny_models.h"
#include "temporary_folder.h"

namespace binade::test {
namespace {

using ModulePtr = std::shared_ptr<nn::Module>;
using Bits = std::map<std::string, std::vector<std::byte>>;

std::vector<std::byte> bits_of(const Array& array) {
  const Array host = array.to(Device::cpu()).contiguous();
  const auto* data = static_cast<const std::byte*>(host.data());
  return {data, data + host.bytes()};
}

// Masters, compute copies and buffers.
Bits bits_of(const nn::Module& module) {
  Bits all;
  for (const nn::NamedParameter& named : module.named_parameters()) {
    all["value of " + named.name] = bits_of(named.parameter->tensor().array());
    all["master of " + named.name] = bits_of(named.parameter->master());
  }
  for (const nn::NamedBuffer& named : module.named_buffers())
    all["buffer " + named.name] = bits_of(named.buffer.array());
  return all;
}

// A model, its heads and adapters, as one.
struct Several : nn::Module {
  void take(const std::string& name, ModulePtr module) { add_child(name, std::move(module)); }
};

template <class M, class... Arguments>
std::function<ModulePtr()> maker(const Arguments&... arguments) {
  return [=] { return std::make_shared<M>(arguments...); };
}

struct Case {
  const char* name;
  std::function<ModulePtr()> make;
};

nn::CausalLmConfig odd_config(nn::Family family) {
  nn::CausalLmConfig config = small_config(family);
  config.vocab_size = 53;  // with rows of padding
  return config;
}

std::shared_ptr<nn::CausalLm> model_of(nn::Family family) {
  return nn::make_causal_lm(odd_config(family), {.vocabulary_multiple = 16});
}

ModulePtr with_heads(nn::Family family,
                     const std::function<ModulePtr(std::shared_ptr<nn::CausalLm>)>& heads) {
  const auto both = std::make_shared<Several>();
  const std::shared_ptr<nn::CausalLm> model = model_of(family);
  both->take("model", model);
  both->take("heads", heads(model));
  return both;
}

ModulePtr with_mtp(heads::mtp::Kind kind, nn::Family family) {
  return with_heads(family, [kind](auto model) {
    return std::make_shared<heads::mtp::MtpHeads>(
        model, heads::mtp::MtpConfig{.kind = kind, .depth = 2}, /*copy_last=*/true);
  });
}

ModulePtr ranker(heads::rank::RankerConfig::Kind kind, heads::rank::RankerConfig::Norm norm) {
  heads::rank::RankerConfig config;
  config.features = 7;
  config.kind = kind;
  config.norm = norm;
  config.hidden = {6, 5};
  config.dim = 8;
  config.input_norm = true;
  return std::make_shared<heads::rank::Ranker>(config);
}

nn::SelfAttentionOptions attention(bool fused) {
  nn::SelfAttentionOptions options;
  options.dim = 16;
  options.heads = 4;
  options.kv_heads = fused ? 2 : 4;
  options.bias = options.output_bias = true;
  options.fused = fused;
  options.qk_norm = nn::QkNorm::head;
  return options;
}

// Every layer that has parameters, and every model.
std::vector<Case> cases() {
  using heads::mtp::Kind;
  using heads::rank::RankerConfig;
  std::vector<Case> all = {
      {"Linear", maker<nn::Linear>(5, 7, true)},
      {"Linear of an initialiser", maker<nn::Linear>(5, 7, true, nn::init::kaiming_normal())},
      {"Embedding", maker<nn::Embedding>(9, 5)},
      {"SparseEmbedding", maker<nn::SparseEmbedding>(9, 5)},
      {"LayerNorm", maker<nn::LayerNorm>(6)},
      {"RmsNorm", maker<nn::RmsNorm>(6)},
      {"RmsNorm from one", maker<nn::RmsNorm>(6, 1e-6, true)},
      {"BatchNorm2d", maker<nn::BatchNorm2d>(6)},
      {"GroupNorm", maker<nn::GroupNorm>(2, 6)},
      {"Conv1d", maker<nn::Conv1d>(3, 5, 3)},
      {"Conv2d", maker<nn::Conv2d>(3, 5, 3)},
      {"ConvTranspose1d", maker<nn::ConvTranspose1d>(3, 5, 3)},
      {"ConvTranspose2d", maker<nn::ConvTranspose2d>(3, 5, 3)},
      {"Gru", maker<nn::Gru>(3, 5, nn::RecurrentOptions{.layers = 2})},
      {"Lstm", maker<nn::Lstm>(3, 5, nn::RecurrentOptions{.layers = 2})},
      {"Mlp", maker<nn::Mlp>(6, 9)},
      {"GatedMlp", [] {
         return std::make_shared<nn::GatedMlp>(nn::GatedMlpOptions{.dim = 6, .hidden = 9});
       }},
      {"SelfAttention", maker<nn::SelfAttention>(attention(false))},
      {"SelfAttention, fused", maker<nn::SelfAttention>(attention(true))},
      {"PackedSelfAttention", maker<nn::PackedSelfAttention>(attention(false))},
      {"mixture of transformers",
       [] { return std::make_shared<nn::MotModel>(tiny_config(nn::ExpertChoice::mot)); }},
      {"mixture of experts",
       [] { return std::make_shared<nn::MotModel>(tiny_config(nn::ExpertChoice::moe)); }},
      {"FLUX's autoencoder",
       [] {
         return std::make_shared<nn::FluxAutoencoder>(nn::FluxAutoencoderConfig{
             .channels = 32, .multipliers = {1, 2}, .blocks = 1, .latent_channels = 4});
       }},
      {"ranker", [] { return ranker(RankerConfig::Kind::mlp, RankerConfig::Norm::batch); }},
      {"dasalc", [] { return ranker(RankerConfig::Kind::dasalc, RankerConfig::Norm::layer); }},
      {"LoRA",
       [] {
         const std::shared_ptr<nn::CausalLm> model = model_of(nn::Family::llama);
         const nn::Lora lora(*model, {.rank = 3});
         return model;
       }},
      {"Medusa heads",
       [] {
         return with_heads(nn::Family::gpt2, [](auto model) {
           return std::make_shared<heads::medusa::MedusaHeads>(
               model, heads::medusa::MedusaConfig{.heads = 2, .layers = 1});
         });
       }},
      {"MTP, sequential", [] { return with_mtp(Kind::sequential, nn::Family::llama); }},
      {"MTP, parallel", [] { return with_mtp(Kind::parallel, nn::Family::gpt2); }},
      {"EAGLE-3",
       [] {
         const auto both = std::make_shared<Several>();
         nn::CausalLmConfig config = odd_config(nn::Family::llama);
         config.layers = 3;
         const std::shared_ptr<nn::CausalLm> model = nn::make_causal_lm(config);
         auto heads = heads::eagle::EagleConfig::eagle3(config);
         heads.layers = {0, 1, 2};
         both->take("model", model);
         both->take("heads", std::make_shared<heads::eagle::EagleHead>(model, heads));
         return both;
       }},
      {"EAGLE-1",
       [] {
         return with_heads(nn::Family::llama, [](auto model) {
           return std::make_shared<heads::eagle::EagleHead>(model,
                                                            heads::eagle::EagleConfig::eagle1());
         });
       }}};
  for (const nn::Family family : kFamilies)
    all.push_back({"a language model", [family] { return model_of(family); }});
  return all;
}

struct Treatment {
  const char* name;
  std::function<void(nn::Module&)> apply;
};

// What may happen to a model before somebody reads it.
std::vector<Treatment> treatments() {
  return {{"nothing", [](nn::Module&) {}},
          {"fp16 with masters", [](nn::Module& m) { m.set_compute_dtype(DType::f16, true); }},
          {"bf16 without masters", [](nn::Module& m) { m.set_compute_dtype(DType::bf16, false); }},
          {"f64", [](nn::Module& m) { m.set_compute_dtype(DType::f64, false); }},
          {"rounded to fp16, then f32",
           [](nn::Module& m) {
             m.set_compute_dtype(DType::f16, false);
             m.set_compute_dtype(DType::f32, false);
           }},
          {"masters given up, then wanted again",
           [](nn::Module& m) {
             m.set_compute_dtype(DType::f16, true);
             m.set_compute_dtype(DType::bf16, false);
             m.set_compute_dtype(DType::f16, true);
           }},
          {"frozen, half, trained again",
           [](nn::Module& m) {
             m.set_trainable(false);
             m.set_compute_dtype(DType::bf16, true);
             m.set_trainable(true);
           }},
          {"of a checkpoint", [](nn::Module& m) {
             nn::StateDict state;
             for (const auto& [name, form] : m.form())
               state[name] = Array::full(form.shape(), 0.3, DType::f64).to(form.dtype());
             m.set_compute_dtype(DType::f16, true);
             m.load_state(state);
           }}};
}

TEST_CASE("deferred: every layer and model has the bits of one that is made at once",
          "[nn][deferred]") {
  for (const Case& one : cases())
    for (const Treatment& treatment : treatments()) {
      CAPTURE(one.name, treatment.name);
      RandomState::current().set_seed(11);
      const ModulePtr usual = one.make();
      treatment.apply(*usual);
      const uint64_t place = RandomState::current().place();  // of what is drawn behind it
      RandomState::current().set_seed(11);
      ModulePtr deferred;
      {
        const nn::Deferred scope;
        deferred = one.make();
        treatment.apply(*deferred);
      }
      CHECK(RandomState::current().place() == place);
      CHECK((bits_of(*deferred) == bits_of(*usual)));
      for (const nn::NamedParameter& named : deferred->named_parameters())
        CHECK_FALSE(named.parameter->deferred());
    }
}

TEST_CASE("deferred: no layer or model takes memory for its parameters", "[nn][deferred]") {
  for (const Case& one : cases()) {
    if (std::string(one.name) == "EAGLE-3") continue;  // its head reads the model's last layer
    CAPTURE(one.name);
    const nn::Deferred scope;
    const ModulePtr module = one.make();
    module->set_compute_dtype(DType::f16, true);
    std::string made;
    for (const nn::NamedParameter& named : module->named_parameters())
      if (!named.parameter->deferred()) made += named.name + " ";
    CHECK(made == "");
    CHECK(module->parameter_count() == one.make()->parameter_count());
  }
}

TEST_CASE("deferred: the bytes of a model begin with the first that is read", "[nn][deferred]") {
  static constexpr int64_t kWide = 512, kBytes = kWide * kWide * 4;
  struct Model : nn::Module {
    Model() {
      for (int i = 0; i < 4; ++i) layers.push_back(add<nn::Linear>(concat(i), kWide, kWide));
    }
    std::vector<std::shared_ptr<nn::Linear>> layers;
  };
  const auto in_use = [] { return memory_stats(Device::cpu()).in_use; };
  const int64_t before = in_use();
  const nn::Deferred scope;
  Model model;
  model.set_compute_dtype(DType::bf16, true);
  const auto state = model.form();
  CHECK(in_use() - before < kBytes / 16);
  // Looking is not keeping.
  CHECK(model.layers[1]->weight()->peek().bytes() == kBytes);
  CHECK(in_use() - before < kBytes / 16);
  CHECK(model.layers[1]->weight()->tensor().array().bytes() == kBytes / 2);
  CHECK(in_use() - before >= kBytes * 3 / 2);
  CHECK(in_use() - before < kBytes * 3 / 2 + kBytes / 16);
  CHECK(model.layers[0]->weight()->deferred());
  model.layers[0]->forward(Tensor::zeros({2, kWide}, DType::bf16));
  CHECK(in_use() - before >= kBytes * 3);
  CHECK(in_use() - before < kBytes * 3 + kBytes / 16);
}

TEST_CASE("deferred: scopes nest, end with an exception, and are a thread's own",
          "[nn][deferred]") {
  CHECK_FALSE(nn::Deferred::active());
  try {
    const nn::Deferred outer;
    {
      const nn::Deferred inner;
      CHECK(nn::Linear(2, 2).weight()->deferred());
    }
    CHECK(nn::Deferred::active());
    bool elsewhere = true;
    std::thread([&] { elsewhere = nn::Deferred::active(); }).join();
    CHECK_FALSE(elsewhere);
    fail("the end");
  } catch (const Error&) {
  }
  CHECK_FALSE(nn::Deferred::active());
  CHECK_FALSE(nn::Linear(2, 2).weight()->deferred());
}

TEST_CASE("deferred: handles of a tensor see the values that it gets", "[nn][deferred]") {
  RandomState::current().set_seed(3);
  const nn::Linear usual(3, 4);
  const std::vector<float> expected = usual.weight()->tensor().to_vector<float>();
  RandomState::current().set_seed(3);
  Tensor before, early;
  {
    const nn::Deferred scope;
    nn::Linear layer(3, 4);
    before = layer.weight()->tensor();
    layer.set_compute_dtype(DType::f16, true);
    early = layer.weight()->tensor();
    const Tensor late = layer.weight()->tensor();
    CHECK(late.dtype() == DType::f16);
    CHECK(late.array().shares_storage(early.array()));
    // One from before the model changed keeps what it stood for.
    CHECK(before.to_vector<float>() == expected);
    CHECK(layer.weight()->master().to_vector<float>() == expected);
    CHECK_FALSE(layer.weight()->master().shares_storage(before.array()));
    before = layer.bias()->tensor();
  }
  // The same where the model's own values are rounded.
  RandomState::current().set_seed(3);
  {
    const nn::Deferred scope;
    nn::Linear layer(3, 4);
    early = layer.weight()->tensor();
    layer.set_compute_dtype(DType::bf16, false);
    CHECK(early.to_vector<float>() == expected);
    CHECK(layer.weight()->tensor().to_vector<float>() ==
          early.array().to(DType::bf16).to_vector<float>());
  }
  CHECK(before.to_vector<float>().size() == 4);  // its layer is gone, and it was never read
  CHECK(early.numel() == 12);
}

TEST_CASE("deferred: an initialiser of one's own runs at once", "[nn][deferred]") {
  int calls = 0;
  const auto ones = [&](const Shape& shape, Device device) {
    ++calls;
    return Array::full(shape, 1, DType::f32, device);
  };
  const nn::Deferred scope;
  const nn::Linear layer(2, 3, false, ones);
  CHECK(calls == 1);
  CHECK(layer.weight()->tensor().to_vector<float>() == std::vector<float>(6, 1));
  CHECK(calls == 1);
  CHECK_THROWS_WITH(nn::Linear(2, 3, true,
                               [](const Shape& shape, Device) {
                                 return nn::init::xavier_normal()({shape[0]}, Device::cpu());
                               }),
                    Catch::Contains("need a weight of two dimensions or more"));
}

TEST_CASE("deferred: models of folders stay in their files", "[nn][deferred][hf]") {
  const TemporaryFolder folder;
  for (const nn::Family family : {nn::Family::gpt2, nn::Family::llama, nn::Family::phi3})
    for (const DType in_file : {DType::f32, DType::bf16}) {
      const auto path = folder / concat(static_cast<int>(family), in_file);
      nn::save_hf(*small_model(odd_config(family)), path,
                  {.dtype = in_file, .max_shard_bytes = 1 << 12});
      for (const int64_t multiple : {1, 16}) {
        CAPTURE(static_cast<int>(family), in_file, multiple);
        nn::LoadOptions options;
        options.vocabulary_multiple = multiple;
        const std::shared_ptr<nn::CausalLm> usual = nn::load_hf(path, options);
        std::shared_ptr<nn::CausalLm> deferred;
        {
          const nn::Deferred scope;
          deferred = nn::load_hf(path, options);
        }
        for (const nn::NamedParameter& named : deferred->named_parameters())
          CHECK(named.parameter->deferred());
        // It can be written again as it is.
        nn::save_hf(*deferred, folder / "again", {.dtype = in_file});
        for (const nn::NamedParameter& named : deferred->named_parameters())
          CHECK(named.parameter->deferred());
        usual->set_compute_dtype(DType::f16, true);
        deferred->set_compute_dtype(DType::f16, true);
        const auto again = nn::load_hf(folder / "again", options);
        again->set_compute_dtype(DType::f16, true);
        const Bits expected = bits_of(*usual);
        CHECK((bits_of(*again) == expected));
        std::filesystem::remove_all(folder / "again");
        CHECK((bits_of(*deferred) == expected));
      }
    }
}

TEST_CASE("deferred: a folder that cannot be read says so at once", "[nn][deferred][hf]") {
  const TemporaryFolder folder;
  const auto model = small_model(odd_config(nn::Family::llama));
  model->named_parameters()[3].parameter->tensor().array().fill(
      std::numeric_limits<double>::quiet_NaN());
  nn::save_hf(*model, folder / "nan");
  const nn::Deferred scope;
  CHECK_THROWS_WITH(nn::load_hf(folder / "nan"),
                    Catch::Contains(model->named_parameters()[3].name) && Catch::Contains("a NaN"));
  const auto other = model_of(nn::Family::gpt2);
  CHECK_THROWS_WITH(other->load_state({}), Catch::Contains("missing"));
  CHECK_THROWS_WITH(other->copy_values(*model_of(nn::Family::llama)),
                    Catch::Contains("do not fit") && Catch::Contains("missing"));
  for (const nn::NamedParameter& named : other->named_parameters())
    CHECK(named.parameter->deferred());  // nothing was read to find that out
}

TEST_CASE("deferred: values come to a GPU as they are made on the CPU", "[cuda][deferred]") {
  require_gpu();
  for (const Treatment& treatment : treatments()) {
    CAPTURE(treatment.name);
    RandomState::current().set_seed(11);
    const auto usual = model_of(nn::Family::qwen3);
    treatment.apply(*usual);
    const Bits expected = bits_of(*usual);
    for (const bool moved_first : {false, true}) {
      RandomState::current().set_seed(11);
      const nn::Deferred scope;
      const auto deferred = model_of(nn::Family::qwen3);
      if (moved_first) deferred->to(test_gpu());
      treatment.apply(*deferred);
      deferred->to(test_gpu());
      CHECK(deferred->device() == test_gpu());
      CHECK((bits_of(*deferred) == expected));
    }
  }
}

}  // namespace
}  // namespace binade::test
