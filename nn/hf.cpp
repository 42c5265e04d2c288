#include <binade/nn/hf.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <binade/core/file.h>
#include <binade/core/log.h>
#include <binade/core/safetensors.h>
#include <binade/nn/json_reader.h>

namespace binade::nn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr const char* kHead = "lm_head.weight";

// ---- reading -----------------------------------------------------------------------------------

// Tensors by the names of the files.
StateDict read_tensors(const fs::path& path) {
  const SafetensorsFile file(path);
  StateDict tensors;
  for (const std::string& name : file.names()) tensors.emplace(name, file.get(name));
  return tensors;
}

StateDict read_shards(const fs::path& folder) {
  constexpr int64_t kLargestIndex = int64_t{64} << 20;  // bytes
  const fs::path path = folder / kIndexFile;
  const JsonReader index = JsonReader::parse(read_text_file(path, kLargestIndex), path.string());
  const std::optional<JsonReader> weight_map = index.child("weight_map");
  if (!weight_map) index.refuse("'weight_map' is missing");

  std::map<std::string, StateDict> shards;  // by file
  StateDict tensors;
  for (const auto& [name, file] : weight_map->object().items()) {
    const auto file_name = weight_map->require<std::string>(name.c_str());
    // The index comes from outside: it names files of this folder, nothing else.
    if (file_name.empty() || file_name == ".." || fs::path(file_name).filename() != file_name)
      index.refuse("'", name, "' is said to lie in '", file_name, "', which is no plain file name");
    auto shard = shards.find(file_name);
    if (shard == shards.end()) {
      if (!fs::exists(folder / file_name))
        index.refuse("names the file ", file_name, ", which is missing");
      shard = shards.emplace(file_name, read_tensors(folder / file_name)).first;
    }
    const auto tensor = shard->second.find(name);
    if (tensor == shard->second.end()) index.refuse("'", name, "' is not in ", file_name);
    tensors.insert(*tensor);
  }
  return tensors;
}

StateDict read_folder(const fs::path& folder) {
  if (fs::exists(folder / kSingleFile)) return read_tensors(folder / kSingleFile);
  if (fs::exists(folder / kIndexFile)) return read_shards(folder);
  fail(folder.string(), " has neither ", kSingleFile, " nor ", kIndexFile);
}

// Tensors in old checkpoints that are computed, not learned.
bool is_computed(const std::string& name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
         name.ends_with("rotary_emb.inv_freq");
}

// The model's name of a tensor: base models are saved without the prefix.
std::string model_name(const std::string& name, const StateDict& expected) {
  for (const char* prefix : {"", "transformer.", "model."})
    if (expected.count(prefix + name)) return prefix + name;
  return name;
}

bool equal_values(const Array& a, const Array& b) {
  return a.shape() == b.shape() && a.to_vector<float>() == b.to_vector<float>();
}

// What the files of `model` hold, by the model's names: shapes and dtypes.
StateDict expected_form(const CausalLm& model) {
  StateDict form;
  for (const NamedParameter& named : model.named_parameters())
    form.emplace(named.name, model.file_view(named.name, named.parameter->form()));
  return form;
}

// A parameter's values in a tensor of a file. Files have no padding rows: those become zero.
ValueSource source_in_file(const CausalLm& model, const NamedParameter& named,
                           const Array& in_file) {
  // What turns a parameter's values the way files have them turns them back, too.
  const ValueSource values = ValueSource::of(model.file_view(named.name, in_file));
  const Shape& shape = named.parameter->shape();
  return values.shape() == shape ? values : values.padded(shape, in_file.numel());
}

// Tensors under the model's names, without those that are not parameters of its own.
StateDict under_model_names(const StateDict& tensors, const StateDict& expected,
                            const CausalLmConfig& config, const fs::path& folder) {
  StateDict renamed;
  for (const auto& [name, values] : tensors) {
    if (is_computed(name) || (config.tie_embeddings && name == kHead)) continue;
    const bool is_new = renamed.emplace(model_name(name, expected), values).second;
    check(is_new, folder.string(), ": there are two tensors for ", model_name(name, expected));
  }
  return renamed;
}

// ---- writing -----------------------------------------------------------------------------------

struct Shard {
  std::vector<std::string> names;
  int64_t bytes = 0;
};

std::vector<Shard> split_into_shards(const StateDict& state, const SaveOptions& options) {
  check(options.max_shard_bytes > 0, "a shard of ", options.max_shard_bytes,
        " bytes holds nothing");
  std::vector<Shard> shards(1);
  for (const auto& [name, values] : state) {
    const int64_t bytes = values.numel() * size_of(options.dtype);
    if (shards.back().bytes > 0 && shards.back().bytes + bytes > options.max_shard_bytes)
      shards.emplace_back();
    shards.back().names.push_back(name);
    shards.back().bytes += bytes;
  }
  return shards;
}

std::string shard_name(size_t number, size_t count) {
  if (count == 1) return kSingleFile;
  const auto padded = [](size_t value) {
    const std::string digits = std::to_string(value);
    return std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
  };
  return "model-" + padded(number) + "-of-" + padded(count) + ".safetensors";
}

// Weight files of a model that was in the folder before; transformers would read them.
void remove_other_weights(const fs::path& folder, const std::set<std::string>& keep) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool is_weights = name == kSingleFile || name == kIndexFile ||
                            (name.starts_with("model-") && name.ends_with(".safetensors"));
    if (is_weights && !keep.count(name)) fs::remove(entry.path());
  }
}

// ---- range -------------------------------------------------------------------------------------

struct RangeFault {
  std::string name;
  int64_t infinite = 0, zero = 0;
  float largest = 0;
};

