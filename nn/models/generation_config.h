// GenerationConfig: what generation_config.json says of writing text with a model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace binade::nn {

struct GenerationConfig {
  std::string text;              // the whole file, to be written back as it was; empty: no file
  std::vector<int64_t> eos_ids;  // "eos_token_id", one or several; empty: config.json's count
  bool do_sample = false;        // otherwise the most probable token is taken
  // Of sampling, with transformers' defaults.
  double temperature = 1;
  int64_t top_k = 50;  // 0: all tokens
  double top_p = 1;
  // Keys that ask for what Binade's generation does not do, with their values:
  // "repetition_penalty: 1.1".
  std::vector<std::string> unsupported;

  // `source` names the text in errors. Ids beyond `vocab_size` are warned about and left out.
  // Throws Error for JSON errors and values of the wrong type or out of range.
  static GenerationConfig parse(std::string_view text, const std::string& source,
                                int64_t vocab_size);
};

}  // namespace binade::nn
