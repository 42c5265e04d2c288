#include <binade/nn/hf.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <set>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <nlohmann/json.hpp>

#include "nn/tiny_models.h"
#include "parsed_json.h"
#include "temporary_folder.h"
#include "warnings.h"

using namespace binade;
using namespace binade::nn;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

StateDict tensors_of(const fs::path& path) {
  const SafetensorsFile file(path);
  StateDict tensors;
  for (const std::string& name : file.names()) tensors.emplace(name, file.get(name));
  return tensors;
}

void check_equal(const StateDict& a, const StateDict& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, array] : a) {
    INFO(name);
    REQUIRE(b.count(name) == 1);
    CHECK(b.at(name).shape() == array.shape());
    CHECK(b.at(name).dtype() == array.dtype());
    CHECK(b.at(name).to_vector<float>() == array.to_vector<float>());
  }
}

// A folder with a small model that a test can spoil: `change` gets the tensors of its file.
fs::path spoiled_folder(const test::TemporaryFolder& folder, Family family,
                        const std::function<void(StateDict&)>& change) {
  save_hf(*test::small_model(test::small_config(family)), folder.path());
  StateDict tensors;
  for (const auto& [name, array] : tensors_of(folder / "model.safetensors"))
    tensors.emplace(name, array.clone());
  change(tensors);
  write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  return folder.path();
}

void truncate(const fs::path& path) {
  fs::resize_file(path, fs::file_size(path) - 100);
}

// A folder of several files.
void save_in_shards(const test::TemporaryFolder& folder, DType dtype = DType::f32) {
  save_hf(*test::small_model(test::small_config(Family::llama)), folder.path(),
          {.dtype = dtype, .max_shard_bytes = 8000});
}

}  // namespace

TEST_CASE("a folder that is loaded and saved holds the same tensors", "[hf]") {
  for (const std::string& name : test::kTinyModels) {
    INFO(name);
    const auto source = test::tiny_model(name);
    if (!source) return;
    const test::TemporaryFolder folder;
    // The padding of the vocabulary stays out of the file.
    save_hf(*load_hf(*source, {.vocabulary_multiple = 64}), folder.path());
    check_equal(tensors_of(*source / "model.safetensors"),
                tensors_of(folder / "model.safetensors"));
    CHECK(SafetensorsFile(folder / "model.safetensors").metadata().at("format") == "pt");

    const json before = test::parsed(read_text_file(*source / "config.json"));
    const json after = test::parsed(read_text_file(folder / "config.json"));
    for (const char* key : {"model_type", "architectures", "vocab_size", "tie_word_embeddings",
                            "bos_token_id", "eos_token_id"}) {
      INFO(key);
      CHECK(after.at(key) == before.at(key));
    }
    CHECK(test::parsed(read_text_file(folder / "generation_config.json")).at("eos_token_id") == 2);
  }
}

TEST_CASE("a model in several files is the model in one", "[hf]") {
  const test::TemporaryFolder folder;
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  save_hf(*model, folder.path());
  const StateDict whole = model->state();
  REQUIRE(fs::exists(folder / "model.safetensors"));

  save_in_shards(folder);
  // The single file would be read first: it is gone.
  CHECK_FALSE(fs::exists(folder / "model.safetensors"));
  const json index = test::parsed(read_text_file(folder / "model.safetensors.index.json"));
  std::set<std::string> files;
  for (const auto& [name, file] : index.at("weight_map").items())
    files.insert(file.get<std::string>());
  CHECK(files.size() > 2);
  int64_t bytes = 0;
  for (const std::string& file : files)
    for (const auto& [name, array] : tensors_of(folder / file)) bytes += array.bytes();
  CHECK(index.at("metadata").at("total_size") == bytes);
  check_equal(load_hf(folder.path())->state(), whole);

  save_hf(*model, folder.path());
  CHECK_FALSE(fs::exists(folder / "model.safetensors.index.json"));
  for (const std::string& file : files) CHECK_FALSE(fs::exists(folder / file));
}

