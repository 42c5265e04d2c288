#include "setup.h"

#include <fmt/core.h>

#include <binade/core/file.h>

#include "mtp.h"

namespace binade::examples {

namespace fs = std::filesystem;

std::vector<fs::path> text_files(const TrainGptOptions& options,
                                 const std::vector<std::string>& text) {
  data::TextFileOptions which{
      .extensions = options.extensions,
      .limit = options.text_limit == 0 ? std::nullopt : std::optional(options.text_limit << 20)};
  if (which.extensions.empty() && text == TrainGptOptions().text) which.extensions = {".h", ".hpp"};
  return data::list_text_files({text.begin(), text.end()}, which);
}

bool are_shards(const std::vector<std::string>& text) {
  return text.size() == 1 && data::is_token_shards(text[0]);
}

std::unique_ptr<data::Tokenizer> prepare_tokenizer(const TrainGptOptions& options,
                                                   const fs::path& run_folder) {
  const fs::path kept = run_folder / "tokenizer";
  if (options.resume && fs::exists(kept)) return data::load_tokenizer(kept);
  if (!options.init.empty()) return data::load_tokenizer(options.init);
  check(options.chats.empty() || options.tokenizer != "bpe",
        "--chats needs a tokenizer whose chat template is known; give --init or --tokenizer");
  if (options.tokenizer != "bpe") return data::load_tokenizer(options.tokenizer);
  if (are_shards(options.text)) {
    const fs::path shards = options.text[0];  // `tokenize` put their tokenizer beside them
    return data::load_tokenizer(fs::is_directory(shards) ? shards : shards.parent_path());
  }
  std::vector<std::string> texts;
  for (const fs::path& file : text_files(options, options.text))
    texts.push_back(data::read_text(file));
  say("training a vocabulary of {} on {} files\n", options.vocabulary, texts.size());
  return data::train_bpe(texts, {.vocab_size = options.vocabulary});
}

namespace {

nn::CausalLmConfig config_of(const TrainGptOptions& options, const data::Tokenizer& tokenizer,
                             int64_t vocabulary) {
  if (!options.from_scratch.empty()) return nn::CausalLmConfig::read(options.from_scratch);
  const bool llama = options.family == "llama";
  nn::CausalLmConfig config = nn::CausalLmConfig::of(llama ? nn::Family::llama : nn::Family::gpt2);
  config.vocab_size = vocabulary;
  if (const auto bos = tokenizer.bos_id()) config.bos_ids = {*bos};
  if (const auto eos = tokenizer.eos_id()) config.eos_ids = {*eos};
  config.dim = options.dim;
  config.layers = options.layers;
  config.heads = options.heads;
  config.kv_heads = llama ? options.kv_heads : 0;
  config.hidden = options.hidden;
  // Llama's MLP has three matrices: 8/3 of the width costs what GPT-2's 4 does (Shazeer 2020).
  if (llama && options.hidden == 0) config.hidden = (options.dim * 8 / 3 + 63) / 64 * 64;
  config.max_positions = options.seq_len;
  config.tie_embeddings = true;
  config.attention_dropout = options.dropout;
  if (!llama) config.embedding_dropout = config.residual_dropout = options.dropout;
  return config;
}

}  // namespace

std::shared_ptr<nn::CausalLm> make_model(const TrainGptOptions& options,
                                         const data::Tokenizer& tokenizer, int64_t vocabulary) {
  RandomState::current().set_seed(options.seed);
  std::shared_ptr<nn::CausalLm> model;
  if (!options.init.empty()) {
    model = nn::load_hf(options.init, {.vocabulary_multiple = kVocabularyMultiple});
  } else {
    nn::CausalLmConfig config = config_of(options, tokenizer, vocabulary);
    // Parallel heads are layers of the model's, so that both have the size that was asked for.
    if (!options.mtp.empty())
      if (const MtpChoice choice = mtp_choice(options); choice.kind == heads::mtp::Kind::parallel) {
        check(choice.depth < config.layers, "--mtp ", options.mtp, " leaves the model none of its ",
              config.layers, " layers");
        config.layers -= choice.depth;
      }
    model = nn::make_causal_lm(config, {.vocabulary_multiple = kVocabularyMultiple});
  }
  nn::check_vocabulary(*model, tokenizer.vocab_size());
  check(options.seq_len <= model->config().max_positions, "--seq-len ", options.seq_len,
        " is beyond the model's ", model->config().max_positions, " positions");
  return model;
}

Recompute recompute_choice(const TrainGptOptions& options, nn::Family family, Device device) {
  if (options.recompute != "auto") return parse_recompute(options.recompute);
  if (!device.is_cuda()) return Recompute::nothing;
  // GELU is recomputed inside a matmul and frees the most for the least; SwiGLU takes a pass of
  // its own, as norms do.
  return family == nn::Family::gpt2 ? Recompute::activations : Recompute::norms;
}

void write_sample(const TrainGptOptions& options, const nn::CausalLm& model,
                  const data::Tokenizer& tokenizer, const amp::Preset& preset,
                  train::RunFolder& folder) {
  const amp::Autocast scope(preset);
  std::vector<int32_t> prompt =
      tokenizer.encode(options.sample_prompt, {.add_special_tokens = true});
  if (prompt.empty()) prompt.push_back(tokenizer.bos_id().value_or(0));
  const int64_t room = model.config().max_positions - static_cast<int64_t>(prompt.size());
  if (room <= 0) return;
  infer::GenerateOptions generation{.max_new_tokens = std::min(options.sample_tokens, room)};
  generation.sampling.temperature = 0.8;
  generation.sampling.seed = options.seed;
  const std::vector<int32_t> tokens = infer::generate(model, {prompt}, generation)[0];
  folder.write_text("sample.txt", options.sample_prompt + tokenizer.decode(tokens) + "\n");
}

}  // namespace binade::examples
