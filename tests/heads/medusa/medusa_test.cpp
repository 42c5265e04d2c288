// Medusa heads: where they begin, what they train on, and their files.
#include <binade/heads/medusa/files.h>

#include <fstream>

#include <catch2/catch.hpp>

#include <binade/core/safetensors.h>
#include <binade/heads/medusa/training.h>
#include <binade/optim/adamw.h>
#include <nlohmann/json.hpp>

#include "nn/tiny_models.h"
#include "parsed_json.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace medusa = heads::medusa;

namespace {

std::shared_ptr<nn::CausalLm> base_model(int64_t multiple = 1,
                                         nn::Family family = nn::Family::llama) {
  auto model = small_model(small_config(family), {.vocabulary_multiple = multiple});
  model->set_trainable(false);
  return model;
}

// Heads whose weights are no longer those they began with.
std::shared_ptr<medusa::MedusaHeads> trained_heads(const std::shared_ptr<nn::CausalLm>& base,
                                                   const medusa::MedusaConfig& config) {
  auto heads = std::make_shared<medusa::MedusaHeads>(base, config);
  for (const nn::NamedParameter& named : heads->named_parameters()) {
    const Tensor noise(nn::init::normal(0.1)(named.parameter->shape(), Device::cpu()));
    Array values = (Tensor(named.parameter->master()) + noise).array();
    // Padding stays 0.
    if (values.dims() == 2 && values.size(0) > 61) values.slice(0, 61).zero();
    named.parameter->assign(values);
  }
  return heads;
}

std::shared_ptr<const decoding::PackedDocuments> some_documents() {
  std::vector<decoding::Document> documents;
  for (const int64_t length : {14, 9, 11, 20, 6, 17})
    documents.push_back(
        decoding::whole_document(random_ids(1, length, 61).array().to_vector<int32_t>()));
  return std::make_shared<const decoding::PackedDocuments>(
      documents, decoding::PackingOptions{.batch_size = 2, .seq_len = 24, .seed = 5});
}

}  // namespace

TEST_CASE("Medusa heads begin as the language model's own prediction", "[heads][medusa]") {
  const auto base = base_model();
  const NoGrad off;
  const Tensor hidden = base->hidden_states(random_ids(2, 7, 61));
  for (const bool own_output : {true, false})
    for (const int64_t layers : {1, 2}) {
      const medusa::MedusaHeads heads(base,
                                      {.heads = 3, .layers = layers, .own_output = own_output});
      for (int64_t k = 0; k < 3; ++k)
        CHECK(heads.logits(k, hidden).to_vector<float>() ==
              base->logits(hidden).to_vector<float>());
      CHECK(heads.parameter_count() == 3 * (layers * (32 * 32 + 32) + (own_output ? 61 * 32 : 0)));
    }
}

