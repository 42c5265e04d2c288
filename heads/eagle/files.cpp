#include <binade/heads/eagle/files.h>

#include <algorithm>

#include <binade/autograd/tape.h>
#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/heads/decoding/base_config.h>
#include <binade/nn/hf.h>
#include <binade/nn/json_reader.h>

namespace binade::heads::eagle {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kTensorFile = "model.safetensors";
constexpr const char* kConfigFile = "config.json";
constexpr const char* kOwnKey = "binade_eagle";
constexpr const char* kEmbedding = "embed_tokens.weight";
constexpr const char* kPlaceOffsets = "d2t";
constexpr const char* kIsDrafted = "t2d";

// The model's own, without padding; f32 on the CPU.
Array embedding_of(const nn::CausalLm& base) {
  for (const nn::NamedParameter& named : base.named_parameters())
    if (named.name == base.embedding_name())
      return named.parameter->master()
          .slice(0, 0, base.config().vocab_size)
          .to(Device::cpu())
          .to(DType::f32);
  fail("the model has no embedding");
}

struct VocabularyTensors {
  Array offsets;  // (N) i64
  Array drafted;  // (V) bool
};

VocabularyTensors vocabulary_tensors(const decoding::DraftVocabulary& part, int64_t vocabulary) {
  const int64_t size = part.size(vocabulary);
  std::vector<int64_t> offsets(static_cast<size_t>(size), 0);
  const Array drafted = Array::zeros({vocabulary}, DType::boolean);
  bool* const is = drafted.data<bool>();
  for (int64_t place = 0; place < size; ++place) {
    const auto at = static_cast<size_t>(place);
    const int64_t id = part.whole() ? place : part.ids()[at];
    offsets[at] = id - place;
    is[id] = true;
  }
  return {Array::from(offsets, {size}), drafted};
}

// From d2t; `what` names the file.
decoding::DraftVocabulary read_vocabulary(const SafetensorsFile& file, int64_t vocabulary,
                                          const std::string& what) {
  for (const char* name : {kPlaceOffsets, kIsDrafted})
    check(file.contains(name), what, " has no tensor '", name,
          "', which says what tokens an EAGLE-3 head drafts among");
  const Array offsets = file.get(kPlaceOffsets), drafted = file.get(kIsDrafted);
  check(offsets.dtype() == DType::i64 && offsets.dims() == 1 && offsets.size(0) >= 1 &&
            offsets.size(0) <= vocabulary,
        what, ": 'd2t' is ", offsets.shape(), ' ', offsets.dtype(),
        ", expected one i64 for each token of the draft vocabulary, at most ", vocabulary);
  check(drafted.dtype() == DType::boolean && drafted.shape() == Shape{vocabulary}, what,
        ": 't2d' is ", drafted.shape(), ' ', drafted.dtype(), ", expected ", vocabulary,
        " bools, one for each of the model's tokens");
  std::vector<int32_t> ids;
  int64_t place = 0;
  for (const int64_t offset : offsets.to_vector<int64_t>()) {
    const bool inside = offset >= -place && offset < vocabulary - place;
    check(inside && (ids.empty() || place + offset > ids.back()), what, ": 'd2t' has ", offset,
          " at ", place, ", but tokens must ascend below ", vocabulary);
    ids.push_back(static_cast<int32_t>(place++ + offset));
  }
  if (place == vocabulary) return {};
  decoding::DraftVocabulary part(std::move(ids), vocabulary);
  const Array expected = vocabulary_tensors(part, vocabulary).drafted, given = drafted.contiguous();
  check(std::equal(expected.data<bool>(), expected.data<bool>() + vocabulary, given.data<bool>()),
        what, ": 't2d' and 'd2t' speak of different tokens");
  return part;
}

std::string config_text(const EagleHead& head, const SaveEagleOptions& options) {
  const nn::CausalLm& base = head.base();
  const bool sglang = options.layout == Layout::sglang;
  ordered_json json =
      parse_json<ordered_json>(draft_config(base.config()).to_json(options.dtype), kConfigFile);
  json["tie_word_embeddings"] = false;
  json["bias"] = false;  // of fc
  ordered_json own = {{"version", name_of(head.config().version)},
                      {"layout", name_of(options.layout)}};
  if (head.own_output()) {
    const std::vector<int64_t>& layers = head.config().layers;
    json["architectures"] = {"LlamaForCausalLMEagle3"};
    json["draft_vocab_size"] = head.draft_size();
    json["target_hidden_size"] = base.config().dim;
    own["layers"] = layers;
    const int64_t count = base.config().layers;
    if (layers != std::vector<int64_t>{2, count / 2, count - 3}) {
      std::vector<int64_t> ids = layers;
      if (sglang) {
        check(layers.front() > 0, "SGLang counts the layers that streams leave, and has no number ",
              "for the embedding: a head that reads the stream entering layer 0 cannot have the ",
              "layout sglang");
        for (int64_t& id : ids) --id;
      }
      json["eagle_config"] = {{"use_aux_hidden_state", true},
                              {"eagle_aux_hidden_state_layer_ids", ids}};
    }
  } else {
    json["architectures"] = {sglang ? "LlamaForCausalLMEagle" : "LlamaForCausalLM"};
  }
  json[kOwnKey] = own;
  decoding::write_base(json, options.base_name, options.base_fingerprint, base);
  return json.dump(2) + "\n";
}

nn::JsonReader json_of(const fs::path& path) {
  constexpr int64_t kLargestConfig = 1 << 20;  // bytes
  return nn::JsonReader::parse(read_text_file(path, kLargestConfig), path.string());
}

// All but the draft vocabulary, which the tensors say.
EagleConfig read_config(const fs::path& path, const nn::CausalLm& base, bool check_base) {
  const nn::JsonReader json = json_of(path);
  const std::optional<nn::JsonReader> own = json.child(kOwnKey);
  if (!own) json.refuse("no '", kOwnKey, "': this is no EAGLE head that Binade wrote");
  decoding::check_same_size(json, "hidden_size", base.config().dim);
  decoding::check_same_size(json, "vocab_size", base.config().vocab_size);
  decoding::check_same_size(json, "target_hidden_size", base.config().dim);
  EagleConfig config;
  config.version = parse_version(own->require<std::string>("version"));
  parse_layout(own->require<std::string>("layout"));
  config.layers = own->list<int64_t>("layers");
  if (check_base) decoding::check_same_base(json, base);
  return config;
}

}  // namespace

