// Writes text with a language model, token by token.
//
//   generate --model DIR --prompt "Once upon a time"                       greedy
//   generate --model DIR --prompt "..." --temperature 0.8 --top-p 0.95 --seed 3
//   generate --model runs/train_gpt --prompt "#include" --samples 4
#include <fmt/core.h>

#include <chrono>
#include <optional>
#include <utility>

#include <binade/core/file.h>
#include <binade/core/log.h>
#include <binade/infer/generate.h>

#include "model_folder.h"

using namespace binade;

namespace {

struct Options {
  examples::ModelOptions model;
  std::string prompt, prompt_file;
  int64_t samples = 1;
  bool ignore_eos = false;
  int64_t max_new_tokens = 0, min_new_tokens = 0;
  std::optional<double> temperature, top_p;  // what is not given, the model's files say
  std::optional<int64_t> top_k;
  uint64_t seed = 0;
};

void add_options(examples::CommandLine& command, Options& o) {
  examples::add_model_options(command, o.model);
  const examples::Option prompt =
      command.add("--prompt", o.prompt, "The text to continue; empty: begin one");
  command.add("--prompt-file", o.prompt_file, "A file with the text to continue")
      .excludes(prompt)
      .existing_file();
  command.add("--samples", o.samples, "Texts to write, together as one batch").count(1);
  command
      .add("--max-new-tokens", o.max_new_tokens,
           "Tokens to write at most; 0: 128, or as many as the model has positions for")
      .count();
  command
      .add("--min-new-tokens", o.min_new_tokens,
           "Tokens to write before the end of text is allowed")
      .count();
  command.add("--ignore-eos", o.ignore_eos, "Do not stop at the end-of-text token");
  command
      .add("--temperature", o.temperature,
           "Of the distribution to draw from; 0: always the most probable token. This and the "
           "next two default to the model's generation_config.json, else to 0, all, 1")
      .range(0.0, 1e3);
  command.add("--top-k", o.top_k, "Draw from so many most probable tokens; 0: from all").count();
  command.add("--top-p", o.top_p, "Draw from the fewest tokens whose probabilities reach this")
      .range(1e-6, 1.0);
  command.add("--seed", o.seed, "Of the draws");
}

// What the model's files say, with the command line's changes.
infer::GenerateOptions generate_options(const examples::LoadedModel& loaded, const Options& o) {
  const nn::CausalLmConfig& config = loaded.model->config();
  infer::GenerateOptions options = infer::generate_options(config);
  if (const auto eos = loaded.tokenizer->eos_id(); eos && options.stop_ids.empty())
    options.stop_ids = {*eos};
  if (o.ignore_eos) options.stop_ids.clear();
  options.max_new_tokens = o.max_new_tokens;
  options.min_new_tokens = o.min_new_tokens;
  options.sampling.temperature = o.temperature.value_or(options.sampling.temperature);
  options.sampling.top_k = o.top_k.value_or(options.sampling.top_k);
  options.sampling.top_p = o.top_p.value_or(options.sampling.top_p);
  options.sampling.seed = o.seed;
  for (const std::string& asked : config.generation.unsupported)
    log_warning("the model's generation_config.json asks for ", asked,
                ", which this program does not do");
  return options;
}

void show(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

void generate(Options o) {
  const examples::LoadedModel loaded = examples::load_model(o.model);
  if (!o.prompt_file.empty()) o.prompt = read_text_file(o.prompt_file);
  infer::GenerateOptions options = generate_options(loaded, o);
  const std::vector<int32_t> prompt = examples::encode_text(loaded, o.prompt);
  if (options.max_new_tokens == 0) {
    const int64_t room = loaded.model->config().max_positions - static_cast<int64_t>(prompt.size());
    options.max_new_tokens = std::clamp<int64_t>(room, 1, 128);
  }

  // One text appears as it is written; of several the first, and the others when all are done.
  data::StreamDecoder decoder(*loaded.tokenizer);
  std::string opening;  // shown with the first token: no text before an error
  for (const int32_t id : prompt) opening += decoder.push(id);
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<std::vector<int32_t>> prompts(static_cast<size_t>(o.samples), prompt);
  const std::vector<std::vector<int32_t>> texts =
      infer::generate(*loaded.model, prompts, options, [&](int64_t row, int32_t id) {
        if (row == 0) show(std::exchange(opening, "") + decoder.push(id));
      });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  show(opening + decoder.finish() + "\n");
  size_t tokens = texts[0].size();
  for (size_t i = 1; i < texts.size(); ++i) {
    std::string text;
    for (const int32_t id : prompt) text += decoder.push(id);
    for (const int32_t id : texts[i]) text += decoder.push(id);
    show("\n--- " + std::to_string(i + 1) + "\n" + text + decoder.finish() + "\n");
    tokens += texts[i].size();
  }
  fmt::print(stderr, "{} tokens in {:.2f} s ({:.1f} tokens/s)\n", tokens, seconds.count(),
             static_cast<double>(tokens) / seconds.count());
}

}  // namespace

int main(int argc, char** argv) {
  examples::CommandLine command("Writes text with a language model");
  Options options;
  add_options(command, options);
  return examples::run_program(command, argc, argv, [&] { generate(options); });
}
