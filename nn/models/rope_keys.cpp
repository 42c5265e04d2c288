#include <binade/nn/models/rope_keys.h>

#include <algorithm>
#include <string>

namespace binade::nn {
namespace {

using nlohmann::json;

constexpr const char* kOriginal = "original_max_position_embeddings";

// transformers 5 writes rope_parameters, for Gemma an object a layer type in it; before it was
// rope_scaling.
std::optional<JsonReader> rope_object(const JsonReader& reader, const FamilyRow& row) {
  const std::optional<JsonReader> parameters = reader.child("rope_parameters");
  if (!parameters) return reader.child("rope_scaling");
  const bool by_layer_type =
      parameters->has("full_attention") || parameters->has("sliding_attention");
  if (row.windows == WindowKeys::by_pattern) {
    if (!by_layer_type && !parameters->object().empty())
      reader.refuse("rope_parameters must have 'full_attention' and 'sliding_attention' in ",
                    "model_type '", row.model_type, "'");
    return parameters->child("full_attention");
  }
  if (by_layer_type)
    reader.refuse("rope_parameters by layer type are not supported in model_type '", row.model_type,
                  "'");
  return parameters;
}

RopeScaling parse_type(const JsonReader& reader, const JsonReader& scaling, Family family) {
  const auto type =
      scaling.get("rope_type", scaling.get<std::string>("type", "default"));  // "type": before 4.43
  // What early files of Phi-3 call it.
  if (family == Family::phi3 && (type == "su" || type == "yarn")) return RopeScaling::longrope;
  std::string known;
  for (const RopeScaling each : {RopeScaling::none, RopeScaling::linear, RopeScaling::llama3,
                                 RopeScaling::yarn, RopeScaling::dynamic, RopeScaling::longrope}) {
    if (type == name_of(each)) return each;
    known += concat(known.empty() ? "" : ", ", name_of(each));
  }
  reader.refuse("the rope_type '", type, "' is not supported; supported are ", known);
}

// A number that stands for its default where it is 0, as in transformers.
double nonzero(const JsonReader& scaling, const char* key, double otherwise) {
  const auto value = scaling.get(key, otherwise);
  return value == 0 ? otherwise : value;
}

int64_t original_positions(const JsonReader& reader, const JsonReader& scaling,
                           const CausalLmConfig& config) {
  if (const auto outer = reader.find<int64_t>(kOriginal)) return *outer;
  if (config.family == Family::phi3) return 4096;
  return scaling.get(kOriginal, config.max_positions);
}

}  // namespace

RopeConfig parse_rope(const JsonReader& reader, const FamilyRow& row, CausalLmConfig& config) {
  RopeConfig rope;
  rope.theta = reader.get("rope_theta", row.theta);
  rope.partial_factor = reader.get("partial_rotary_factor", rope.partial_factor);
  const std::optional<JsonReader> scaling = rope_object(reader, row);
  if (scaling) {
    rope.theta = scaling->get("rope_theta", rope.theta);
    rope.partial_factor = scaling->get("partial_rotary_factor", rope.partial_factor);
    rope.scaling = parse_type(reader, *scaling, config.family);
  }
  if (rope.partial_factor != 1 && !row.rotates_in_part)
    reader.refuse("'partial_rotary_factor': ", rope.partial_factor,
                  " is not supported in model_type '", row.model_type,
                  "', which turns whole heads in transformers; it is in phi3");
  if (rope.scaling == RopeScaling::none) return rope;

  if (rope.scaling != RopeScaling::linear && rope.scaling != RopeScaling::dynamic)
    rope.original_max_positions = original_positions(reader, *scaling, config);
  const auto lengthened = [&] {  // what config.json says by its positions
    return static_cast<double>(config.max_positions) /
           static_cast<double>(std::max<int64_t>(rope.original_max_positions, 1));
  };
  const auto parse_attention_factor = [&] {
    const auto given = scaling->find<double>("attention_factor");
    if (given && !(*given > 0))
      reader.refuse("'attention_factor' is ", *given, ", expected more than 0");
    return given.value_or(0);
  };
  switch (rope.scaling) {
    case RopeScaling::yarn:
      rope.factor = scaling->find<double>("factor").value_or(lengthened());
      rope.attention_factor = parse_attention_factor();
      rope.mscale = scaling->get("mscale", 0.0);
      rope.mscale_all_dim = scaling->get("mscale_all_dim", 0.0);
      rope.beta_fast = nonzero(*scaling, "beta_fast", rope.beta_fast);
      rope.beta_slow = nonzero(*scaling, "beta_slow", rope.beta_slow);
      rope.truncate = scaling->get("truncate", true);
      break;
    case RopeScaling::longrope:
      rope.factor = scaling->find<double>("factor").value_or(lengthened());
      rope.attention_factor = parse_attention_factor();
      rope.short_factor = scaling->list<double>("short_factor");
      rope.long_factor = scaling->list<double>("long_factor");
      break;
    case RopeScaling::llama3:
      rope.low_freq_factor = scaling->require<double>("low_freq_factor");
      rope.high_freq_factor = scaling->require<double>("high_freq_factor");
      [[fallthrough]];
    default:
      rope.factor = scaling->require<double>("factor");
  }
  if (rope.scaling != RopeScaling::dynamic) return rope;
  constexpr double kLargestFactor = 1e6;
  if (!(rope.factor >= 1 && rope.factor <= kLargestFactor))
    reader.refuse("dynamic rope scaling has the factor ", rope.factor, ", expected 1 or more");
  rope.original_max_positions = config.max_positions;
  config.max_positions =
      static_cast<int64_t>(static_cast<double>(config.max_positions) * rope.factor);
  return rope;
}

RopeConfig parse_window_rope(const JsonReader& reader) {
  constexpr double kTheta = 10000;
  RopeConfig rope;
  rope.theta = reader.get("rope_local_base_freq", kTheta);
  const std::optional<JsonReader> parameters = reader.child("rope_parameters");
  const auto own = parameters ? parameters->child("sliding_attention") : std::nullopt;
  if (!own) return rope;
  rope.theta = own->get("rope_theta", rope.theta);
  own->supports_only("rope_type", std::string("default"));
  return rope;
}

void write_rope(const CausalLmConfig& config, json& object) {
  const RopeConfig& rope = config.rope;
  const bool dynamic = rope.scaling == RopeScaling::dynamic;
  object["max_position_embeddings"] = dynamic ? rope.original_max_positions : config.max_positions;
  // rope_theta and rope_scaling are read by every version of transformers; 5 turns them into
  // rope_parameters.
  object["rope_theta"] = rope.theta;
  if (rope.partial_factor != 1) object["partial_rotary_factor"] = rope.partial_factor;
  if (row_of(config.family).windows == WindowKeys::by_pattern)
    object["rope_local_base_freq"] = config.window_rope.value_or(rope).theta;
  object["rope_scaling"] = json();
  if (rope.scaling == RopeScaling::none) return;

  json scaling = {{"rope_type", name_of(rope.scaling)}, {"factor", rope.factor}};
  if (!dynamic && rope.original_max_positions > 0) {
    scaling[kOriginal] = rope.original_max_positions;
    if (config.family == Family::phi3) object[kOriginal] = rope.original_max_positions;
  }
  const auto write_if_given = [&](const char* key, double value) {
    if (value != 0) scaling[key] = value;
  };
  if (rope.scaling == RopeScaling::llama3)
    scaling.update(
        {{"low_freq_factor", rope.low_freq_factor}, {"high_freq_factor", rope.high_freq_factor}});
  if (rope.scaling == RopeScaling::yarn) {
    scaling.update({{"beta_fast", rope.beta_fast},
                    {"beta_slow", rope.beta_slow},
                    {"truncate", rope.truncate}});
    write_if_given("mscale", rope.mscale);
    write_if_given("mscale_all_dim", rope.mscale_all_dim);
  }
  if (rope.scaling == RopeScaling::longrope)
    scaling.update({{"short_factor", rope.short_factor}, {"long_factor", rope.long_factor}});
  write_if_given("attention_factor", rope.attention_factor);
  object["rope_scaling"] = scaling;
}

}  // namespace binade::nn
