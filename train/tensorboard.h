// Writes TensorBoard event files: TFRecord framing (length, masked CRC-32C, payload, masked
// CRC-32C) around protobuf `Event` messages with scalar summaries.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <binade/train/append_file.h>

namespace binade::train {

class TensorboardWriter {
 public:
  // A new file events.out.tfevents.<time>.<suffix> in `folder`, whose name sorts after those of the
  // files that are there. With `first_step`, the run goes on with this step: what earlier files
  // have of it and of later ones was run in vain, and TensorBoard drops it (event.proto: SessionLog
  // START). Throws Error.
  explicit TensorboardWriter(const std::filesystem::path& folder,
                             std::optional<int64_t> first_step = {});
  // Adds to the record of the step, which flush() writes. A tag that is not UTF-8 is mended.
  void scalar(const std::string& tag, int64_t step, double value);
  void flush();  // throws Error; what was not written is gone

 private:
  AppendFile file_;
  std::string records_;  // not yet written
};

}  // namespace binade::train