std::string_view name_of(Layout layout) {
  return layout == Layout::vllm ? "vllm" : "sglang";
}

Layout parse_layout(std::string_view name) {
  for (const Layout layout : {Layout::vllm, Layout::sglang})
    if (name == name_of(layout)) return layout;
  fail("there is no layout '", name, "' of EAGLE heads; there are vllm and sglang");
}

void save_eagle(const EagleHead& head, const fs::path& folder, const SaveEagleOptions& options) {
  check(options.dtype == DType::f32 || is_half(options.dtype),
        "EAGLE heads are saved in f32, f16 or bf16, not in ", options.dtype);
  std::map<std::string, Array> tensors;
  for (const nn::NamedParameter& named : head.named_parameters())
    tensors[named.name] = named.parameter->master();
  if (!head.own_output()) tensors[kEmbedding] = embedding_of(head.base());
  for (auto& [name, values] : tensors) {
    values = values.to(Device::cpu()).to(options.dtype).contiguous();
    nn::check_finite(name, values);
  }
  if (head.own_output()) {
    const VocabularyTensors vocabulary =
        vocabulary_tensors(head.config().vocabulary, head.base().config().vocab_size);
    tensors[kPlaceOffsets] = vocabulary.offsets;
    tensors[kIsDrafted] = vocabulary.drafted;
  }
  const std::string config = config_text(head, options);
  fs::create_directories(folder);
  write_safetensors(folder / kTensorFile, tensors, {{"format", "pt"}});
  write_text_file(folder / kConfigFile, config);
}

std::optional<Layout> layout_of(const fs::path& folder) {
  if (!fs::exists(folder / kConfigFile)) return std::nullopt;
  const nn::JsonReader json = json_of(folder / kConfigFile);
  const std::optional<nn::JsonReader> own = json.child(kOwnKey);
  if (!own) return std::nullopt;
  return parse_layout(own->require<std::string>("layout"));
}

std::shared_ptr<EagleHead> load_eagle(const fs::path& folder,
                                      std::shared_ptr<const nn::CausalLm> base, bool check_base) {
  const fs::path config_path = folder / kConfigFile, path = folder / kTensorFile;
  check(fs::exists(config_path), folder.string(), " holds no EAGLE head: it has no config.json");
  EagleConfig config = read_config(config_path, *base, check_base);
  check(fs::exists(path), folder.string(), " has no ", kTensorFile);
  const SafetensorsFile file(path);
  const bool own_output = config.version == Version::eagle3;
  if (own_output)
    config.vocabulary = read_vocabulary(file, base->config().vocab_size, path.string());
  auto head = std::make_shared<EagleHead>(base, std::move(config));
  nn::StateDict expected = head->state(), given, state;
  const std::vector<std::string> own = [&] {
    std::vector<std::string> names;
    for (const auto& [name, values] : expected) names.push_back(name);
    return names;
  }();
  if (!own_output) expected[kEmbedding] = embedding_of(*base);
  for (const std::string& name : file.names())
    if (!own_output || (name != kPlaceOffsets && name != kIsDrafted)) given[name] = file.get(name);
  const nn::StateMismatch mismatch = nn::compare_state(expected, given);
  check(mismatch.empty(), path.string(),
        " does not hold what config.json says: ", mismatch.describe());
  for (const auto& [name, values] : given)
    nn::check_finite(concat(path.string(), ": ", name), values);
  if (!own_output && check_base) {
    const Array& copy = given.at(kEmbedding);
    check(expected.at(kEmbedding).to(copy.dtype()).to_vector<float>() == copy.to_vector<float>(),
          path.string(), ": ", kEmbedding,
          " is not what the language model has; heads with their own are not supported");
  }
  for (const std::string& name : own) state[name] = given.at(name).to(DType::f32);
  head->load_state(state);
  return head;
}

}  // namespace binade::heads::eagle
