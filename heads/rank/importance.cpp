#include <binade/heads/rank/importance.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <binade/autograd/ops.h>
#include <binade/core/random.h>
#include <binade/heads/rank/parts.h>

namespace binade::heads::rank {

namespace {

using Rows = std::vector<int32_t>;

// Draws of one permutation of one feature.
class Shuffle {
 public:
  Shuffle(uint64_t seed, int64_t feature, int64_t repeat)
      : seed_(seed), step_(static_cast<uint64_t>(feature) << 32 | static_cast<uint64_t>(repeat)) {}

  // Elements [begin, end) in another order (Fisher and Yates; Durstenfeld 1964).
  void operator()(Rows& rows, int64_t begin, int64_t end) {
    for (int64_t last = end - 1; last > begin; --last) {
      const auto count = static_cast<uint64_t>(last - begin) + 1;
      // r·count / 2^64 of 64 random bits r, of which no element gets 2^-33 more than another.
      const auto [high, low] = draw();
      const uint64_t place =
          (static_cast<uint64_t>(high) * count + (static_cast<uint64_t>(low) * count >> 32)) >> 32;
      std::swap(rows[static_cast<size_t>(last)],
                rows[static_cast<size_t>(begin + static_cast<int64_t>(place))]);
    }
  }

 private:
  std::pair<uint32_t, uint32_t> draw() {
    if (used_ % 2 == 0) block_ = philox(seed_, step_, kPlace, used_ / 2);
    const uint32_t* words = block_.word + 2 * (used_ % 2);
    ++used_;
    return {words[0], words[1]};
  }

  static constexpr uint64_t kPlace = 2;  // of its own, beside that of simulated clicks
  uint64_t seed_, step_, used_ = 0;
  PhiloxBlock block_{};
};

float value(const data::RankingSet& set, int64_t row, int64_t feature) {
  return set.feature_span()[static_cast<size_t>(row * set.feature_count() + feature)];
}

bool is_constant(const data::RankingSet& set, int64_t feature, bool within_lists) {
  const auto offsets = set.offset_span();
  for (size_t q = 0; q + 1 < offsets.size(); ++q)
    for (int64_t row = offsets[q]; row < offsets[q + 1]; ++row)
      if (value(set, row, feature) != value(set, within_lists ? offsets[q] : 0, feature))
        return false;
  return true;
}

// Scores of a set, some of whose features may have other values.
class Scorer {
 public:
  Scorer(const SavedRanker& saved, const data::RankingSet& set, const amp::Preset& preset)
      : saved_(saved),
        preset_(preset),
        device_(saved.ranker->named_parameters()[0].parameter->tensor().device()),
        scaled_(scaled(set)),
        features_(scaled_.features.to(preset.compute_dtype).to(device_)),
        parts_(parts_of(scaled_, device_)) {}

  data::RankingSet scaled(const data::RankingSet& set) const {
    return saved_.scaling ? saved_.scaling->apply(set) : set;
  }
  const data::RankingSet& scaled() const { return scaled_; }

  std::vector<double> baseline() {
    std::vector<double> scores;
    for (const Part& part : parts_) append(scores, part, rows_of(part.rows));
    return scores;
  }

  // Where document i has the (scaled) value that document rows[i] has in `column` (N).
  std::vector<double> permuted(int64_t feature, const Array& column, const Rows& rows,
                               const std::vector<double>& baseline) {
    std::vector<double> scores;
    const float* from = column.data<float>();
    const Array values = column.to(preset_.compute_dtype).to(device_);
    for (const Part& part : parts_) {
      bool changes = false;
      for (int64_t i = part.begin; i < part.end && !changes; ++i)
        changes = from[rows[static_cast<size_t>(i)]] != value(scaled_, i, feature);
      if (!changes) {
        scores.insert(scores.end(), baseline.begin() + part.begin, baseline.begin() + part.end);
        continue;
      }
      const NoGrad off;
      const Array features = rows_of(part.rows);
      const Rows own(rows.begin() + part.begin, rows.begin() + part.end);
      const auto count = static_cast<int64_t>(own.size());
      const Tensor moved = index_select(Tensor(values), 0, Tensor::from(own, {count}, device_));
      features.slice(1, feature, feature + 1).copy_from(moved.array().view({count, 1}));
      append(scores, part, features);
    }
    return scores;
  }

  int64_t documents_scored() const { return documents_scored_; }

