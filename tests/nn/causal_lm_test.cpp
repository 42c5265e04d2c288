// The six random models of ../shared against transformers' values, and what must hold of any model.
#include <binade/nn/models/causal_lm.h>

#include <cmath>

#include <catch2/catch.hpp>

#include <binade/core/random.h>
#include <binade/nn/models/llama.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;

namespace {

void check_tiny_models(Device device) {
  for (const std::string& name : test::kTinyModels) {
    INFO(name);
    const auto folder = test::tiny_model(name);
    if (!folder) return;
    const test::Differences worst = test::compare_with_transformers(*folder, device);
    INFO(worst.worst_gradient);
    CHECK(worst.logits < 1e-5);
    CHECK(worst.loss < 1e-5);
    CHECK(worst.gradients < 1e-5);
    CHECK(worst.same_greedy);
  }
}

// Gradients of a training step by name.
StateDict gradients(CausalLm& model, const Tensor& ids, const Tensor& targets) {
  for (const NamedParameter& named : model.named_parameters())
    named.parameter->tensor().zero_grad();
  RandomState::current().begin_step(5, 1);
  model.loss(ids, targets).backward();
  StateDict gradients;
  for (const NamedParameter& named : model.named_parameters())
    gradients.emplace(named.name, named.parameter->tensor().grad().clone());
  return gradients;
}

void check_recompute(Device device) {
  for (const Family family : test::kFamilies) {
    INFO(name_of(family));
    CausalLmConfig config = test::small_config(family);
    config.attention_dropout = 0.1;
    if (family == Family::gpt2) config.embedding_dropout = config.residual_dropout = 0.2;
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    model->to(device);
    model->train();
    const Tensor ids = test::random_ids(2, 12, config.vocab_size, device);
    const StateDict kept = gradients(*model, ids, ids);
    for (const Recompute choice : {Recompute::norms, Recompute::activations,
                                   Recompute::norms_activations, Recompute::blocks}) {
      // GELU behind a product is not the elementwise one to the bit.
      const bool same_bits =
          choice == Recompute::norms || choice == Recompute::blocks || family != Family::gpt2;
      model->set_recompute(choice);
      const StateDict recomputed = gradients(*model, ids, ids);
      for (const auto& [name, gradient] : kept) {
        INFO(name << ", choice " << static_cast<int>(choice));
        const auto again = recomputed.at(name).to_vector<float>();
        const auto before = gradient.to_vector<float>();
        if (same_bits)
          CHECK(again == before);
        else
          CHECK_THAT(again, Catch::Matchers::Approx(before).epsilon(1e-4).margin(1e-6));
      }
    }
  }
}

void check_half(Device device) {
  for (const Family family : test::kFamilies) {
    for (const DType dtype : {DType::f16, DType::bf16}) {
      INFO(name_of(family) << " in " << dtype);
      CausalLmConfig config = test::small_config(family);
      config.initializer_range = 0.1;
      const std::shared_ptr<CausalLm> model = test::small_model(config);
      model->to(device);
      const Tensor ids = test::random_ids(2, 12, config.vocab_size, device);
      const double full = model->loss(ids, ids).item();
      const PrecisionPolicy policy{dtype};
      const PrecisionPolicy* previous = exchange_precision_policy(&policy);
      const double autocast = model->loss(ids, ids).item();
      exchange_precision_policy(previous);
      clear_cast_cache();
      model->set_compute_dtype(dtype, true);
      CHECK(model->forward(ids).dtype() == dtype);
      CHECK(model->loss(ids, ids).item() == Approx(full).epsilon(0.01));
      CHECK(autocast == Approx(full).epsilon(0.01));
      CHECK(autocast != full);
    }
  }
}

}  // namespace

TEST_CASE("logits, loss, gradients and greedy ids equal transformers'", "[models]") {
  check_tiny_models(Device::cpu());
}

TEST_CASE("logits, loss, gradients and greedy ids equal transformers' on the GPU",
          "[models][cuda]") {
  check_tiny_models(test::cuda_or_skip());
}

TEST_CASE("recompute gives bitwise the same gradients, with dropout too", "[models]") {
  check_recompute(Device::cpu());
}
TEST_CASE("recompute gives bitwise the same gradients on the GPU", "[models][cuda]") {
  check_recompute(test::cuda_or_skip());
}

