// Writes TensorBoard event files: TFRecord framing (length, masked CRC-32C, payload, masked
// CRC-32C) around protobuf `Event` messages with scalar summaries.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace binade::train {

class TensorboardWriter {
 public:
  // A new file events.out.tfevents.<time>.<suffix> in `folder`.
  explicit TensorboardWriter(const std::filesystem::path& folder);
  void scalar(const std::string& tag, int64_t step, double value);
  void flush() { file_.flush(); }
  // Whether all was written. After a failure nothing more is: a reader could not find the records.
  bool good() const { return file_.good(); }

 private:
  void record(const std::string& payload);
  std::ofstream file_;
};

}  // namespace binade::train
