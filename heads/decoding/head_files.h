// INTERNAL. What folders of decoding heads have alike, whatever their kind: one safetensors file
// and config.json.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>

#include <binade/core/safetensors.h>
#include <binade/nn/json_reader.h>
#include <binade/nn/module.h>

namespace binade::heads::decoding {

inline constexpr const char* kHeadConfig = "config.json";

// The folder's config.json; none where there is none. Throws Error for one that is no JSON object.
std::optional<nn::JsonReader> find_head_config(const std::filesystem::path& folder);
// … which must be there: `what` says of what kind, "Medusa heads".
nn::JsonReader read_head_config(const std::filesystem::path& folder, const std::string& what);

// What `torch_dtype` calls it.
const char* torch_name(DType dtype);

struct HeadFiles {
  std::string tensor_file;               // its name in the folder
  std::map<std::string, Array> tensors;  // on any device; numbers are saved in `dtype`
  DType dtype = DType::f16;              // f32, f16 or bf16
  std::string config;                    // the text of config.json
};
// Creates the folder if need be; each file is written beside its place and renamed. Throws Error
// for another dtype, and for numbers that are not finite in it (named). Nothing is written then.
void write_head_files(const std::filesystem::path& folder, const std::string& what,
                      const HeadFiles& files);

class HeadTensors {
 public:
  // Throws Error where the folder has no such file, or a damaged one.
  HeadTensors(const std::filesystem::path& folder, const std::string& tensor_file);
  const std::string& path() const { return path_; }
  const SafetensorsFile& file() const { return file_; }
  // By name: those of `expected`, with its shapes, and no others but those that are named `beside`.
  // Throws Error for tensors that are missing, unexpected, of the wrong shape or not finite (all
  // named).
  nn::StateDict read(const nn::StateDict& expected, const std::set<std::string>& beside = {}) const;

 private:
  std::string path_;
  SafetensorsFile file_;
};

// Of tensors that are copies of the language model's: throws Error, which names the tensor, where
// they are not what the model has, as rounded in the file.
void check_copies(const std::string& path, const nn::StateDict& given,
                  const std::map<std::string, Array>& of_model);

}  // namespace binade::heads::decoding
