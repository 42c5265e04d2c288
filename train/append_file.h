// A file that grows by whole records: metrics, reports, TensorBoard events.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace binade::train {

// A record that cannot be written whole (a full disk, the limit of file sizes) is taken back, so
// that the file always ends with a whole one.
class AppendFile {
 public:
  // Opens or makes the file; throws Error with the system's reason.
  explicit AppendFile(std::filesystem::path path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // Throws Error, after which the file is as it was before.
  void append(std::string_view record);
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace binade::train