TEST_CASE("the loss of Medusa heads is each one's mean over labels further ahead",
          "[heads][medusa]") {
  const auto base = base_model();
  const auto heads = trained_heads(base, {.heads = 3});
  const auto documents = some_documents();
  const train::StepData data = medusa::medusa_data(documents, 3, 1)(4);
  train::LossInputs in;
  for (const auto& [name, array] : data.micro_batches[0]) in.batch.add(name, Tensor(array));
  for (const auto& [name, count] : data.normalisers)
    in.normalisers.add(name, Tensor::scalar(count));
  const train::Loss loss = medusa::medusa_loss(*heads, documents->options(), {.decay = 0.5})(in);

  // By the definition, document by document.
  const auto ids = data.micro_batches[0].at("ids").to_vector<int32_t>();
  const auto numbers = data.micro_batches[0].at("documents").to_vector<int32_t>();
  const NoGrad off;
  double expected = 0;
  for (int64_t k = 1; k <= 3; ++k) {
    double sum = 0, count = 0, right = 0;
    for (size_t begin = 0; begin < ids.size();) {
      size_t end = begin + 1;
      while (end < ids.size() && end % 24 != 0 && numbers[end] == numbers[begin]) ++end;
      if (numbers[begin] >= 0) {
        const std::vector<int32_t> document(ids.begin() + static_cast<int64_t>(begin),
                                            ids.begin() + static_cast<int64_t>(end));
        const auto length = static_cast<int64_t>(document.size());
        const Tensor hidden = base->hidden_states(Tensor::from(document, {1, length}));
        const Tensor log_p = log_softmax(heads->logits(k - 1, hidden));
        const auto p = log_p.to_vector<double>();
        for (int64_t t = 0; t + k + 1 < length; ++t) {
          const auto wanted = static_cast<size_t>(document[static_cast<size_t>(t + k + 1)]);
          const auto row = p.begin() + t * 61;
          sum -= row[static_cast<int64_t>(wanted)];
          right += std::max_element(row, row + 61) - row == static_cast<int64_t>(wanted);
          count += 1;
        }
      }
      begin = end;
    }
    CHECK(data.normalisers.at(concat("head", k)) == count);
    CHECK(loss.scalars.at(concat("head", k, "_loss")).item() == Approx(sum / count).epsilon(1e-5));
    CHECK(loss.scalars.at(concat("head", k, "_top1")).item() ==
          Approx(right / count).epsilon(1e-6));
    expected += std::pow(0.5, k) * sum / count;
  }
  CHECK(loss.value.item() == Approx(expected).epsilon(1e-5));
}

TEST_CASE("training changes the heads, gives the language model no gradient, and lowers the loss",
          "[heads][medusa]") {
  for (const nn::Family family : kFamilies) {
    INFO(nn::name_of(family));
    const auto base = base_model(1, family);
    const uint32_t before = medusa::weights_fingerprint(*base);
    const auto heads =
        std::make_shared<medusa::MedusaHeads>(base, medusa::MedusaConfig{.heads = 2});
    const auto documents = some_documents();
    optim::AdamW optimizer(optim::split_by_decay(*heads, 0));
    amp::GradScaler scaler(Device::cpu(), {});
    const amp::Preset preset = amp::Preset::parse("fp32");
    train::TrainStep step(medusa::medusa_loss(*heads, documents->options()), optimizer, scaler,
                          preset, {});
    const auto data = medusa::medusa_data(documents, 2, 2);
    for (int64_t i = 0; i < 40; ++i) {
      const train::StepData now = data(i);
      step.run(i, now.micro_batches, now.normalisers, 5e-3);
    }
    const auto reports = step.take_reports(true);
    CHECK(reports.back().loss < 0.8 * reports.front().loss);
    CHECK(medusa::weights_fingerprint(*base) == before);
    for (const nn::NamedParameter& named : base->named_parameters())
      CHECK(!named.parameter->tensor().grad().defined());
  }
}

TEST_CASE("tokens a pass are counted as chain decoding finds them", "[heads][medusa]") {
  // The model's greedy text: what the heads say of it is known, as they are copies of the model.
  const auto base = base_model();
  const auto heads = trained_heads(base, {.heads = 2});
  const auto documents = some_documents();
  const decoding::HeadAccuracy accuracy =
      medusa::head_accuracy(*heads, *documents, amp::Preset::parse("fp32"), 100);
  // The same, one document after the other.
  const NoGrad off;
  double passes = 0, tokens = 0;
  for (int64_t row = 0; row < documents->row_count(); ++row) {
    const train::Batch batch = documents->rows_from(row);
    const auto ids = batch.at("ids").slice(0, 0, 1).to_vector<int32_t>();
    const auto numbers = batch.at("documents").slice(0, 0, 1).to_vector<int32_t>();
    for (size_t begin = 0; begin < ids.size();) {
      size_t end = begin + 1;
      while (end < ids.size() && numbers[end] == numbers[begin]) ++end;
      const std::vector<int32_t> document(ids.begin() + static_cast<int64_t>(begin),
                                          ids.begin() + static_cast<int64_t>(end));
      const auto length = static_cast<int64_t>(document.size());
      if (numbers[begin] >= 0) {
        const Tensor hidden = base->hidden_states(Tensor::from(document, {1, length}));
        std::vector<std::vector<int64_t>> says;
        for (int64_t k = 0; k < 2; ++k)
          says.push_back(argmax(heads->logits(k, hidden), -1).to_vector<int64_t>());
        for (int64_t have = 1; have < length;) {  // tokens so far; the pass is at have − 1
          const int64_t at = have - 1;
          ++have, ++tokens, ++passes;
          for (size_t k = 0; k < 2 && have < length; ++k) {
            if (says[k][static_cast<size_t>(at)] != document[static_cast<size_t>(have)]) break;
            ++have, ++tokens;
          }
        }
      }
      begin = end;
    }
  }
  CHECK(accuracy.tokens_per_pass == Approx(tokens / passes).epsilon(1e-12));
  for (size_t k = 0; k < 2; ++k)
    for (size_t n = 1; n < 5; ++n) CHECK(accuracy.top[k][n] >= accuracy.top[k][n - 1]);
  const train::Validation validation =
      decoding::validation_of(accuracy, medusa::coefficients(2, {.decay = 0.5}));
  CHECK(validation.loss == Approx(0.5 * accuracy.loss[0] + 0.25 * accuracy.loss[1]));
  CHECK(*validation.score == accuracy.tokens_per_pass);
}