TEST_CASE("a padded vocabulary changes neither loss nor gradients nor logits", "[models]") {
  for (const bool tied : {true, false}) {
    CausalLmConfig config = test::small_config(Family::llama);
    config.tie_embeddings = tied;
    const std::shared_ptr<CausalLm> plain = test::small_model(config);
    const std::shared_ptr<CausalLm> padded = test::small_model(config, {.vocabulary_multiple = 64});
    for (const NamedParameter& named : padded->named_parameters()) {
      const Array values = named.parameter->master().clone();
      padded->file_view(named.name, values).copy_from(plain->state().at(named.name));
      named.parameter->assign(values);
    }
    REQUIRE(padded->state().at("model.embed_tokens.weight").size(0) == 64);

    const Tensor ids = test::random_ids(2, 9, config.vocab_size);
    CHECK(padded->forward(ids).shape() == Shape{2, 9, 61});
    CHECK(test::relative_difference(padded->forward(ids).array(), plain->forward(ids).array()) <
          1e-6);
    CHECK(padded->loss(ids, ids).item() == Approx(plain->loss(ids, ids).item()).epsilon(1e-6));
    const StateDict expected = gradients(*plain, ids, ids);
    for (const auto& [name, gradient] : gradients(*padded, ids, ids)) {
      INFO(name);
      CHECK(test::relative_difference(padded->file_view(name, gradient), expected.at(name)) < 1e-5);
      if (gradient.size(0) != 64) continue;
      for (const float padding : gradient.slice(0, 61).to_vector<float>()) CHECK(padding == 0);
    }
  }
}

TEST_CASE("a causal model does not see what comes later", "[models]") {
  for (const Family family : test::kFamilies) {
    INFO(name_of(family));
    const CausalLmConfig config = test::small_config(family);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    const Tensor ids = test::random_ids(2, 10, config.vocab_size);
    const Tensor whole = slice(model->forward(ids), 1, 0, 6);
    const Tensor part = model->forward(slice(ids, 1, 0, 6));
    CHECK(test::relative_difference(part.array(), whole.array()) < 1e-5);
  }
}

TEST_CASE("the loss is a sum over a normaliser when there is one", "[models]") {
  const CausalLmConfig config = test::small_config(Family::gpt2);
  const std::shared_ptr<CausalLm> model = test::small_model(config);
  const Tensor ids = test::random_ids(1, 8, config.vocab_size);
  std::vector<int32_t> values = ids.to_vector<int32_t>();
  values[0] = values[3] = -100;
  const Tensor targets = Tensor::from(values, {1, 8});
  const double mean = model->loss(ids, targets).item();
  CHECK(model->loss(ids, targets, Tensor::scalar(3)).item() == Approx(mean * 6 / 3));
}

TEST_CASE("a half model computes what the full one does, within rounding", "[models]") {
  check_half(Device::cpu());
}
TEST_CASE("a half model computes what the full one does on the GPU", "[models][cuda]") {
  check_half(test::cuda_or_skip());
}

TEST_CASE("sequences beyond the model's positions are refused", "[models]") {
  for (const Family family : test::kFamilies) {
    const CausalLmConfig config = test::small_config(family);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    CHECK_NOTHROW(model->hidden_states(Tensor::zeros({1, 48}, DType::i32)));
    CHECK_THROWS_WITH(model->hidden_states(Tensor::zeros({1, 49}, DType::i32)),
                      Catch::Contains("49 tokens is longer than the model's 48 positions"));
    CHECK_THROWS_WITH(model->hidden_states(Tensor::zeros({4}, DType::i32)),
                      Catch::Contains("(batch, tokens)"));
  }
}

TEST_CASE("the head's weight is what logits are made with, padding included", "[models]") {
  for (const Family family : test::kFamilies) {
    for (const bool tied : {false, true}) {
      INFO(name_of(family) << (tied ? ", tied" : ""));
      CausalLmConfig config = test::small_config(family);
      config.tie_embeddings = tied;
      const std::shared_ptr<CausalLm> model =
          test::small_model(config, {.vocabulary_multiple = 16});
      CHECK(model->vocabulary_rows() == 64);
      CHECK(model->head_weight().shape() == Shape{64, config.dim});
      const Tensor hidden = model->hidden_states(test::random_ids(2, 5, config.vocab_size));
      const Tensor all = linear(hidden, model->head_weight());
      CHECK(slice(all, -1, 0, 61).to_vector<float>() == model->logits(hidden).to_vector<float>());
      // It is the parameter itself: gradients reach it.
      const std::string name = tied ? model->embedding_name() : "lm_head.weight";
      sum(square(model->head_weight())).backward();
      for (const NamedParameter& named : model->named_parameters())
        CHECK(named.parameter->tensor().grad().defined() == (named.name == name));
    }
  }
}

