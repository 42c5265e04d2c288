// Preprocessing of dense features, fitted on the training lists alone and kept with the model.
#pragma once

#include <binade/data/ranking_set.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace binade::data {

// Steps, in this order; what is not asked for is left out.
struct FeatureScalingOptions {
  // 1. Values are held between the training lists' quantiles q and 1 − q (linear interpolation
  // between order statistics). 0: not; below 0.5.
  double clip_quantile = 0;
  // 2. sign(x)·log(1 + |x|), which brings raw counts and 1e8 to numbers below 20 (Qin et al.,
  // "Are neural rankers still outperformed by gradient boosted decision trees?", ICLR 2021).
  bool log1p = false;
  // 3. (x − mean)/(standard deviation) of the training lists, or (x − least)/(largest − least) of
  // the document's own list, which takes nothing from training. Of a feature that is always the
  // same (in training, in the list): 0.
  enum class Normalise : uint8_t { none, z_score, query_min_max } normalise = Normalise::none;
  // 4. Results are held within ±limit, so that they and their sums fit into f16, which ends at
  // 65504.
  double limit = 1024;

  bool operator==(const FeatureScalingOptions&) const = default;
  // From "clip=0.001,log1p,zscore,limit=100" or "log1p,minmax"; "none" or nothing: no step but the
  // limit. Error for other words, with the nearest one, and for numbers that are no use.
  static FeatureScalingOptions parse(std::string_view text);
  std::string describe() const;  // such a text
};

class FeatureScaling {
 public:
  // Sums in f64 in an order that does not depend on `threads`. Error for a set without documents,
  // and for values that are not finite.
  static FeatureScaling fit(const RankingSet& train, const FeatureScalingOptions& options,
                            int threads = 0);
  // Whether apply() does the same, to the bit.
  bool operator==(const FeatureScaling& other) const;
  // Reads what save() wrote; Error that names the file for anything else.
  static FeatureScaling load(const std::filesystem::path& path);

  // A safetensors file of low, high, mean and scale, each (F) f64, and the options.
  void save(const std::filesystem::path& path) const;

  int64_t feature_count() const { return low_.numel(); }
  const FeatureScalingOptions& options() const { return options_; }
  // For those who write the steps down elsewhere: what values are held between, and what is taken
  // from them and multiplied by then; (F) f64 each. Steps that were not asked for have ±inf, 0, 1.
  const Array& low() const { return low_; }
  const Array& high() const { return high_; }
  const Array& mean() const { return mean_; }
  const Array& scale() const { return scale_; }

  // The set with its features replaced; a note says what was done and how many values the limit
  // held. Error for another number of features than was fitted, and for values that are not finite.
  RankingSet apply(const RankingSet& set, int threads = 0) const;

 private:
  FeatureScaling() = default;

  FeatureScalingOptions options_;
  Array low_, high_;    // (F) f64: what values are held between
  Array mean_, scale_;  // (F) f64: of the steps' results before normalising; scale = 1/deviation
};

}  // namespace binade::data