TEST_CASE("names without the model's prefix are understood", "[hf]") {
  for (const Family family : {Family::gpt2, Family::llama}) {
    const test::TemporaryFolder folder;
    spoiled_folder(folder, family, [](StateDict& tensors) {
      StateDict renamed;
      for (const auto& [name, array] : tensors)
        renamed.emplace(name == "lm_head.weight" ? name : name.substr(name.find('.') + 1), array);
      tensors = renamed;
    });
    check_equal(load_hf(folder.path())->state(),
                test::small_model(test::small_config(family))->state());
  }
}

TEST_CASE("a tied head may be in the file, if it is the embedding", "[hf]") {
  const test::TemporaryFolder folder;
  spoiled_folder(folder, Family::gpt2, [](StateDict& tensors) {
    tensors.emplace("lm_head.weight", tensors.at("transformer.wte.weight"));
    tensors.emplace("transformer.h.0.attn.bias", Array::zeros({1, 1, 4, 4}, DType::u8));
  });
  CHECK_NOTHROW(load_hf(folder.path()));
}

TEST_CASE("a tied head that differs from the embedding is refused", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  spoiled_folder(folder, Family::gpt2, [](StateDict& tensors) {
    tensors.emplace("lm_head.weight", Array::zeros({61, 32}, DType::f32));
  });
  CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains("tie_word_embeddings"));
}

TEST_CASE("weights are saved in half precision and read back", "[hf]") {
  const test::TemporaryFolder folder;
  save_in_shards(folder, DType::bf16);
  const StateDict original = test::small_model(test::small_config(Family::llama))->state();
  for (const auto& [name, array] : load_hf(folder.path())->state())
    CHECK(array.to_vector<float>() == original.at(name).to(DType::bf16).to_vector<float>());
  CHECK(test::parsed(read_text_file(folder / "config.json")).at("torch_dtype") == "bfloat16");
}

TEST_CASE("a half model has masters of the file's values", "[hf]") {
  const test::TemporaryFolder folder;
  save_in_shards(folder);
  const std::shared_ptr<CausalLm> model = load_hf(folder.path(), {.compute_dtype = DType::bf16});
  check_equal(model->state(), test::small_model(test::small_config(Family::llama))->state());
  for (const NamedParameter& named : model->named_parameters())
    CHECK((named.parameter->tensor().dtype() == DType::f32) ==
          named.parameter->keeps_full_precision());
}

TEST_CASE("values that f16 cannot hold are warned about by name", "[hf]") {
  const test::TemporaryFolder folder;
  spoiled_folder(folder, Family::llama, [](StateDict& tensors) {
    for (auto& [name, array] : tensors) array = array.to(DType::bf16).clone();
    tensors.at("model.layers.0.mlp.up_proj.weight").slice(0, 0, 1).fill(1e5);
    tensors.at("model.layers.1.mlp.up_proj.weight").slice(0, 0, 1).fill(1e-9);
    tensors.at("model.norm.weight").fill(1e5);  // stays f32
  });
  CHECK_NOTHROW(load_hf(folder.path()));  // in f32 all is well
  const test::ExpectWarning infinite("model.layers.0.mlp.up_proj.weight has 32 of 1536 values");
  const test::ExpectWarning zero("zero in f16: model.layers.1.mlp.up_proj.weight (32)");
  load_hf(folder.path(), {.compute_dtype = DType::f16});
}

TEST_CASE("a folder without weights is refused", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(load_hf(folder / "nowhere"), Catch::Contains("nowhere"));
  CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains("config.json"));
  write_text_file(folder / "config.json", test::small_config(Family::llama).to_json(DType::f32));
  CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains("model.safetensors.index.json"));
}

TEST_CASE("a truncated weight file is refused by name", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  save_hf(*test::small_model(test::small_config(Family::llama)), folder.path());
  truncate(folder / "model.safetensors");
  CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains("model.safetensors"));
}

TEST_CASE("a truncated shard is refused by name", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  save_in_shards(folder);
  const json index = test::parsed(read_text_file(folder / "model.safetensors.index.json"));
  const auto last = index.at("weight_map").at("model.norm.weight").get<std::string>();
  truncate(folder / last);
  CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains(last));
}