TEST_CASE("Medusa heads come back from their files", "[heads][medusa][files]") {
  for (const int64_t multiple : {1, 64})  // padded rows stay out of files
    for (const auto layout : {medusa::Layout::original, medusa::Layout::vllm})
      for (const auto& config : {medusa::MedusaConfig{.heads = 3, .layers = 1},
                                 {.heads = 2, .layers = 2},
                                 {.heads = 2, .layers = 1, .own_output = false},
                                 {.heads = 2, .layers = 0}}) {
        const TemporaryFolder folder;
        const auto base = base_model(multiple);
        const auto heads = trained_heads(base, config);
        medusa::save_medusa(*heads, folder.path(),
                            {.layout = layout, .base_name = "a/b", .dtype = DType::f32});
        const auto again = medusa::load_medusa(folder.path(), base);
        CHECK(again->config().heads == config.heads);
        CHECK(again->config().layers == config.layers);
        CHECK(again->config().own_output == config.own_output);
        const NoGrad off;
        const Tensor hidden = base->hidden_states(random_ids(1, 5, 61));
        for (int64_t k = 0; k < config.heads; ++k)
          CHECK(again->logits(k, hidden).to_vector<float>() ==
                heads->logits(k, hidden).to_vector<float>());
      }
}

TEST_CASE("files of Medusa heads have the names and shapes that engines read",
          "[heads][medusa][files]") {
  using Shapes = std::map<std::string, Shape>;
  const auto shapes_of = [](const std::filesystem::path& path) {
    const SafetensorsFile file(path);
    Shapes shapes;
    for (const std::string& name : file.names()) {
      shapes.emplace(name, file.get(name).shape());
      CHECK(file.get(name).dtype() == DType::f16);
    }
    return shapes;
  };
  const auto config_of = [](const std::filesystem::path& folder) {
    std::ifstream in(folder / "config.json");
    return test::parsed(in);
  };
  const auto base = base_model(64);
  const auto heads = trained_heads(base, {.heads = 2, .layers = 1});
  const TemporaryFolder original, vllm, shared;
  medusa::save_medusa(*heads, original.path(), {.base_name = "base"});
  CHECK(shapes_of(original / "medusa_lm_head.safetensors") ==
        Shapes{{"0.0.linear.weight", {32, 32}},
               {"0.0.linear.bias", {32}},
               {"0.1.weight", {61, 32}},
               {"1.0.linear.weight", {32, 32}},
               {"1.0.linear.bias", {32}},
               {"1.1.weight", {61, 32}}});
  nlohmann::json config = config_of(original.path());
  CHECK(config.at("medusa_num_heads") == 2);
  CHECK(config.at("medusa_num_layers") == 1);
  CHECK(config.at("base_model_name_or_path") == "base");
  CHECK(!config.contains("architectures"));

  medusa::save_medusa(*heads, vllm.path(), {.layout = medusa::Layout::vllm});
  CHECK(shapes_of(vllm / "model.safetensors") == Shapes{{"blocks.0.layers.0.weight", {32, 32}},
                                                        {"blocks.0.layers.0.bias", {32}},
                                                        {"blocks.1.layers.0.weight", {32, 32}},
                                                        {"blocks.1.layers.0.bias", {32}},
                                                        {"lm_heads.0.weight", {61, 32}},
                                                        {"lm_heads.1.weight", {61, 32}}});
  config = config_of(vllm.path());
  CHECK(config.at("model_type") == "medusa");
  CHECK(config.at("architectures") == nlohmann::json::array({"MedusaModel"}));
  CHECK(config.at("num_heads") == 2);
  CHECK(config.at("num_hidden_layers") == 1);
  CHECK(config.at("hidden_size") == 32);
  CHECK(config.at("vocab_size") == 61);
  CHECK(config.at("medusa_fc_bias") == true);
  CHECK(!config.contains("num_attention_heads"));

  medusa::save_medusa(*trained_heads(base, {.heads = 2, .layers = 1, .own_output = false}),
                      shared.path(), {.layout = medusa::Layout::vllm});
  CHECK(shapes_of(shared / "model.safetensors").count("lm_heads.0.weight") == 1);
  CHECK(shapes_of(shared / "model.safetensors").count("lm_heads.1.weight") == 0);
  CHECK(config_of(shared.path()).at("original_lm_head") == true);
}

