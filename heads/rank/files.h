// A ranker on disk: a folder that scores files of raw features.
//
//   ranker.json          the network and the loss
//   model.safetensors    its weights
//   scaling.safetensors  how features are scaled, if they are
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include <binade/data/feature_scaling.h>
#include <binade/heads/rank/losses.h>
#include <binade/heads/rank/ranker.h>

namespace binade::heads::rank {

struct SavedRanker {
  std::shared_ptr<Ranker> ranker;
  LossSpec loss;  // says what outputs mean
  std::optional<data::FeatureScaling> scaling;
};

// Writes the folder; masters are written in f32. Throws Error for weights that are not finite.
void save_ranker(const std::filesystem::path& folder, const Ranker& ranker, const LossSpec& loss,
                 const std::optional<data::FeatureScaling>& scaling);
// On the CPU in f32, in evaluation mode. Throws Error that names the file for what is missing,
// damaged, or does not fit together.
SavedRanker load_ranker(const std::filesystem::path& folder);

}  // namespace binade::heads::rank
