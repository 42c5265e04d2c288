#include <binade/heads/mtp/files.h>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/heads/decoding/base_config.h>
#include <binade/heads/mtp/names.h>
#include <binade/nn/hf.h>
#include <binade/nn/json_reader.h>

namespace binade::heads::mtp {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kTensorFile = "model.safetensors";
constexpr const char* kConfigFile = "config.json";
constexpr const char* kOwnKey = "binade_mtp";

// Rows that are no padding.
Array vocabulary_of(const nn::CausalLm& base, const Array& weight) {
  return weight.slice(0, 0, base.config().vocab_size);
}

Array embedding_of(const nn::CausalLm& base) {
  for (const nn::NamedParameter& named : base.named_parameters())
    if (named.name == base.embedding_name()) return vocabulary_of(base, named.parameter->master());
  fail("the model has no embedding");
}

Array output_of(const nn::CausalLm& base) {
  for (const nn::NamedParameter& named : base.named_parameters())
    if (named.name == "lm_head.weight") return vocabulary_of(base, named.parameter->master());
  return embedding_of(base);
}

Array plus(const Array& values, double number) {
  const NoGrad off;
  return (Tensor(values) + number).array();
}

// The tensors that are no parameters, f32.
std::map<std::string, Array> extra_tensors(Format format, const MtpHeads& heads) {
  const ExtraNames names = extra_names(format, heads);
  std::map<std::string, Array> tensors;
  for (const std::string& name : names.embeddings) tensors[name] = embedding_of(heads.base());
  for (const std::string& name : names.outputs) tensors[name] = output_of(heads.base());
  for (const auto& [name, size] : names.zero_biases)
    tensors[name] = Array::zeros({size}, DType::f32);
  return tensors;
}

std::string config_text(const MtpHeads& heads, const SaveMtpOptions& options) {
  const MtpConfig& config = heads.config();
  ordered_json json =
      parse_json<ordered_json>(heads.base().config().to_json(options.dtype), kConfigFile);
  if (options.format == Format::mimo) {
    json["model_type"] = "mimo";
    json["architectures"] = {"MiMoForCausalLM"};
  }
  json["num_nextn_predict_layers"] = config.kind == Kind::recursive ? 1 : config.depth;
  json[kOwnKey] = {{"format", name_of(options.format)},
                   {"kind", name_of(config.kind)},
                   {"depth", config.depth},
                   {"embedding_first", config.conventions.embedding_first},
                   {"recurs_behind_norm", config.conventions.recurs_behind_norm},
                   {"zero_first_embedding", config.conventions.zero_first_embedding}};
  decoding::write_base(json, options.base_name, options.base_fingerprint, heads.base());
  return json.dump(2) + "\n";
}

// The heads that config.json describes, and the format of their file.
struct Described {
  MtpConfig config;
  Format format = Format::plain;
};
nn::JsonReader json_of(const fs::path& path) {
  constexpr int64_t kLargestConfig = 1 << 20;  // bytes
  return nn::JsonReader::parse(read_text_file(path, kLargestConfig), path.string());
}

Described read_config(const fs::path& path, const nn::CausalLm& base, bool check_base) {
  constexpr int64_t kDeepest = 63;
  const nn::JsonReader json = json_of(path);
  const std::optional<nn::JsonReader> own = json.child(kOwnKey);
  if (!own) json.refuse("no '", kOwnKey, "': these are no heads that Binade wrote");
  const bool gpt2 = base.config().family == nn::Family::gpt2;
  decoding::check_same_size(json, gpt2 ? "n_embd" : "hidden_size", base.config().dim);
  decoding::check_same_size(json, "vocab_size", base.config().vocab_size);
  decoding::check_same_size(json, gpt2 ? "n_layer" : "num_hidden_layers", base.config().layers);
  Described described;
  described.format = parse_format(own->require<std::string>("format"));
  MtpConfig& config = described.config;
  config.kind = parse_kind(own->require<std::string>("kind"));
  config.depth = own->require<int64_t>("depth");
  if (config.depth < 1 || config.depth > kDeepest)
    own->refuse("'depth' is ", config.depth, ", expected 1 to ", kDeepest);
  config.conventions = {.embedding_first = own->require<bool>("embedding_first"),
                        .recurs_behind_norm = own->require<bool>("recurs_behind_norm"),
                        .zero_first_embedding = own->require<bool>("zero_first_embedding")};
  if (check_base) decoding::check_same_base(json, base);
  check_fits(described.format, config, base.config());
  return described;
}

}  // namespace

