// Checkpoints: everything a run needs to go on bit-exactly, in one safetensors file that any tool
// can read.
//
//   run/checkpoints/step-000000100.safetensors   the newest N
//   run/checkpoints/best.safetensors             the one that validated best
//
// Tensors are named <section>.<name>; the metadata has the format's version, the sections' values
// as JSON, a CRC-32C of every tensor (dtype, shape and bytes) and one of the values. Files are
// written beside, fsynced and renamed. A damaged file is named in a warning and the one before it
// is used. A file that is not understood (of a newer format, or no checkpoint at all) or cannot be
// opened is an error, and is never deleted.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <binade/core/error.h>
#include <binade/nn/module.h>

namespace binade::train {

inline constexpr int kCheckpointFormat = 1;

struct Checkpoint {
  std::map<std::string, nn::StateDict> sections;  // "model", "optimizer", "scaler", ...
  std::map<std::string, std::string> values;      // "step", "config", ...
};

// A checkpoint of this format that is truncated, or of which a checksum differs.
class DamagedCheckpoint : public Error {
 public:
  using Error::Error;
};

class CheckpointSource;  // checkpoint_source.h
class CheckpointPieces;  // checkpoint_pieces.h

// CRC-32C of dtype, shape and bytes; `array` lies in host memory without gaps.
uint32_t checksum_of(const Array& array);
// The same before any bytes of values: crc32c() goes on from it.
uint32_t checksum_of_form(const Array& array);

// Writes atomically; throws Error (disk full, …) and leaves what was there.
void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);
// Throws DamagedCheckpoint; Error for a file that cannot be opened, is no checkpoint, or has
// another format. Both name the file and what is wrong. With `pieces`, which all ranks of the run
// give together, tensors that ranks hold in pieces are read by pieces, and a damaged one is found
// by all of them. What is in the sections stays in the file until somebody reads it.
Checkpoint read_checkpoint(const std::filesystem::path& path, CheckpointPieces* pieces = nullptr);

// The files step-<number>.safetensors of a folder by number; none if there is no folder. Throws
// Error when it cannot be listed.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& folder);
// The number in such a name; none in another one.
std::optional<int64_t> step_of(const std::filesystem::path& checkpoint);

class CheckpointFolder {
 public:
  // Keeps the newest `keep` checkpoints; removes what an interrupted write left.
  CheckpointFolder(std::filesystem::path folder, int keep);

  // Writes step-<step>.safetensors and removes old ones, and those of later steps, which a run that
  // fell back past them has left behind; what is no checkpoint of this format stays. `best` also
  // keeps it as best.safetensors. Throws Error where a file that it does not understand has the
  // name it would write.
  void save(int64_t step, const Checkpoint& checkpoint, bool best);
  void save(int64_t step, CheckpointSource& source, bool best);
  struct Found {
    std::filesystem::path path;
    Checkpoint checkpoint;
  };
  // The newest one that is whole; damaged ones are warned about. Nothing if there is none. Throws
  // Error at one that read_checkpoint refuses for another reason.
  std::optional<Found> newest(CheckpointPieces* pieces = nullptr) const;
  // Their names and sizes, for people and to be compared.
  std::string contents() const;
  std::filesystem::path best_path() const { return folder_ / "best.safetensors"; }

 private:
  std::filesystem::path folder_;
  int keep_;
};

}  // namespace binade::train
