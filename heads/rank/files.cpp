#include <binade/heads/rank/files.h>

#include <nlohmann/json.hpp>

#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/nn/hf.h>

namespace binade::heads::rank {

namespace {

constexpr const char* kConfig = "ranker.json";
constexpr const char* kWeights = "model.safetensors";
constexpr const char* kScaling = "scaling.safetensors";
constexpr int kFormat = 1;

}  // namespace

void save_ranker(const std::filesystem::path& folder, const Ranker& ranker, const LossSpec& loss,
                 const std::optional<data::FeatureScaling>& scaling) {
  std::map<std::string, Array> tensors;
  for (const auto& [name, values] : ranker.state()) {
    tensors[name] = values.to(Device::cpu()).to(DType::f32).contiguous();
    nn::check_finite(name, tensors[name]);
  }
  create_folder(folder);
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["loss"] = loss.text();
  json["scaled"] = scaling.has_value();
  json["network"] =
      parse_json<nlohmann::ordered_json>(ranker.config().to_json(), "a ranker's configuration");
  write_safetensors(folder / kWeights, tensors);
  if (scaling)
    scaling->save(folder / kScaling);
  else
    std::filesystem::remove(folder / kScaling);
  write_text_file(folder / kConfig, json.dump(2) + "\n");
}

SavedRanker load_ranker(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / kConfig;
  check(std::filesystem::exists(file), folder.string(), " holds no ranker: it has no ", kConfig);
  const nlohmann::json document = parse_json(read_text_file(file), file.string());
  const JsonView json(document, concat(file.string(), ": "));
  json.expect_object();
  const int64_t format = json["format"].integer(1, 1 << 30);
  check(format == kFormat, file.string(), " has format ", format, ", this version reads ", kFormat);
  SavedRanker saved{.ranker = std::make_shared<Ranker>(RankerConfig::from_json(
                        json["network"].raw().dump(), concat(file.string(), ": network"))),
                    .loss = LossSpec::parse(json["loss"].text()),
                    .scaling = {}};
  const RankerConfig& config = saved.ranker->config();
  const SafetensorsFile weights(folder / kWeights);
  nn::StateDict state;
  for (const std::string& name : weights.names()) state[name] = weights.get(name);
  try {
    saved.ranker->load_state(state);
  } catch (const Error& error) {
    fail((folder / kWeights).string(), " does not fit ", kConfig, ": ", error.what());
  }
  for (const auto& [name, values] : saved.ranker->state()) nn::check_finite(name, values);
  if (json["scaled"].flag()) {
    saved.scaling = data::FeatureScaling::load(folder / kScaling);
    check(saved.scaling->feature_count() == config.features, (folder / kScaling).string(),
          " scales ", saved.scaling->feature_count(), " features, the ranker has ",
          config.features);
  }
  saved.ranker->eval();
  return saved;
}

}  // namespace binade::heads::rank