TEST_CASE("an index that names a missing file is refused", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  save_in_shards(folder);
  const json index = test::parsed(read_text_file(folder / "model.safetensors.index.json"));
  const auto last = index.at("weight_map").at("model.norm.weight").get<std::string>();
  fs::remove(folder / last);
  CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains(last) && Catch::Contains("missing"));
}

TEST_CASE("an index that leads out of the folder is refused", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  save_in_shards(folder);
  const fs::path path = folder / "model.safetensors.index.json";
  for (const char* outside : {"../model.safetensors", "/etc/passwd", "..", ""}) {
    json index = test::parsed(read_text_file(path));
    index["weight_map"]["model.norm.weight"] = outside;
    write_text_file(path, index.dump());
    CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains("no plain file name"));
  }
}

TEST_CASE("an index that names a tensor its file lacks is refused", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  save_in_shards(folder);
  const fs::path path = folder / "model.safetensors.index.json";
  json index = test::parsed(read_text_file(path));
  index["weight_map"]["stranger"] = index["weight_map"]["model.norm.weight"];
  write_text_file(path, index.dump());
  CHECK_THROWS_WITH(load_hf(folder.path()), Catch::Contains("'stranger' is not in"));
}

TEST_CASE("NaN in the weights is refused by name", "[hf][bad-input]") {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const test::TemporaryFolder folder;
    spoiled_folder(folder, Family::llama, [&](StateDict& tensors) {
      Array& weight = tensors.at("model.layers.1.mlp.up_proj.weight");
      weight = weight.to(dtype).clone();
      weight.slice(0, 2, 3).slice(1, 5, 6).fill(std::numeric_limits<double>::quiet_NaN());
    });
    CHECK_THROWS_WITH(load_hf(folder.path()),
                      Catch::Contains("model.layers.1.mlp.up_proj.weight has a NaN at element 69"));
  }
}

TEST_CASE("infinity in the weights is refused by name", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  spoiled_folder(folder, Family::gpt2, [](StateDict& tensors) {
    tensors.at("transformer.ln_f.bias").slice(0, 0, 1).fill(-INFINITY);
  });
  CHECK_THROWS_WITH(load_hf(folder.path()),
                    Catch::Contains("transformer.ln_f.bias has an infinite value"));
}

TEST_CASE("tensors that are missing, unexpected or of another shape are listed",
          "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  spoiled_folder(folder, Family::llama, [](StateDict& tensors) {
    tensors.erase("model.norm.weight");
    tensors.emplace("model.stranger", Array::zeros({1}, DType::f32));
    tensors.at("model.embed_tokens.weight") = Array::zeros({60, 32}, DType::f32);
  });
  CHECK_THROWS_WITH(load_hf(folder.path()),
                    Catch::Contains("missing (1): model.norm.weight") &&
                        Catch::Contains("unexpected (1): model.stranger") &&
                        Catch::Contains("model.embed_tokens.weight: (60, 32) instead of (61, 32)"));
}

TEST_CASE("a folder that cannot be written is an error", "[hf][bad-input]") {
  const test::TemporaryFolder folder;
  write_text_file(folder / "file", "");
  CHECK_THROWS_WITH(save_hf(*test::small_model(test::small_config(Family::llama)), folder / "file"),
                    Catch::Contains("file"));
}

TEST_CASE("a tokenizer that does not fit the model is refused", "[hf][bad-input]") {
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  CHECK_NOTHROW(check_vocabulary(*model, 61));
  CHECK_NOTHROW(check_vocabulary(*model, 50));  // the model's is padded
  CHECK_THROWS_WITH(check_vocabulary(*model, 62), Catch::Contains("does not match the model"));

  CausalLmConfig config = test::small_config(Family::llama);
  config.vocab_size = 5000;
  const test::ExpectWarning warning("is it the model's tokenizer?");
  check_vocabulary(*test::small_model(config), 512);
}
