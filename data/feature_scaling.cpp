#include <binade/data/feature_scaling.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include <binade/core/safetensors.h>
#include <binade/data/parallel.h>

namespace binade::data {
namespace {

using Normalise = FeatureScalingOptions::Normalise;

constexpr const char* kFormat = "binade feature scaling 1";
constexpr int64_t kRows = 4096;  // that one partial sum has
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double signed_log(double x) {
  return std::copysign(std::log1p(std::abs(x)), x);
}

void check_options(const FeatureScalingOptions& o) {
  check(o.clip_quantile >= 0 && o.clip_quantile < 0.5,
        "features cannot be clipped at the quantile ", o.clip_quantile,
        "; expected a number from 0 and below 0.5");
  check(o.limit > 0 && o.limit <= 65504, "features cannot be held within ±", o.limit,
        "; expected a limit above 0 and of at most 65504, where f16 ends");
}

double parse_step_number(std::string_view word, std::string_view number) {
  const auto value = parse_number(number);
  check(value && std::isfinite(*value), "scaling \"", word, "\": expected a number behind =");
  return *value;
}

// The q-quantile of values, which are reordered.
double quantile(std::vector<float>& values, double q) {
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<int64_t>(place);
  std::nth_element(values.begin(), values.begin() + below, values.end());
  const double value = values[static_cast<size_t>(below)];
  const double share = place - static_cast<double>(below);
  if (share == 0) return value;
  const double next = *std::min_element(values.begin() + below + 1, values.end());
  return value + share * (next - value);
}

}  // namespace

FeatureScalingOptions FeatureScalingOptions::parse(std::string_view text) {
  FeatureScalingOptions options;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (word == "log1p") {
      options.log1p = true;
    } else if (word == "zscore" || word == "minmax") {
      check(options.normalise == Normalise::none, "scaling: give zscore or minmax, not both");
      options.normalise = word == "zscore" ? Normalise::z_score : Normalise::query_min_max;
    } else if (word.starts_with("clip=")) {
      options.clip_quantile = parse_step_number(word, word.substr(5));
    } else if (word.starts_with("limit=")) {
      options.limit = parse_step_number(word, word.substr(6));
    } else if (word != "none") {
      const std::vector<std::string> known = {"log1p", "zscore", "minmax",
                                              "clip=", "limit=", "none"};
      fail("\"", word, "\" is no step of scaling", did_you_mean(word, known),
           "; there are clip=Q, log1p, zscore, minmax, limit=L, none");
    }
  }
  check_options(options);
  return options;
}

std::string FeatureScalingOptions::describe() const {
  std::string text;
  if (clip_quantile > 0) text += "clip=" + exact_number(clip_quantile) + ',';
  if (log1p) text += "log1p,";
  if (normalise == Normalise::z_score) text += "zscore,";
  if (normalise == Normalise::query_min_max) text += "minmax,";
  return text + "limit=" + exact_number(limit);
}

FeatureScaling FeatureScaling::fit(const RankingSet& train, const FeatureScalingOptions& options,
                                   int threads) {
  check_options(options);
  const int64_t rows = train.documents(), width = train.feature_count();
  check(rows > 0, "feature scaling cannot be fitted on a set without documents");
  const float* features = train.feature_span().data();
  for (const float value : train.feature_span())
    check(std::isfinite(value), "a feature of the training set is ", value,
          "; expected finite values");

  FeatureScaling scaling;
  scaling.options_ = options;
  scaling.low_ = Array::full({width}, -kInfinity, DType::f64);
  scaling.high_ = Array::full({width}, kInfinity, DType::f64);
  scaling.mean_ = Array::zeros({width}, DType::f64);
  scaling.scale_ = Array::full({width}, 1, DType::f64);
  double* low = scaling.low_.data<double>();
  double* high = scaling.high_.data<double>();
  if (options.clip_quantile > 0) {
    parallel_for(width, threads, [&](int64_t f, int) {
      std::vector<float> column(static_cast<size_t>(rows));
      for (int64_t row = 0; row < rows; ++row) column[row] = features[row * width + f];
      low[f] = quantile(column, options.clip_quantile);
      high[f] = quantile(column, 1 - options.clip_quantile);
    });
  }
  if (options.normalise != Normalise::z_score) return scaling;

  double* mean = scaling.mean_.data<double>();
  double* scale = scaling.scale_.data<double>();
  const int64_t blocks = (rows + kRows - 1) / kRows;
  // Σ work(value, f) over all rows, by blocks of rows whose sums are added in order.
  const auto sums = [&](auto work) {
    std::vector<double> partial(static_cast<size_t>(blocks * width));
    parallel_for(blocks, threads, [&](int64_t block, int) {
      double* sum = partial.data() + block * width;
      for (int64_t row = block * kRows; row < std::min(rows, (block + 1) * kRows); ++row)
        for (int64_t f = 0; f < width; ++f) {
          const double clipped = std::clamp<double>(features[row * width + f], low[f], high[f]);
          sum[f] += work(options.log1p ? signed_log(clipped) : clipped, f);
        }
    });
    std::vector<double> total(static_cast<size_t>(width));
    for (int64_t i = 0; i < blocks * width; ++i) total[i % width] += partial[i];
    return total;
  };
  const auto first = sums([](double x, int64_t) { return x; });
  for (int64_t f = 0; f < width; ++f) mean[f] = first[f] / static_cast<double>(rows);
  const auto second = sums([&](double x, int64_t f) { return (x - mean[f]) * (x - mean[f]); });
  for (int64_t f = 0; f < width; ++f) {
    const double deviation = std::sqrt(second[f] / static_cast<double>(rows));
    // What is left of a constant after the mean has rounded is no deviation.
    const double rounding = 1e-12 * std::abs(mean[f]);
    scale[f] = deviation > rounding ? 1 / deviation : 0;
  }
  return scaling;
}

