// The safetensors file format: 8 bytes little-endian header size, a JSON header
// {name: {dtype, shape, data_offsets}, "__metadata__": {…}}, then the data.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
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

// What is known of a tensor before its values are at hand.
struct TensorForm {
  DType dtype;
  Shape shape;
};

// Writes a file tensor by tensor, beside the path; commit() fsyncs and renames. Whatever throws
// Error (disk full, …) leaves nothing half-written.
class SafetensorsWriter {
 public:
  // Throws Error where a name cannot be written. commit() takes metadata whose text is no longer
  // than that of `longest`; the header is as long in any case.
  SafetensorsWriter(const std::filesystem::path& path, std::map<std::string, TensorForm> tensors,
                    const std::map<std::string, std::string>& longest = {});
  ~SafetensorsWriter();
  // The order in which write() takes the tensors, on any device: wide elements first, so that every
  // tensor is aligned to its element size, then by name.
  static std::vector<std::string> order(const std::map<std::string, TensorForm>& tensors);
  void write(const Array& next);
  void commit(const std::map<std::string, std::string>& metadata = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same of tensors that are at hand.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Array>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace binade
