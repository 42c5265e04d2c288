// Folders of models that read and draw, as BAGEL-7B-MoT's are laid out: llm_config.json,
// vit_config.json and ema.safetensors.
#pragma once

#include <filesystem>
#include <memory>

#include <binade/nn/mot/model.h>

namespace binade::nn {

// Throws Error for files that are missing or malformed, and for a setting that is not supported.
// What BAGEL's files leave to its code has its defaults: layers of type MoT, latents of 16 channels
// in patches of 2 × 2, a position table of 64 × 64, rope_theta 10000. What that code sets itself
// (tie_word_embeddings, qk_norm) is not looked at. vit_config.json counts a layer more than there
// is: the code drops the last one.
MotConfig read_mot_config(const std::filesystem::path& folder);

// The model with the folder's weights, on the CPU in f32. Position tables need not be in the file;
// they are checked where they are. The folder's other files are not read; ae.safetensors is what
// load_flux_autoencoder reads. Throws Error as read_mot_config does, and for tensors that are
// missing, unexpected, of another shape or not finite.
std::shared_ptr<MotModel> load_mot(const std::filesystem::path& folder);

// Creates the folder if need be and writes the model's weights (masters where there are any), each
// file beside its place and renamed.
void save_mot(const MotModel& model, const std::filesystem::path& folder);

}  // namespace binade::nn
