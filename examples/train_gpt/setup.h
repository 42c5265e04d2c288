// From the options of train_gpt to the parts of a run.
#pragma once

#include <memory>
#include <optional>

#include <binade/binade.h>

#include "../device.h"
#include "../training/setup.h"
#include "options.h"

namespace binade::examples {

// Whole tiles of tensor cores; the added rows never reach the softmax or a file.
inline constexpr int64_t kVocabularyMultiple = 64;

// The tokenizer that a resumed run keeps in its folder, or that of --init, or a new one.
std::unique_ptr<data::Tokenizer> prepare_tokenizer(const TrainGptOptions& options,
                                                   const std::filesystem::path& run_folder);
// The files of text that --text or --validation-text name; of the default text, headers alone.
std::vector<std::filesystem::path> text_files(const TrainGptOptions& options,
                                              const std::vector<std::string>& text);
bool are_shards(const std::vector<std::string>& text);
std::shared_ptr<nn::CausalLm> make_model(const TrainGptOptions& options,
                                         const data::Tokenizer& tokenizer, int64_t vocabulary);
Recompute recompute_choice(const TrainGptOptions& options, nn::Family family, Device device);
void write_sample(const TrainGptOptions& options, const nn::CausalLm& model,
                  const data::Tokenizer& tokenizer, const amp::Preset& preset,
                  train::RunFolder& folder);

}  // namespace binade::examples