TEST_CASE("files of Medusa heads that do not fit are refused", "[heads][medusa][files][errors]") {
  const TemporaryFolder folder;
  const auto base = base_model();
  const auto heads = trained_heads(base, {.heads = 2, .layers = 1});
  const auto load = [&] { medusa::load_medusa(folder.path(), base); };
  const auto change = [&](const char* key, const nlohmann::json& value) {
    medusa::save_medusa(*heads, folder.path(), {});
    std::ifstream in(folder / "config.json");
    nlohmann::json config = test::parsed(in);
    config[key] = value;
    std::ofstream(folder / "config.json") << config;
  };
  CHECK_THROWS_WITH(load(), Contains("no config.json"));
  change("medusa_num_heads", 3);
  CHECK_THROWS_WITH(load(), Contains("2.0.linear.weight"));
  change("medusa_num_heads", 1);
  CHECK_THROWS_WITH(load(), Contains("1.0.linear.weight"));
  change("medusa_num_heads", 0);
  CHECK_THROWS_WITH(load(), Contains("medusa_num_heads"));
  change("medusa_num_layers", 1000000);
  CHECK_THROWS_WITH(load(), Contains("medusa_num_layers"));
  change("hidden_size", 33);
  CHECK_THROWS_WITH(load(), Contains("hidden_size") && Contains("33"));
  change("binade_base_crc32c", 1);
  CHECK_THROWS_WITH(load(), Contains("other weights"));
  change("binade_base_crc32c", nullptr);  // files of others say nothing
  CHECK_NOTHROW(load());
  std::filesystem::remove(folder / "medusa_lm_head.safetensors");
  CHECK_THROWS_WITH(load(), Contains("has no medusa_lm_head.safetensors"));
  std::ofstream(folder / "config.json") << R"({"model_type": "llama"})";
  CHECK_THROWS_WITH(load(), Contains("no Medusa heads"));

  heads->named_parameters()[0].parameter->assign(Array::full({32, 32}, NAN, DType::f32));
  CHECK_THROWS_WITH(medusa::save_medusa(*heads, folder.path(), {}), Contains("0.0.linear.weight"));
  CHECK_THROWS_WITH(
      medusa::save_medusa(*trained_heads(base, {.heads = 1, .layers = 2, .own_output = false}),
                          folder.path(), {}),
      Contains("vllm"));
  CHECK_THROWS_WITH(medusa::parse_layout("tgi"), Contains("original and vllm"));
  CHECK_THROWS_WITH(medusa::MedusaHeads(base, {.heads = 0}), Contains("0 heads"));
}
