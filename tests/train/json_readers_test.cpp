// Every reader of JSON from outside, given JSON with something behind its end.
#include <binade/train/run_folder.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <functional>
#include <map>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/data/bpe_trainer.h>
#include <binade/data/tokenizer.h>
#include <binade/nn/hf.h>
#include <binade/nn/lora.h>
#include <binade/nn/lora_config.h>
#include <binade/train/checkpoint.h>

#include "examples/json_config.h"
#include "nn/tiny_models.h"
#include "temporary_folder.h"

using namespace binade;
using Catch::Matchers::Contains;
using test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

using Tail = const std::string&;

// Puts `tail` behind the JSON header of a safetensors file, or behind a whole file of JSON.
void lengthen_header(const fs::path& path, Tail tail) {
  std::string bytes = read_text_file(path);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes.insert(sizeof length + length, tail);
  length += tail.size();
  std::memcpy(bytes.data(), &length, sizeof length);
  write_text_file(path, bytes);
}
void lengthen(const fs::path& path, Tail tail) {
  write_text_file(path, read_text_file(path) + tail);
}

void read_checkpoint_with(const TemporaryFolder& folder, Tail behind_values, Tail behind_sums) {
  const std::string values = "{}" + behind_values, sums = "{}" + behind_sums;
  const std::string both = values + sums;
  const fs::path path = folder / "c.safetensors";
  write_safetensors(path, {},
                    {{"binade_checkpoint", std::to_string(train::kCheckpointFormat)},
                     {"values", values},
                     {"checksums", sums},
                     {"metadata_checksum", std::to_string(crc32c(both.data(), both.size()))}});
  train::read_checkpoint(path);
}

std::shared_ptr<nn::CausalLm> small_llama() {
  return test::small_model(test::small_config(nn::Family::llama));
}

void save_tokenizer(const TemporaryFolder& folder) {
  data::train_bpe(std::vector<std::string>{"some text"}, {.vocab_size = 260})->save(folder.path());
}

struct Reader {
  const char* name;
  std::function<void(const TemporaryFolder& folder, Tail tail)> read;
};

const Reader kReaders[] = {
    {"a safetensors header",
     [](const auto& folder, Tail tail) {
       const fs::path path = folder / "a.safetensors";
       write_safetensors(path, {{"a", Array::zeros({1}, DType::f32)}});
       lengthen_header(path, tail);
       SafetensorsFile(path).get("a");
     }},
    {"a checkpoint's header",
     [](const auto& folder, Tail tail) {
       const fs::path path = folder / "c.safetensors";
       train::write_checkpoint(path, {});
       lengthen_header(path, tail);
       train::read_checkpoint(path);
     }},
    {"a checkpoint's values",
     [](const auto& folder, Tail tail) { read_checkpoint_with(folder, tail, ""); }},
    {"a checkpoint's checksums",
     [](const auto& folder, Tail tail) { read_checkpoint_with(folder, "", tail); }},
    {"the configuration that a run folder has",
     [](const auto& folder, Tail tail) {
       folder.write("run/config.json", "{}" + tail);
       train::RunFolder(folder / "run", true).check_config("{}", {});
     }},
    {"the configuration that a run folder is given",
     [](const auto& folder, Tail tail) {
       train::RunFolder(folder / "run", false).set_config("{}" + tail);
     }},
    {"what goes into the manifest",
     [](const auto& folder, Tail tail) {
       train::RunFolder(folder / "run", false).write_manifest({{"more", "1" + tail}});
     }},
    {"the configuration of a program",
     [](const auto&, Tail tail) {
       const CLI::App app;
       std::istringstream text("{}" + tail);
       (void)examples::JsonConfig(app).from_config(text);
     }},
    {"tokenizer.json",
     [](const auto& folder, Tail tail) {
       save_tokenizer(folder);
       lengthen(folder / "tokenizer.json", tail);
       data::load_tokenizer(folder.path());
     }},
    {"vocab.json",
     [](const auto& folder, Tail tail) {
       folder.write("vocab.json", R"({"a": 0, "b": 1, "ab": 2})" + tail);
       folder.write("merges.txt", "a b\n");
       data::load_tokenizer(folder.path());
     }},
    {"tokenizer_config.json",
     [](const auto& folder, Tail tail) {
       save_tokenizer(folder);
       folder.write("tokenizer_config.json", "{}" + tail);
       data::load_tokenizer(folder.path());
     }},
    {"a model's config.json",
     [](const auto& folder, Tail tail) {
       nn::save_hf(*small_llama(), folder.path());
       lengthen(folder / "config.json", tail);
       nn::load_hf(folder.path());
     }},
    {"a model's generation_config.json",
     [](const auto& folder, Tail tail) {
       nn::save_hf(*small_llama(), folder.path());
       lengthen(folder / "generation_config.json", tail);
       nn::load_hf(folder.path());
     }},
    {"the index of a model's shards",
     [](const auto& folder, Tail tail) {
       nn::save_hf(*small_llama(), folder.path(), {.max_shard_bytes = 10'000});
       lengthen(folder / "model.safetensors.index.json", tail);
       nn::load_hf(folder.path());
     }},
    {"adapter_config.json",
     [](const auto& folder, Tail tail) {
       nn::Lora(*small_llama(), {.rank = 1}).save(folder.path());
       lengthen(folder / "adapter_config.json", tail);
       nn::read_lora_config(folder / "adapter_config.json");
     }},
};

}  // namespace

TEST_CASE("no reader takes JSON with a NUL behind it", "[json][bad-input]") {
  for (const Reader& reader : kReaders) {
    INFO(reader.name);
    {
      const TemporaryFolder folder;
      CHECK_NOTHROW(reader.read(folder, ""));
    }
    for (const std::string& tail : {std::string(1, '\0'), std::string("\0junk", 5)}) {
      const TemporaryFolder folder;
      CHECK_THROWS_WITH(reader.read(folder, tail), Contains("NUL"));
    }
  }
}

TEST_CASE("a row of metrics with a NUL behind it is dropped like half a row", "[json][bad-input]") {
  const TemporaryFolder temporary;
  train::RunFolder folder(temporary / "run", false);
  const std::string row = R"({"step":1,"loss":2})";
  folder.write_text("metrics.jsonl", row + '\n' + row + std::string("\0junk", 5) + '\n');
  folder.rewind(1);
  CHECK(read_text_file(folder.path() / "metrics.jsonl") == row + '\n');
}