RangeFault find_range_fault(const std::string& name, const Array& values, DType dtype) {
  RangeFault fault{name};
  const std::vector<float> data = values.to_vector<float>();
  visit_floating(dtype, "a weight", [&](auto type) {
    using T = decltype(type);
    for (const float value : data) {
      const auto stored = static_cast<float>(static_cast<T>(value));
      fault.infinite += std::isinf(stored) && std::isfinite(value);
      fault.zero += stored == 0 && value != 0;
      fault.largest = std::max(fault.largest, std::abs(value));
    }
  });
  return fault;
}

}  // namespace

void load_hf_weights(CausalLm& model, const fs::path& folder) {
  const StateDict tensors = read_folder(folder);
  const StateDict expected = expected_form(model);
  const StateDict given = under_model_names(tensors, expected, model.config(), folder);
  const StateMismatch mismatch = compare_state(expected, given);
  check(mismatch.empty(), "the weights in ", folder.string(),
        " do not fit its config.json: ", mismatch.describe());
  for (const auto& [name, values] : tensors)
    if (!is_computed(name)) check_finite(name, values);

  const auto head = tensors.find(kHead);
  check(!model.config().tie_embeddings || head == tensors.end() ||
            equal_values(head->second, given.at(model.embedding_name())),
        folder.string(), ": config.json ties the head to the embedding, but ", kHead,
        " differs from it; set tie_word_embeddings to false");

  for (const NamedParameter& named : model.named_parameters())
    named.parameter->assign(source_in_file(model, named, given.at(named.name)));
}

std::shared_ptr<CausalLm> load_hf(const fs::path& folder, const LoadOptions& options) {
  check(fs::is_directory(folder), folder.string(), " is not a folder");
  const CausalLmConfig config = CausalLmConfig::read(folder / "config.json");
  CausalLmOptions model_options;
  model_options.vocabulary_multiple = options.vocabulary_multiple;
  model_options.random_weights = false;
  std::shared_ptr<CausalLm> model = make_causal_lm(config, model_options);
  load_hf_weights(*model, folder);
  if (is_half(options.compute_dtype)) {
    warn_about_range(*model, options.compute_dtype);
    model->set_compute_dtype(options.compute_dtype, options.with_master);
  }
  model->to(options.device);
  return model;
}

void save_hf(const CausalLm& model, const fs::path& folder, const SaveOptions& options) {
  create_folder(folder);
  std::map<std::string, ParameterPtr> parameters;
  for (const NamedParameter& named : model.named_parameters())
    parameters[named.name] = named.parameter;
  const std::vector<Shard> shards = split_into_shards(expected_form(model), options);
  std::set<std::string> written;
  json weight_map = json::object();
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file = shard_name(i + 1, shards.size());
    StateDict tensors;
    for (const std::string& name : shards[i].names) {
      const Array values = model.file_view(name, parameters.at(name)->peek());
      tensors.emplace(name, values.to(options.dtype).contiguous());
      weight_map[name] = file;
    }
    // transformers refuses files that do not name their framework.
    write_safetensors(folder / file, tensors, {{"format", "pt"}});
    written.insert(file);
    total += shards[i].bytes;
  }
  if (shards.size() > 1) {
    const json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
    write_text_file(folder / kIndexFile, index.dump(2) + "\n");
    written.insert(kIndexFile);
  }
  write_text_file(folder / "generation_config.json", model.config().generation_json());
  write_text_file(folder / "config.json", model.config().to_json(options.dtype));
  remove_other_weights(folder, written);
}

void check_finite(const std::string& name, const Array& values) {
  if (!is_floating(values.dtype())) return;
  const Array host = values.to(Device::cpu()).contiguous();
  visit_floating(values.dtype(), "a weight", [&](auto type) {
    using T = decltype(type);
    const T* data = host.data<T>();
    for (int64_t i = 0; i < host.numel(); ++i) {
      const auto value = static_cast<double>(static_cast<float>(data[i]));
      check(std::isfinite(value), "the weight ", name, " has ",
            std::isnan(value) ? "a NaN" : "an infinite value", " at element ", i, " of ",
            host.shape(), "; the checkpoint is damaged");
    }
  });
}

void warn_about_range(const Module& module, DType dtype) {
  constexpr size_t kNamed = 10;
  std::vector<std::string> flushed;
  for (const NamedParameter& named : module.named_parameters()) {
    if (named.parameter->keeps_full_precision()) continue;
    const RangeFault fault = find_range_fault(named.name, named.parameter->peek(), dtype);
    if (fault.infinite > 0)
      log_warning("the weight ", fault.name, " has ", fault.infinite, " of ",
                  named.parameter->numel(), " values that are infinite in ", dtype,
                  " (largest: ", fault.largest, "); use bf16 or f32");
    if (fault.zero > 0) flushed.push_back(concat(fault.name, " (", fault.zero, ")"));
  }
  if (flushed.empty()) return;
  std::string names;
  for (size_t i = 0; i < std::min(kNamed, flushed.size()); ++i)
    names += (i ? ", " : "") + flushed[i];
  if (flushed.size() > kNamed) names += concat(" and ", flushed.size() - kNamed, " more");
  log_warning("weights have values that flush to zero in ", dtype, ": ", names);
}

void check_vocabulary(const CausalLm& model, int64_t tokenizer_size) {
  constexpr int64_t kPadding = 1024;  // models round their vocabularies up, at most by so many
  const int64_t rows = model.config().vocab_size;
  check(tokenizer_size <= rows, "the tokenizer's vocabulary does not match the model: it has ",
        tokenizer_size, " ids, the model ", rows);
  if (rows - tokenizer_size > kPadding)
    log_warning("the tokenizer has ", tokenizer_size, " ids, the model's vocabulary is ", rows,
                ": is it the model's tokenizer?");
}

}  // namespace binade::nn
