// A ranker on disk: a folder that scores files of raw features.
//
//   ranker.json          the network, the loss, how features are numbered, and CRC-32Cs of the
//   others model.safetensors    its weights scaling.safetensors  how features are scaled, if they
//   are
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include <binade/data/feature_scaling.h>
#include <binade/heads/rank/losses.h>
#include <binade/heads/rank/ranker.h>

namespace binade::heads::rank {

struct SavedRanker {
  std::shared_ptr<Ranker> ranker;
  LossSpec loss;  // says what outputs mean
  std::optional<data::FeatureScaling> scaling;
  // The number of the first feature in the files that it was trained on, 0 or 1; folders of before
  // it was kept have none.
  std::optional<int> first_feature;
};

// The files of such a folder, whether they are there or not.
std::vector<std::filesystem::path> ranker_files(const std::filesystem::path& folder);

// Writes the folder; masters are written in f32. Throws Error for weights that are not finite.
void save_ranker(const std::filesystem::path& folder, const Ranker& ranker, const LossSpec& loss,
                 const std::optional<data::FeatureScaling>& scaling,
                 std::optional<int> first_feature = {});
// On the CPU in f32, in evaluation mode. Throws Error that names the file for what is missing,
// damaged, or does not fit together.
SavedRanker load_ranker(const std::filesystem::path& folder);

}  // namespace binade::heads::rank
