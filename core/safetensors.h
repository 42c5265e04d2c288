// The safetensors file format: 8 bytes little-endian header size, a JSON header
// {name: {dtype, shape, data_offsets}, "__metadata__": {…}}, then the data.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <binade/core/array.h>

namespace binade {

// A validated, memory-mapped file. Arrays returned by get() are read-only views of the mapping and
// keep it alive. Opening throws Error that names the file and what is wrong: too short, header
// larger than the file or than 100 MB, JSON errors with position, unknown dtype, shape overflow,
// size that does not match the shape, offsets that overlap, leave holes or pass the end.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  const std::vector<std::string>& names() const { return names_; }  // in order of offset
  bool contains(const std::string& name) const { return tensors_.count(name) != 0; }
  Array get(const std::string& name) const;  // throws Error naming close names
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::filesystem::path path_;
  std::vector<std::string> names_;
  std::map<std::string, Array> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes beside the path, fsyncs, renames; throws Error (disk full, …) and leaves nothing
// half-written. Arrays may be on any device.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Array>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace binade
