// INTERNAL. Which layers of a model get a LoRA adapter, and of which rank: PEFT's rules, by module
// names.
#pragma once

#include <string>
#include <vector>

#include <binade/nn/lora.h>
#include <binade/nn/python_regex.h>

namespace binade::nn {

// Decides as PEFT 0.21 does (tuners_utils.check_target_module_exists, other.get_pattern_key).
class LoraTargets {
 public:
  // Throws Error for values out of range, patterns that cannot be read, and combinations that PEFT
  // refuses, too.
  explicit LoraTargets(const LoraOptions& options);

  // Whether the module is meant. `is_linear_body`: a linear layer that is not the head, for
  // "all-linear".
  bool wants(const std::string& name, bool is_linear_body) const;
  // The options of one layer: its rank and alpha are the ones that the patterns give it.
  LoraOptions options_of(const std::string& name) const;

 private:
  bool excluded(const std::string& name) const;
  bool in_wanted_layer(const std::string& name) const;

  LoraOptions options_;
  bool all_linear_ = false;
  std::vector<PythonRegex> target_, exclude_;  // none or one
  std::vector<PythonRegex> layers_;            // the index is their group "idx"
  std::vector<PythonRegex> ranks_, alphas_;    // as options_.rank_pattern, options_.alpha_pattern
};

// Whether `name` is `suffix` or ends in "." and it.
bool names_module(const std::string& name, const std::string& suffix);

}  // namespace binade::nn