RankingSet FeatureScaling::apply(const RankingSet& set, int threads) const {
  const int64_t width = feature_count();
  check(set.feature_count() == width, "the scaling was fitted on ", width,
        " features, the set has ", set.feature_count());
  RankingSet out = set;
  out.features = Array::empty(set.features.shape(), DType::f32);
  const float* from = set.feature_span().data();
  float* to = out.features.data<float>();
  const double* low = low_.data<double>();
  const double* high = high_.data<double>();
  const double* mean = mean_.data<double>();
  const double* scale = scale_.data<double>();
  const auto offsets = set.offset_span();
  const bool min_max = options_.normalise == Normalise::query_min_max;
  std::atomic<int64_t> held = 0;
  constexpr int64_t kLists = 16;
  parallel_for((set.queries() + kLists - 1) / kLists, threads, [&](int64_t block, int) {
    int64_t held_here = 0;
    std::vector<double> least(static_cast<size_t>(width)), largest(least.size());
    const auto value = [&](int64_t row, int64_t f) {
      const double x = std::clamp<double>(from[row * width + f], low[f], high[f]);
      return options_.log1p ? signed_log(x) : x;
    };
    const int64_t end = std::min(set.queries(), (block + 1) * kLists);
    for (int64_t query = block * kLists; query < end; ++query) {
      const int64_t begin_row = offsets[query], end_row = offsets[query + 1];
      if (min_max) {
        std::fill(least.begin(), least.end(), kInfinity);
        std::fill(largest.begin(), largest.end(), -kInfinity);
        for (int64_t row = begin_row; row < end_row; ++row)
          for (int64_t f = 0; f < width; ++f) {
            const double x = value(row, f);
            least[f] = std::min(least[f], x);
            largest[f] = std::max(largest[f], x);
          }
      }
      for (int64_t row = begin_row; row < end_row; ++row)
        for (int64_t f = 0; f < width; ++f) {
          double x = value(row, f);
          if (min_max)
            x = largest[f] > least[f] ? (x - least[f]) / (largest[f] - least[f]) : 0;
          else
            x = (x - mean[f]) * scale[f];
          if (!(std::abs(x) <= options_.limit)) {
            check(std::isfinite(from[row * width + f]), "document ", row,
                  " (from 0) has the value ", from[row * width + f], " for feature ",
                  f + set.first_index, "; expected finite values");
            ++held_here;
            x = std::copysign(options_.limit, x);
          }
          to[row * width + f] = static_cast<float>(x);
        }
    }
    held += held_here;
  });
  out.notes.push_back(concat(
      "features are scaled: ", options_.describe(),
      held > 0 ? concat("; ", held.load(), " values were held at the limit") : std::string()));
  return out;
}

void FeatureScaling::save(const std::filesystem::path& path) const {
  write_safetensors(path, {{"low", low_}, {"high", high_}, {"mean", mean_}, {"scale", scale_}},
                    {{"format", kFormat}, {"steps", options_.describe()}});
}

bool FeatureScaling::operator==(const FeatureScaling& other) const {
  const auto same = [](const Array& a, const Array& b) {
    return a.to_vector<double>() == b.to_vector<double>();
  };
  return options_ == other.options_ && same(low_, other.low_) && same(high_, other.high_) &&
         same(mean_, other.mean_) && same(scale_, other.scale_);
}

FeatureScaling FeatureScaling::load(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const auto& metadata = file.metadata();
  const auto format = metadata.find("format"), steps = metadata.find("steps");
  check(format != metadata.end() && format->second == kFormat && steps != metadata.end(),
        path.string(), " is not a ", kFormat);
  FeatureScaling scaling;
  try {
    scaling.options_ = FeatureScalingOptions::parse(steps->second);
  } catch (const Error& error) {
    fail(path.string(), ": ", error.what());
  }
  const auto get = [&](const char* name, double least) {
    Array array = file.get(name);
    check(array.dtype() == DType::f64 && array.dims() == 1 &&
              array.numel() == file.get("low").numel(),
          path.string(), ": ", name, " is ", name_of(array.dtype()), ' ', array.shape(),
          ", expected f64 of one number a feature");
    for (const double value : array.to_vector<double>())
      check(value >= least, path.string(), ": ", name, " has ", value);
    return array;
  };
  scaling.low_ = get("low", -kInfinity);
  scaling.high_ = get("high", -kInfinity);
  scaling.mean_ = get("mean", -kInfinity);
  scaling.scale_ = get("scale", 0);
  for (int64_t f = 0; f < scaling.feature_count(); ++f)
    check(scaling.low_.data<double>()[f] <= scaling.high_.data<double>()[f], path.string(),
          ": feature ", f, " (from 0) would be held between ", scaling.low_.data<double>()[f],
          " and ", scaling.high_.data<double>()[f]);
  return scaling;
}

}  // namespace binade::data
