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

uint32_t checksum(const std::filesystem::path& path) {
  const MappedFile file(path);
  return crc32c(file.bytes().data(), file.bytes().size());
}

}  // namespace

std::vector<std::filesystem::path> ranker_files(const std::filesystem::path& folder) {
  return {folder / kConfig, folder / kWeights, folder / kScaling};
}

void save_ranker(const std::filesystem::path& folder, const Ranker& ranker, const LossSpec& loss,
                 const std::optional<data::FeatureScaling>& scaling,
                 std::optional<int> first_feature) {
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
  if (first_feature) json["first_feature"] = *first_feature;
  json["network"] =
      parse_json<nlohmann::ordered_json>(ranker.config().to_json(), "a ranker's configuration");
  write_safetensors(folder / kWeights, tensors);
  json["checksums"][kWeights] = checksum(folder / kWeights);
  if (scaling) {
    scaling->save(folder / kScaling);
    json["checksums"][kScaling] = checksum(folder / kScaling);
  } else {
    std::filesystem::remove(folder / kScaling);
  }
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
                    .scaling = {},
                    .first_feature = {}};
  const RankerConfig& config = saved.ranker->config();
  const Outputs reads = saved.loss.info().outputs;
  check(reads == Outputs::score ? config.outputs == 1
                                : config.outputs >= output_columns(saved.loss, 0),
        file.string(), ": the network gives ", config.outputs,
        " numbers a document, which the loss ", saved.loss.text(), " does not read");
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
  if (json.has("first_feature"))
    saved.first_feature = static_cast<int>(json["first_feature"].integer(0, 1));
  // Files of one shape fit together whosever they are.
  if (json.has("checksums")) {
    const JsonView checksums = json["checksums"];
    for (const char* name : {kWeights, kScaling})
      if (checksums.has(name))
        check(checksums[name].integer(0, UINT32_MAX) == checksum(folder / name),
              (folder / name).string(), " is not what ", kConfig,
              " was saved with: it is another ranker's, or saving was interrupted");
  }
  saved.ranker->eval();
  return saved;
}

}  // namespace binade::heads::rank
