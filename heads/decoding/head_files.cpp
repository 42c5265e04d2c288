#include <binade/heads/decoding/head_files.h>

#include <binade/core/file.h>
#include <binade/core/text.h>
#include <binade/nn/hf.h>

namespace binade::heads::decoding {

namespace fs = std::filesystem;

std::optional<nn::JsonReader> find_head_config(const fs::path& folder) {
  constexpr int64_t kLargest = 1 << 20;  // bytes
  const fs::path path = folder / kHeadConfig;
  if (!fs::exists(path)) return std::nullopt;
  return nn::JsonReader::parse(read_text_file(path, kLargest), path.string());
}

nn::JsonReader read_head_config(const fs::path& folder, const std::string& what) {
  std::optional<nn::JsonReader> config = find_head_config(folder);
  check(config.has_value(), folder.string(), " holds no ", what, ": it has no ", kHeadConfig);
  return *std::move(config);
}

const char* torch_name(DType dtype) {
  if (dtype == DType::f16) return "float16";
  return dtype == DType::bf16 ? "bfloat16" : "float32";
}

void write_head_files(const fs::path& folder, const std::string& what, const HeadFiles& files) {
  check(files.dtype == DType::f32 || is_half(files.dtype), what,
        " are saved in f32, f16 or bf16, not in ", files.dtype);
  std::map<std::string, Array> tensors = files.tensors;
  for (auto& [name, values] : tensors) {
    values = values.to(Device::cpu()).contiguous();
    if (!is_floating(values.dtype())) continue;
    values = values.to(files.dtype);
    nn::check_finite(name, values);
  }
  fs::create_directories(folder);
  write_safetensors(folder / files.tensor_file, tensors, {{"format", "pt"}});
  write_text_file(folder / kHeadConfig, files.config);
}

HeadTensors::HeadTensors(const fs::path& folder, const std::string& tensor_file)
    : path_((check(fs::exists(folder / tensor_file), folder.string(), " has no ", tensor_file),
             (folder / tensor_file).string())),
      file_(path_) {}

nn::StateDict HeadTensors::read(const nn::StateDict& expected,
                                const std::set<std::string>& beside) const {
  nn::StateDict given;
  for (const std::string& name : file_.names())
    if (beside.count(name) == 0) given[name] = file_.get(name);
  const nn::StateMismatch mismatch = nn::compare_state(expected, given);
  check(mismatch.empty(), path_, " does not hold what ", kHeadConfig,
        " says: ", mismatch.describe());
  for (const auto& [name, values] : given) nn::check_finite(concat(path_, ": ", name), values);
  return given;
}

void check_copies(const std::string& path, const nn::StateDict& given,
                  const std::map<std::string, Array>& of_model) {
  for (const auto& [name, values] : of_model) {
    const Array& copy = given.at(name);
    const Array rounded = values.to(Device::cpu()).to(copy.dtype());
    check(rounded.to_vector<float>() == copy.to_vector<float>(), path, ": ", name,
          " is not what the language model has; heads with their own are not supported");
  }
}

}  // namespace binade::heads::decoding
