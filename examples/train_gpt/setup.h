// From the options of train_gpt to the parts of a run.
#pragma once

#include <memory>
#include <optional>

#include <binade/binade.h>

#include "../device.h"
#include "../training/setup.h"
#include "options.h"

namespace binade::examples {

// The tokenizer that a resumed run keeps in its folder, or that of --init, or a new one.
std::unique_ptr<data::Tokenizer> prepare_tokenizer(const TrainGptOptions& options,
                                                   const std::filesystem::path& run_folder);
// The tokens of these files and folders, or token shards.
std::shared_ptr<const data::TokenSource> prepare_tokens(const TrainGptOptions& options,
                                                        const std::vector<std::string>& text,
                                                        const data::Tokenizer& tokenizer);
// "<count> tokens, CRC-32C <checksum>": what a resumed run is held to.
std::string fingerprint(const data::TokenSource& tokens);
// Windows to train on, and those to validate on (null: none): a share of `tokens`, or
// --validation-text.
struct Samplers {
  std::shared_ptr<const data::WindowSampler> train, validation;
};
Samplers make_samplers(const TrainGptOptions& options,
                       const std::shared_ptr<const data::TokenSource>& tokens,
                       const data::Tokenizer& tokenizer);
std::shared_ptr<nn::CausalLm> make_model(const TrainGptOptions& options,
                                         const data::Tokenizer& tokenizer, int64_t vocabulary);
Recompute recompute_choice(const TrainGptOptions& options, nn::Family family, Device device);
void write_sample(const TrainGptOptions& options, const nn::CausalLm& model,
                  const data::Tokenizer& tokenizer, const amp::Preset& preset,
                  train::RunFolder& folder);

}  // namespace binade::examples