 private:
  Array rows_of(const Tensor& rows) const {
    const NoGrad off;
    return index_select(Tensor(features_), 0, rows).array();
  }
  void append(std::vector<double>& scores, const Part& part, const Array& features) {
    const NoGrad off;
    const amp::Autocast scope(preset_);
    append_scores(scores, saved_.ranker->forward(Tensor(features), part.list_of), saved_.loss);
    documents_scored_ += part.end - part.begin;
  }

  const SavedRanker& saved_;
  const amp::Preset& preset_;
  Device device_;
  data::RankingSet scaled_;
  Array features_;  // (N, F), as the network reads them
  std::vector<Part> parts_;
  int64_t documents_scored_ = 0;
};

Array column_of(const data::RankingSet& set, int64_t feature) {
  return set.features.slice(1, feature, feature + 1).contiguous().view({set.documents()});
}

// The raw set in which a feature's values have changed places.
data::RankingSet with_permuted(const data::RankingSet& set, int64_t feature, const Rows& rows) {
  data::RankingSet other = set;
  other.features = set.features.clone();
  float* out = other.features.data<float>();
  for (int64_t i = 0; i < set.documents(); ++i)
    out[i * set.feature_count() + feature] = value(set, rows[static_cast<size_t>(i)], feature);
  return other;
}

}  // namespace

Importance permutation_importance(const SavedRanker& ranker, const data::RankingSet& set,
                                  const amp::Preset& preset, const ImportanceOptions& options) {
  check(options.repeats >= 1 && options.repeats <= INT32_MAX,
        "the importance of features takes 1 permutation or more, got ", options.repeats);
  set.check_shapes("a set to find the importance of features on");
  const int64_t features = ranker.ranker->config().features;
  check(set.feature_count() == features, "the ranker has ", features, " features, the lists have ",
        set.feature_count());
  Scorer scorer(ranker, set, preset);
  const Judged lists{set.offset_span(), set.label_span()};
  const auto judge = [&](const std::vector<double>& scores) {
    return evaluate(lists, scores, std::span(&options.metric, 1), options.convention)[0];
  };
  const std::vector<double> scores = scorer.baseline();
  Importance importance{.baseline = judge(scores), .features = {}};
  check(importance.baseline.lists > 0, "no list has a value of ", options.metric.name(), " (",
        options.convention.describe(options.metric), ")");
  // A scaling of each value by itself may come before the permutation; one by the list's other
  // values may, too, as long as they stay in the list.
  const bool scale_anew =
      !options.within_lists && ranker.scaling &&
      ranker.scaling->options().normalise == data::FeatureScalingOptions::Normalise::query_min_max;
  const data::RankingSet& seen = scale_anew ? set : scorer.scaled();

  Rows rows(static_cast<size_t>(set.documents()));
  for (int64_t f = 0; f < features; ++f) {
    FeatureImportance one{.feature = f + set.first_index, .drops = {}};
    one.drops.assign(static_cast<size_t>(options.repeats), 0.0);
    one.constant = is_constant(seen, f, options.within_lists);
    Array column = one.constant ? Array() : column_of(scorer.scaled(), f);
    for (int64_t repeat = 0; repeat < options.repeats && !one.constant; ++repeat) {
      std::iota(rows.begin(), rows.end(), 0);
      Shuffle shuffle(options.seed, f, repeat);
      if (options.within_lists)
        for (size_t q = 0; q + 1 < lists.offsets.size(); ++q)
          shuffle(rows, lists.offsets[q], lists.offsets[q + 1]);
      else
        shuffle(rows, 0, set.documents());
      if (scale_anew) {
        column = column_of(scorer.scaled(with_permuted(set, f, rows)), f);
        std::iota(rows.begin(), rows.end(), 0);
      }
      const double mean = judge(scorer.permuted(f, column, rows, scores)).mean;
      const double before = importance.baseline.mean;
      one.drops[static_cast<size_t>(repeat)] =
          options.metric.smaller_is_better() ? mean - before : before - mean;
    }
    const auto count = static_cast<double>(options.repeats);
    one.drop = std::accumulate(one.drops.begin(), one.drops.end(), 0.0) / count;
    double square = 0;
    for (const double drop : one.drops) square += (drop - one.drop) * (drop - one.drop);
    one.deviation = options.repeats > 1 ? std::sqrt(square / (count - 1)) : 0;
    importance.features.push_back(std::move(one));
  }
  std::stable_sort(importance.features.begin(), importance.features.end(),
                   [](const auto& a, const auto& b) { return a.drop > b.drop; });
  importance.documents_scored = scorer.documents_scored();
  return importance;
}

}  // namespace binade::heads::rank
