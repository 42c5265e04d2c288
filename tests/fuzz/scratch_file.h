// Input for readers that open files.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace binade::fuzz {

// The path of a file of this process's own, removed at its end.
inline const std::filesystem::path& scratch_file() {
  static const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("binade-fuzz-" + std::to_string(::getpid()));
  static const int registered = std::atexit([] { std::filesystem::remove(path); });
  static_cast<void>(registered);
  return path;
}

// The same file, with these bytes in it.
inline const std::filesystem::path& file_of(const uint8_t* data, size_t size) {
  std::ofstream(scratch_file(), std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  return scratch_file();
}

}  // namespace binade::fuzz
