// Model folders as Hugging Face's transformers writes and reads them: config.json and
// model.safetensors, or several files with model.safetensors.index.json. Tokenizer files are not
// touched.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <binade/nn/models/causal_lm.h>

namespace binade::nn {

struct LoadOptions {
  Device device;
  // Compute copies of the weights. Values that `compute_dtype` cannot hold are warned about.
  DType compute_dtype = DType::f32;
  bool with_master = true;  // f32 masters beside half copies
  int64_t vocabulary_multiple = 1;
};

// Names with and without the prefix "transformer." or "model." are understood, a tied head may be
// there or not. Throws Error for files that are missing or damaged, a configuration that is not
// supported, tensors that are missing, unexpected or of the wrong shape (all are listed), values
// that are NaN or infinite (naming the tensor), and a head that is tied by the configuration but
// differs from the embedding.
std::shared_ptr<CausalLm> load_hf(const std::filesystem::path& folder,
                                  const LoadOptions& options = {});
// The weights alone, into a model of the same configuration.
void load_hf_weights(CausalLm& model, const std::filesystem::path& folder);

struct SaveOptions {
  DType dtype = DType::f32;
  int64_t max_shard_bytes = int64_t{5} << 30;  // more go to several files
};

// Creates the folder if need be. Writes the weights (masters where there are any), config.json and
// generation_config.json, each file beside its place and renamed, and removes weight files of a
// model that was there before.
void save_hf(const CausalLm& model, const std::filesystem::path& folder,
             const SaveOptions& options = {});

// Throws Error that names the tensor, "a weight" of a file, if it has a NaN or an infinite value.
void check_finite(const std::string& name, const Array& values);

// Warns by name about weights that become infinite (f16: beyond 65504) or zero in `dtype`.
void warn_about_range(const Module& module, DType dtype);

// Throws Error when the tokenizer has ids that the model has no embedding for; warns when the
// model's vocabulary is larger by more than a padding.
void check_vocabulary(const CausalLm& model, int64_t tokenizer_size);

}  // namespace binade::nn