void save_mtp(const MtpHeads& heads, const fs::path& folder, const SaveMtpOptions& options) {
  check(options.dtype == DType::f32 || is_half(options.dtype),
        "multi-token prediction is saved in f32, f16 or bf16, not in ", options.dtype);
  check_fits(options.format, heads.config(), heads.base().config());
  std::map<std::string, Array> tensors = extra_tensors(options.format, heads);
  const FileNames names = file_names(options.format, heads);
  for (const nn::NamedParameter& named : heads.named_parameters()) {
    const Array& values = named.parameter->master();
    tensors[names.at(named.name)] =
        is_stored_from_one(options.format, named.name) ? plus(values, -1) : values;
  }
  for (auto& [name, values] : tensors) {
    values = values.to(Device::cpu()).to(options.dtype).contiguous();
    nn::check_finite(name, values);
  }
  fs::create_directories(folder);
  write_safetensors(folder / kTensorFile, tensors, {{"format", "pt"}});
  write_text_file(folder / kConfigFile, config_text(heads, options));
}

std::optional<Format> format_of(const fs::path& folder) {
  if (!fs::exists(folder / kConfigFile)) return std::nullopt;
  const nn::JsonReader json = json_of(folder / kConfigFile);
  const std::optional<nn::JsonReader> own = json.child(kOwnKey);
  if (!own) return std::nullopt;
  return parse_format(own->require<std::string>("format"));
}

std::shared_ptr<MtpHeads> load_mtp(const fs::path& folder, std::shared_ptr<const nn::CausalLm> base,
                                   bool check_base) {
  const fs::path config_path = folder / kConfigFile, path = folder / kTensorFile;
  check(fs::exists(config_path), folder.string(),
        " holds no multi-token prediction: it has no config.json");
  const auto [config, format] = read_config(config_path, *base, check_base);
  check(fs::exists(path), folder.string(), " has no ", kTensorFile);
  const SafetensorsFile file(path);
  auto heads = std::make_shared<MtpHeads>(base, config, /*copy_last=*/false);
  const nn::StateDict own = heads->state();
  const FileNames names = file_names(format, *heads);
  const std::map<std::string, Array> extra = extra_tensors(format, *heads);
  nn::StateDict expected = extra, given, state;
  for (const auto& [name, in_file] : names) expected[in_file] = own.at(name);
  for (const std::string& name : file.names()) given[name] = file.get(name);
  const nn::StateMismatch mismatch = nn::compare_state(expected, given);
  check(mismatch.empty(), path.string(),
        " does not hold what config.json says: ", mismatch.describe());
  for (const auto& [name, values] : given)
    nn::check_finite(concat(path.string(), ": ", name), values);
  for (const auto& [name, values] : extra) {
    if (!check_base) break;
    const Array rounded = values.to(Device::cpu()).to(given.at(name).dtype());
    check(rounded.to_vector<float>() == given.at(name).to_vector<float>(), path.string(), ": ",
          name, " is not what the language model has; heads with their own are not supported");
  }
  for (const auto& [name, in_file] : names) {
    const Array values = given.at(in_file).to(DType::f32);
    state[name] = is_stored_from_one(format, name) ? plus(values, 1) : values;
  }
  heads->load_state(state);
  return heads;
}

}  // namespace binade::heads::mtp
