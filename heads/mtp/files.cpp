#include <binade/heads/mtp/files.h>

#include <binade/autograd/tape.h>
#include <binade/core/json_view.h>
#include <binade/heads/decoding/base_config.h>
#include <binade/heads/decoding/head_files.h>
#include <binade/heads/mtp/names.h>

namespace binade::heads::mtp {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kTensorFile = "model.safetensors";
constexpr const char* kWhat = "modules or heads of multi-token prediction";
constexpr const char* kOwnKey = "binade_mtp";

Array plus(const Array& values, double number) {
  const NoGrad off;
  return (Tensor(values) + number).array();
}

// The tensors that are no parameters, f32.
std::map<std::string, Array> extra_tensors(Format format, const MtpHeads& heads) {
  const ExtraNames names = extra_names(format, heads);
  std::map<std::string, Array> tensors;
  for (const std::string& name : names.embeddings)
    tensors[name] = decoding::embedding_of(heads.base());
  for (const std::string& name : names.outputs) tensors[name] = decoding::output_of(heads.base());
  for (const auto& [name, size] : names.zero_biases)
    tensors[name] = Array::zeros({size}, DType::f32);
  return tensors;
}

std::string config_text(const MtpHeads& heads, const SaveMtpOptions& options) {
  const MtpConfig& config = heads.config();
  ordered_json json =
      parse_json<ordered_json>(heads.base().config().to_json(options.dtype), decoding::kHeadConfig);
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

Described read_config(const fs::path& folder, const nn::CausalLm& base, bool check_base) {
  constexpr int64_t kDeepest = 63;
  const nn::JsonReader json = decoding::read_head_config(folder, kWhat);
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
  check_fits(options.format, heads.config(), heads.base().config());
  std::map<std::string, Array> tensors = extra_tensors(options.format, heads);
  const FileNames names = file_names(options.format, heads);
  for (const nn::NamedParameter& named : heads.named_parameters()) {
    const Array& values = named.parameter->master();
    tensors[names.at(named.name)] =
        is_stored_from_one(options.format, named.name) ? plus(values, -1) : values;
  }
  decoding::write_head_files(folder, kWhat,
                             {.tensor_file = kTensorFile,
                              .tensors = std::move(tensors),
                              .dtype = options.dtype,
                              .config = config_text(heads, options)});
}

std::optional<Format> format_of(const fs::path& folder) {
  const std::optional<nn::JsonReader> json = decoding::find_head_config(folder);
  if (!json) return std::nullopt;
  const std::optional<nn::JsonReader> own = json->child(kOwnKey);
  if (!own) return std::nullopt;
  return parse_format(own->require<std::string>("format"));
}

std::shared_ptr<MtpHeads> load_mtp(const fs::path& folder, std::shared_ptr<const nn::CausalLm> base,
                                   bool check_base) {
  const auto [config, format] = read_config(folder, *base, check_base);
  const decoding::HeadTensors tensors(folder, kTensorFile);
  auto heads = std::make_shared<MtpHeads>(base, config, /*copy_last=*/false);
  const nn::StateDict own = heads->form();
  const FileNames names = file_names(format, *heads);
  const std::map<std::string, Array> extra = extra_tensors(format, *heads);
  nn::StateDict expected = extra, state;
  for (const auto& [name, in_file] : names) expected[in_file] = own.at(name);
  const nn::StateDict given = tensors.read(expected);
  if (check_base) decoding::check_copies(tensors.path(), given, extra);
  for (const auto& [name, in_file] : names) {
    const Array values = given.at(in_file).to(DType::f32);
    state[name] = is_stored_from_one(format, name) ? plus(values, 1) : values;
  }
  heads->load_state(state);
  return heads;
}

}  // namespace binade::heads::mtp
