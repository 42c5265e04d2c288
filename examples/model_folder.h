// The models that programs read: Hugging Face folders, and run folders and checkpoints of
// train_gpt.
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>

#include <binade/data/tokenizer.h>
#include <binade/nn/hf.h>
#include <binade/nn/lora.h>
#include <binade/train/checkpoint.h>

#include "common.h"
#include "device.h"

namespace binade::examples {

struct ModelOptions {
  std::string model, tokenizer, adapter, device = "auto", precision = "fp32";
};

inline void add_model_options(CommandLine& command, ModelOptions& o) {
  command
      .add("--model", o.model,
           "A Hugging Face folder, or a run folder of train_gpt (its best checkpoint, else "
           "its newest), or one of its checkpoints")
      .required();
  command.add("--tokenizer", o.tokenizer,
              "Folder or file of the tokenizer, or 'bytes'; default: the model's");
  command.add("--adapter", o.adapter, "A PEFT folder with LoRA adapters for the model");
  command.add("--device", o.device, "auto, cpu, cuda or cuda:N");
  command.add("--precision", o.precision, "Of weights and matmuls: fp32, fp16 or bf16")
      .one_of({"fp32", "fp16", "bf16"});
}

struct LoadedModel {
  std::shared_ptr<nn::CausalLm> model;  // in evaluation mode
  std::unique_ptr<data::Tokenizer> tokenizer;
};

// A checkpoint's weights in the model that model.json of its run folder describes: the averages of
// --ema where there are any, since they are what was validated.
inline std::shared_ptr<nn::CausalLm> load_checkpoint_model(
    const std::filesystem::path& run_folder, const std::filesystem::path& checkpoint) {
  const nn::CausalLmConfig config = nn::CausalLmConfig::read(run_folder / "model.json");
  train::Checkpoint saved = train::read_checkpoint(checkpoint);
  nn::StateDict& state = saved.sections["model"];
  for (const auto& [name, average] : saved.sections["ema"]) state[name] = average;
  std::erase_if(state, [](const auto& named) { return named.first.starts_with("mtp."); });
  for (const auto& [name, values] : state)
    check(name.find(".lora_A.") == std::string::npos, checkpoint.string(),
          " holds LoRA adapters; give --model the model they were trained on and --adapter the "
          "folder of --save-hf");
  check(!saved.values.contains("frozen_weights"), checkpoint.string(),
        " holds only what was trained, beside frozen weights that are not in it; give --model a "
        "folder of --save-hf");
  // The run may have padded its vocabulary: the embedding's rows say how far.
  int64_t rows = config.vocab_size;
  for (const char* name : {"transformer.wte.weight", "model.embed_tokens.weight"})
    if (const auto found = state.find(name); found != state.end()) rows = found->second.size(0);
  auto model = nn::make_causal_lm(config, {.vocabulary_multiple = rows, .random_weights = false});
  model->load_state(state);
  return model;
}

// The best checkpoint by validation loss, otherwise the newest.
inline std::filesystem::path find_checkpoint(const std::filesystem::path& run_folder) {
  const std::filesystem::path folder = run_folder / "checkpoints";
  if (std::filesystem::exists(folder / "best.safetensors")) return folder / "best.safetensors";
  const std::vector<std::filesystem::path> all = train::list_checkpoints(folder);
  check(!all.empty(), run_folder.string(), " has no checkpoint yet");
  return all.back();
}

inline LoadedModel load_model(const ModelOptions& options) {
  namespace fs = std::filesystem;
  const fs::path path = options.model;
  check(fs::exists(path), "--model ", options.model, " does not exist");
  LoadedModel loaded;
  fs::path tokenizer = path;
  if (fs::exists(path / "model.json")) {
    loaded.model = load_checkpoint_model(path, find_checkpoint(path));
    tokenizer = path / "tokenizer";
  } else if (path.extension() == ".safetensors") {
    const fs::path run_folder = fs::absolute(path).parent_path().parent_path();
    loaded.model = load_checkpoint_model(run_folder, path);
    tokenizer = run_folder / "tokenizer";
  } else {
    loaded.model = nn::load_hf(path);
  }
  if (!options.adapter.empty()) nn::Lora::load(*loaded.model, options.adapter).merge();

  if (!options.tokenizer.empty()) tokenizer = options.tokenizer;
  loaded.tokenizer = data::load_tokenizer(tokenizer);
  nn::check_vocabulary(*loaded.model, loaded.tokenizer->vocab_size());
  if (options.precision != "fp32") {
    const DType dtype = options.precision == "fp16" ? DType::f16 : DType::bf16;
    nn::warn_about_range(*loaded.model, dtype);
    loaded.model->set_compute_dtype(dtype, /*with_master=*/false);
  }
  loaded.model->to(choose_device(options.device));
  loaded.model->eval();
  return loaded;
}

// The ids of a text as the model was trained to see it begin, with the BOS token where it has one.
inline std::vector<int32_t> encode_text(const LoadedModel& loaded, const std::string& text) {
  std::vector<int32_t> ids = loaded.tokenizer->encode(text, {.add_special_tokens = true});
  if (!ids.empty()) return ids;
  if (const auto bos = loaded.tokenizer->bos_id()) return {*bos};
  const std::vector<int64_t>& bos = loaded.model->config().bos_ids;
  check(!bos.empty(), "an empty text has no tokens, and this model has no BOS token to begin with");
  return {static_cast<int32_t>(bos[0])};
}

}  // namespace binade::examples