TEST_CASE("an adapter on the head hides its weight", "[models]") {
  struct Nothing : LinearAdapter {
    Tensor forward(const Tensor&, const Tensor& y) const override { return y; }
  };
  CausalLmConfig config = test::small_config(Family::llama);
  config.tie_embeddings = false;
  const std::shared_ptr<CausalLm> model = test::small_model(config);
  for (const auto& [name, module] : model->named_modules())
    if (name == "lm_head") dynamic_cast<Linear&>(*module).set_adapter(std::make_shared<Nothing>());
  CHECK_THROWS_WITH(model->head_weight(), Catch::Contains("has an adapter"));
}

TEST_CASE("embed gives the rows of the embedding, scaled in Gemma", "[models]") {
  for (const Family family : test::kFamilies) {
    const CausalLmConfig config = test::small_config(family);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    const Tensor ids = test::random_ids(2, 5, config.vocab_size);
    const Tensor rows = model->embed(ids);
    CHECK(rows.shape() == Shape{2, 5, config.dim});
    const std::vector<float> table = model->state().at(model->embedding_name()).to_vector<float>();
    const std::vector<int32_t> index = ids.to_vector<int32_t>();
    const std::vector<float> values = rows.to_vector<float>();
    const auto dim = static_cast<size_t>(config.dim);
    const float scale = family == Family::gemma3_text ? std::sqrt(32.0f) : 1;
    for (size_t i = 0; i < values.size(); ++i)
      REQUIRE(values[i] == table[static_cast<size_t>(index[i / dim]) * dim + i % dim] * scale);
  }
}

TEST_CASE("a Llama block works in a module that is no Llama", "[models]") {
  for (const Family family : test::kFamilies) {
    if (family == Family::gpt2) continue;
    INFO(name_of(family));
    const CausalLmConfig config = test::small_config(family).of_layer(0);
    const std::shared_ptr<CausalLm> model = test::small_model(config);
    // What a decoding head does: a block of the trunk's shape, rotary tables and a norm of its own.
    struct Head : Module {
      explicit Head(const CausalLmConfig& config)
          : rotary(add<Rotary>("rotary", config.head_size(), config.max_positions, config.rope)),
            block(add<LlamaBlock>("model.layers.0", config, 0, init::empty())),
            norm(add<RmsNorm>("model.norm", config.dim, config.norm_eps, config.norm_from_one)) {}
      std::shared_ptr<Rotary> rotary;
      std::shared_ptr<LlamaBlock> block;
      std::shared_ptr<RmsNorm> norm;
    } head(config);
    StateDict weights;
    for (const auto& [name, array] : model->state())
      if (name.starts_with("model.layers.0.") || name == "model.norm.weight")
        weights.emplace(name, array);
    head.load_state(weights);
    const Tensor ids = test::random_ids(2, 7, config.vocab_size);
    const Tensor x = model->embed(ids);
    const auto [stream, n] =
        head.block->forward(x, head.block->enter(x), head.norm.get(), {}, head.rotary->at({}, 7));
    CHECK(n.to_vector<float>() == model->hidden_states(ids).to_vector<float>());
  }
}

TEST_CASE("token ids beyond the vocabulary are refused", "[models]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  CHECK_THROWS_AS(model->forward(Tensor::full({1, 2}, 61, DType::i32)), Error);
}

TEST_CASE("weights start with the deviation that the configuration gives", "[models]") {
  CausalLmConfig config = test::small_config(Family::gpt2);
  config.dim = 64;
  config.head_dim = 16;
  config.initializer_range = 0.02;
  const StateDict state = test::small_model(config)->state();
  const auto deviation = [&](const char* name) {
    double squares = 0;
    for (const double value : state.at(name).to_vector<double>()) squares += value * value;
    return std::sqrt(squares / static_cast<double>(state.at(name).numel()));
  };
  CHECK(deviation("transformer.h.0.attn.c_attn.weight") == Approx(0.02).epsilon(0.05));
  CHECK(deviation("transformer.h.0.attn.c_proj.weight") == Approx(0.01).epsilon(0.05));
  CHECK(deviation("transformer.h.1.mlp.c_proj.weight") == Approx(0.01).epsilon(0.05));
  CHECK(deviation("transformer.h.1.mlp.c_proj.bias") == 0);
}
