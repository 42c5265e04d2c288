#include <binade/nn/models/generation_config.h>

#include <cmath>

#include <binade/nn/special_ids.h>

namespace binade::nn {
namespace {

using nlohmann::json;

// Keys that change the text that transformers writes, and the value that does not.
struct Neutral {
  const char* key;
  json value;
};
const std::vector<Neutral>& neutral_values() {
  static const std::vector<Neutral> values = {
      {"num_beams", 1},
      {"num_beam_groups", 1},
      {"penalty_alpha", 0},
      {"min_p", 0},
      {"typical_p", 1},
      {"epsilon_cutoff", 0},
      {"eta_cutoff", 0},
      {"top_h", json()},
      {"diversity_penalty", 0},
      {"repetition_penalty", 1},
      {"encoder_repetition_penalty", 1},
      {"no_repeat_ngram_size", 0},
      {"encoder_no_repeat_ngram_size", 0},
      {"bad_words_ids", json()},
      {"force_words_ids", json()},
      {"constraints", json()},
      {"forced_bos_token_id", json()},
      {"forced_eos_token_id", json()},
      {"suppress_tokens", json()},
      {"begin_suppress_tokens", json()},
      {"sequence_bias", json()},
      {"exponential_decay_length_penalty", json()},
      {"guidance_scale", 1},
      {"stop_strings", json()},
      {"watermarking_config", json()},
      {"token_healing", false},
  };
  return values;
}

bool is_neutral(const json& given, const json& neutral) {
  return given.is_null() || given == neutral || (given.is_structured() && given.empty());
}

}  // namespace

GenerationConfig GenerationConfig::parse(std::string_view text, const std::string& source,
                                         int64_t vocab_size) {
  const JsonReader reader = JsonReader::parse(text, source);
  GenerationConfig config;
  config.text = text;
  config.eos_ids = read_special_ids(reader, "eos_token_id", source, vocab_size);
  config.do_sample = reader.get("do_sample", config.do_sample);
  config.temperature = reader.get("temperature", config.temperature);
  config.top_k = reader.get("top_k", config.top_k);
  config.top_p = reader.get("top_p", config.top_p);
  if (!(config.temperature >= 0 && std::isfinite(config.temperature)))
    reader.refuse("the temperature must be 0 or more, got ", config.temperature);
  if (config.top_k < 0) reader.refuse("top_k must be 0 or more, got ", config.top_k);
  if (!(config.top_p > 0 && config.top_p <= 1))
    reader.refuse("top_p lies in (0, 1], got ", config.top_p);
  for (const Neutral& neutral : neutral_values())
    if (reader.has(neutral.key) && !is_neutral(reader[neutral.key], neutral.value))
      config.unsupported.push_back(
          concat(neutral.key, ": ", reader[neutral.key].dump().substr(0, 40)));
  return config;
}

}  // namespace binade::nn
