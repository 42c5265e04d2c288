#include <binade/nn/lora_targets.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace binade::nn {
namespace {

bool any_names(const std::vector<std::string>& suffixes, const std::string& name) {
  return std::any_of(suffixes.begin(), suffixes.end(),
                     [&](const std::string& suffix) { return names_module(name, suffix); });
}

bool is_all_linear(std::string pattern) {
  for (char& c : pattern)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return pattern == "all-linear";
}

// The value of the first pattern that matches the end of a name, at a dot.
template <class Value>
Value value_of(const std::string& name, const std::vector<PythonRegex>& patterns,
               const std::vector<std::pair<std::string, Value>>& values, Value otherwise) {
  for (size_t i = 0; i < patterns.size(); ++i)
    if (patterns[i].match(name)) return values[i].second;
  return otherwise;
}

}  // namespace

bool names_module(const std::string& name, const std::string& suffix) {
  return name == suffix || name.ends_with("." + suffix);
}

LoraTargets::LoraTargets(const LoraOptions& options) : options_(options) {
  const auto check_rank = [](int64_t rank) {
    check(rank > 0, "LoRA needs a positive rank, got ", rank);
  };
  const auto check_alpha = [](double alpha) {
    check(std::isfinite(alpha), "LoRA's alpha must be a number, got ", alpha);
  };
  check_rank(options.rank);
  check_alpha(options.alpha);
  check(options.dropout >= 0 && options.dropout < 1, "a dropout probability lies in [0, 1), got ",
        options.dropout);
  check(options.target_pattern.empty() || options.target_modules.empty(),
        "LoRA: give target_modules or target_pattern, not both");
  check(options.target_pattern.empty() ||
            (options.layers_to_transform.empty() && options.layers_pattern.empty()),
        "LoRA: layers_to_transform and layers_pattern need target_modules as a list of names");
  check(options.layers_pattern.empty() || !options.layers_to_transform.empty(),
        "LoRA: layers_pattern needs layers_to_transform");

  all_linear_ = is_all_linear(options.target_pattern);
  if (!options.target_pattern.empty() && !all_linear_) target_.emplace_back(options.target_pattern);
  if (!options.exclude_pattern.empty()) exclude_.emplace_back(options.exclude_pattern);
  for (const std::string& pattern : options.layers_pattern)
    layers_.emplace_back("(?:^|.*?\\.)" + pattern + "\\.(?P<idx>\\d+)\\.");
  if (layers_.empty()) layers_.emplace_back(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.");
  const auto end_of_name = [](const std::string& pattern) {
    return PythonRegex("(.*\\.)?(" + pattern + ")$");
  };
  for (const auto& [pattern, rank] : options.rank_pattern) {
    check_rank(rank);
    ranks_.push_back(end_of_name(pattern));
  }
  for (const auto& [pattern, alpha] : options.alpha_pattern) {
    check_alpha(alpha);
    alphas_.push_back(end_of_name(pattern));
  }
}

bool LoraTargets::excluded(const std::string& name) const {
  return any_names(options_.exclude_modules, name) ||
         (!exclude_.empty() && exclude_.front().full_match(name));
}

bool LoraTargets::in_wanted_layer(const std::string& name) const {
  const std::vector<int64_t>& wanted = options_.layers_to_transform;
  if (wanted.empty()) return true;
  for (const PythonRegex& pattern : layers_) {
    const std::optional<std::string> digits = pattern.match_group(name, "idx");
    if (!digits) continue;
    int64_t index = -1;
    std::from_chars(digits->data(), digits->data() + digits->size(), index);
    return std::find(wanted.begin(), wanted.end(), index) != wanted.end();
  }
  return false;
}

bool LoraTargets::wants(const std::string& name, bool is_linear_body) const {
  if (excluded(name)) return false;
  if (all_linear_) return is_linear_body;
  if (!target_.empty()) return target_.front().full_match(name);
  const std::vector<std::string>& names = options_.target_modules;
  if (std::find(names.begin(), names.end(), name) != names.end()) return true;  // in any layer
  return any_names(names, name) && in_wanted_layer(name);
}

LoraOptions LoraTargets::options_of(const std::string& name) const {
  LoraOptions own = options_;
  own.rank = value_of(name, ranks_, options_.rank_pattern, options_.rank);
  own.alpha = value_of(name, alphas_, options_.alpha_pattern, options_.alpha);
  return own;
}

}  // namespace binade::nn
