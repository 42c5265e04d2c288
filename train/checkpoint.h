// Checkpoints: everything a run needs to go on bit-exactly, in one safetensors file that any tool
// can read.
//
//   run/checkpoints/step-000000100.safetensors   the newest N
//   run/checkpoints/best.safetensors             the one with the lowest validation loss
//
// Tensors are named <section>.<name>; the metadata has the format's version, the sections' values
// as JSON, a CRC-32C of every tensor (dtype, shape and bytes) and one of the values. Files are
// written beside, fsynced and renamed. A damaged file is named in a warning and the one before it
// is used.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <binade/nn/module.h>

namespace binade::train {

inline constexpr int kCheckpointFormat = 1;

struct Checkpoint {
  std::map<std::string, nn::StateDict> sections;  // "model", "optimizer", "scaler", ...
  std::map<std::string, std::string> values;      // "step", "config", ...
};

// Writes atomically; throws Error (disk full, …) and leaves what was there.
void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);
// Throws Error naming the file and what is damaged: truncated, a checksum that differs, an unknown
// version.
Checkpoint read_checkpoint(const std::filesystem::path& path);

class CheckpointFolder {
 public:
  // Keeps the newest `keep` checkpoints; removes what an interrupted write left.
  CheckpointFolder(std::filesystem::path folder, int keep);

  // Writes step-<step>.safetensors and removes old ones, and those of later steps, which a run that
  // fell back past them has left behind. `best` also keeps it as best.safetensors.
  void save(int64_t step, const Checkpoint& checkpoint, bool best);
  struct Found {
    std::filesystem::path path;
    Checkpoint checkpoint;
  };
  // The newest one that is whole; damaged ones are warned about. Nothing if there is none.
  std::optional<Found> newest() const;
  std::filesystem::path best_path() const { return folder_ / "best.safetensors"; }

 private:
  std::vector<std::filesystem::path> steps() const;  // oldest first
  std::filesystem::path folder_;
  int keep_;
};

}  // namespace binade::train
