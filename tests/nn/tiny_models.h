// Small models to test with: the random Hugging Face folders of ../shared, and ones made here.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <binade/nn/models/causal_lm.h>

namespace binade::test {

inline const std::vector<std::string> kTinyModels = {"gpt2",    "llama_gqa", "llama3_rope",
                                                     "smollm2", "qwen2",     "qwen3"};

// The unpacked folder of one of kTinyModels; nullopt (the test is skipped) without ../shared.
std::optional<std::filesystem::path> tiny_model(const std::string& name);

// A model in a folder against expected.safetensors beside it, what transformers computes: relative
// differences of the logits and the loss, the largest of a gradient, and whether the 20 greedy
// tokens are the same.
struct Differences {
  double logits = 0, loss = 0, gradients = 0;
  std::string worst_gradient;  // its name
  bool same_greedy = false;
};
Differences compare_with_transformers(const std::filesystem::path& folder, Device device);

inline const std::vector<nn::Family> kFamilies = {
    nn::Family::gpt2,  nn::Family::llama,   nn::Family::qwen2,
    nn::Family::qwen3, nn::Family::mistral, nn::Family::olmo2,
    nn::Family::phi3,  nn::Family::smollm3, nn::Family::gemma3_text};

// A configuration of two layers, 4 heads of 8, 61 tokens, 48 positions; windows of 5 positions
// where the family has them.
nn::CausalLmConfig small_config(nn::Family family);
// Its model with weights large enough that every part of it matters, in evaluation mode.
std::shared_ptr<nn::CausalLm> small_model(const nn::CausalLmConfig& config,
                                          const nn::CausalLmOptions& options = {});

// Pseudo-random ids below `vocab_size`.
Tensor random_ids(int64_t batch, int64_t tokens, int64_t vocab_size, Device device = {});

// The largest |a − b| over the largest |b|.
double relative_difference(const Array& a, const Array& b);

// The device of tests with the tag [cuda]; ends the test as skipped where there is none.
Device cuda_or_skip();

}  // namespace binade::test
