#include <binade/heads/eagle/files.h>

#include <algorithm>

#include <binade/core/json_view.h>
#include <binade/heads/decoding/base_config.h>
#include <binade/heads/decoding/base_weights.h>
#include <binade/heads/decoding/head_files.h>

namespace binade::heads::eagle {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kTensorFile = "model.safetensors";
constexpr const char* kWhat = "EAGLE heads";
constexpr const char* kOwnKey = "binade_eagle";
constexpr const char* kEmbedding = "embed_tokens.weight";
constexpr const char* kOutput = "lm_head.weight";
constexpr const char* kPlaceOffsets = "d2t";
constexpr const char* kIsDrafted = "t2d";
constexpr const char* kBias = "fc.bias";  // that SGLang's EAGLE-1 has

struct VocabularyTensors {
  Array offsets;  // (N) i64
  Array drafted;  // (V) bool
};

VocabularyTensors vocabulary_tensors(const std::vector<int32_t>& ids, int64_t vocabulary) {
  std::vector<int64_t> offsets;
  const Array drafted = Array::zeros({vocabulary}, DType::boolean);
  bool* const is = drafted.data<bool>();
  for (const int32_t id : ids) {
    offsets.push_back(id - std::ssize(offsets));
    is[id] = true;
  }
  return {Array::from(offsets, {std::ssize(offsets)}), drafted};
}

// From d2t; a head over all tokens may have none.
decoding::DraftVocabulary read_vocabulary(const decoding::HeadTensors& tensors,
                                          int64_t vocabulary) {
  const SafetensorsFile& file = tensors.file();
  const std::string& what = tensors.path();
  if (!file.contains(kPlaceOffsets) && !file.contains(kIsDrafted) && file.contains(kOutput) &&
      file.get(kOutput).dims() == 2 && file.get(kOutput).size(0) == vocabulary)
    return {};
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
  const Array expected = vocabulary_tensors(part.ids(), vocabulary).drafted,
              given = drafted.contiguous();
  check(std::equal(expected.data<bool>(), expected.data<bool>() + vocabulary, given.data<bool>()),
        what, ": 't2d' and 'd2t' speak of different tokens");
  return part;
}

std::string config_text(const EagleHead& head, const SaveEagleOptions& options) {
  const nn::CausalLm& base = head.base();
  const bool sglang = options.layout == Layout::sglang;
  ordered_json json = parse_json<ordered_json>(draft_config(base.config()).to_json(options.dtype),
                                               decoding::kHeadConfig);
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

struct Described {
  EagleConfig config;
  Layout layout = Layout::vllm;
};
// All but the draft vocabulary, which the tensors say.
Described read_config(const fs::path& folder, const nn::CausalLm& base, bool check_base) {
  const nn::JsonReader json = decoding::read_head_config(folder, kWhat);
  const std::optional<nn::JsonReader> own = json.child(kOwnKey);
  if (!own) json.refuse("no '", kOwnKey, "': this is no EAGLE head that Binade wrote");
  decoding::check_same_size(json, "hidden_size", base.config().dim);
  decoding::check_same_size(json, "vocab_size", base.config().vocab_size);
  decoding::check_same_size(json, "target_hidden_size", base.config().dim);
  Described described;
  described.config.version = parse_version(own->require<std::string>("version"));
  described.config.layers = own->list<int64_t>("layers");
  described.layout = parse_layout(own->require<std::string>("layout"));
  if (check_base) decoding::check_same_base(json, base);
  return described;
}

// The tensors that are no parameters and no draft vocabulary.
std::map<std::string, Array> extra_tensors(const nn::CausalLm& base, Version version,
                                           Layout layout) {
  if (version == Version::eagle3) return {};
  std::map<std::string, Array> tensors{{kEmbedding, decoding::embedding_of(base)}};
  if (layout == Layout::sglang) tensors[kBias] = Array::zeros({base.config().dim}, DType::f32);
  return tensors;
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
  const EagleConfig& config = head.config();
  std::map<std::string, Array> tensors = extra_tensors(head.base(), config.version, options.layout);
  for (const nn::NamedParameter& named : head.named_parameters())
    tensors[named.name] = named.parameter->master();
  if (!config.vocabulary.whole()) {
    const VocabularyTensors vocabulary =
        vocabulary_tensors(config.vocabulary.ids(), head.base().config().vocab_size);
    tensors[kPlaceOffsets] = vocabulary.offsets;
    tensors[kIsDrafted] = vocabulary.drafted;
  }
  decoding::write_head_files(folder, kWhat,
                             {.tensor_file = kTensorFile,
                              .tensors = std::move(tensors),
                              .dtype = options.dtype,
                              .config = config_text(head, options)});
}

std::optional<Layout> layout_of(const fs::path& folder) {
  const std::optional<nn::JsonReader> json = decoding::find_head_config(folder);
  if (!json) return std::nullopt;
  const std::optional<nn::JsonReader> own = json->child(kOwnKey);
  if (!own) return std::nullopt;
  return parse_layout(own->require<std::string>("layout"));
}

std::shared_ptr<EagleHead> load_eagle(const fs::path& folder,
                                      std::shared_ptr<const nn::CausalLm> base, bool check_base) {
  auto [config, layout] = read_config(folder, *base, check_base);
  const decoding::HeadTensors tensors(folder, kTensorFile);
  const Version version = config.version;
  if (version == Version::eagle3)
    config.vocabulary = read_vocabulary(tensors, base->config().vocab_size);
  auto head = std::make_shared<EagleHead>(base, std::move(config), /*copy_last=*/false);
  const nn::StateDict own = head->form();
  const std::map<std::string, Array> extra = extra_tensors(*base, version, layout);
  nn::StateDict expected = extra, state;
  expected.insert(own.begin(), own.end());
  std::set<std::string> beside;
  if (version == Version::eagle3) beside = {kPlaceOffsets, kIsDrafted};
  const nn::StateDict given = tensors.read(expected, beside);
  if (check_base) decoding::check_copies(tensors.path(), given, extra);
  for (const auto& [name, values] : own) state[name] = given.at(name).to(DType::f32);
  head->load_state(state);
  return head;
}

}  // namespace binade::heads::eagle
