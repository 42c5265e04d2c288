#include "setup.h"

#include <algorithm>

#include <binade/data/ranking_cache.h>
#include <binade/data/ranking_scores.h>

#include "../output_files.h"
#include "../saved_ranker.h"

namespace binade::examples {

namespace fs = std::filesystem;

namespace {

std::vector<fs::path> files_of(const std::vector<std::string>& given, const std::string& fold,
                               const char* name) {
  if (fold.empty() || !given.empty()) return {given.begin(), given.end()};
  const fs::path file = fs::path(fold) / name;
  return fs::exists(file) ? std::vector<fs::path>{file} : std::vector<fs::path>{};
}

}  // namespace

std::vector<std::string> may_change() {
  std::vector<std::string> options = kMayChange;
  for (const char* option : {"save", "test", "test-scores", "patience", "threads"})
    options.push_back(option);
  return options;
}

void check_names(const TrainRankerOptions& o) {
  heads::rank::LossSpec::parse(o.loss);
  data::FeatureScalingOptions::parse(o.scaling);
}

RankingFiles read_files(const TrainRankerOptions& o) {
  LineOptions lines = o;
  if (!o.init.empty()) number_features(lines, heads::rank::load_ranker(o.init));
  data::LetorOptions reading = line_options(lines);
  reading.group_by_qid = o.group_by_qid;
  const std::vector<fs::path> train = files_of(o.train, o.fold, "train.txt");
  const std::vector<fs::path> valid = files_of(o.valid, o.fold, "vali.txt");
  const std::vector<fs::path> test = files_of(o.test, o.fold, "test.txt");
  check(!train.empty(), "give files to train on as --train, or a folder as --fold");
  std::vector<fs::path> inputs = {o.weights, o.list_weights};
  for (const auto& paths : {train, valid, test})
    inputs.insert(inputs.end(), paths.begin(), paths.end());
  check_outputs({{"--test-scores", o.test_scores}}, inputs);
  RankingFiles files;
  const auto read = [&](const std::vector<fs::path>& paths, const data::LetorOptions& how) {
    return o.cache ? data::read_letor_cached(paths, how) : data::read_letor(paths, how);
  };
  files.train = read(train, reading);
  const auto further = [&](const std::vector<fs::path>& paths) {
    return paths.empty() ? std::optional<data::RankingSet>()
                         : read(paths, reading.like(files.train));
  };
  files.valid = further(valid);
  files.test = further(test);
  check(files.test || o.test_scores.empty(), "--test-scores needs --test");
  if (!o.weights.empty()) files.weights = data::read_weights(o.weights, files.train);
  if (!o.list_weights.empty())
    files.list_weights = data::read_list_weights(o.list_weights, files.train);
  if (o.longest_list > 0) {
    check(!files.weights.defined(), "--longest-list leaves documents out, which --weights are for");
    files.train = data::sample_long_lists(files.train, {.longest = o.longest_list, .seed = o.seed});
  }
  return files;
}

heads::rank::SavedRanker make_ranker(const TrainRankerOptions& o, const data::RankingSet& train) {
  RandomState::current().set_seed(o.seed);
  const heads::rank::LossSpec loss = heads::rank::LossSpec::parse(o.loss);
  float largest = 0;
  for (const float label : train.label_span()) largest = std::max(largest, label);
  const int64_t outputs = heads::rank::output_columns(loss, static_cast<int64_t>(largest));
  if (!o.init.empty()) {
    heads::rank::SavedRanker saved = heads::rank::load_ranker(o.init);
    const heads::rank::RankerConfig& config = saved.ranker->config();
    check(config.features == train.feature_count(), o.init, " ranks by ", config.features,
          " features, the files have ", train.feature_count());
    check(config.outputs == outputs, o.init, " gives ", config.outputs,
          " numbers a document, the loss ", o.loss, " needs ", outputs);
    saved.loss = loss;
    saved.first_feature = train.first_index;
    saved.ranker->train();
    return saved;
  }
  heads::rank::RankerConfig config;
  config.features = train.feature_count();
  config.kind = heads::rank::parse_ranker_kind(o.model);
  config.hidden = o.hidden;
  config.norm = heads::rank::parse_ranker_norm(o.norm);
  config.input_norm = o.input_norm;
  config.dropout = o.dropout;
  config.noise = o.noise;
  config.outputs = outputs;
  config.dim = o.dim;
  config.blocks = o.blocks;
  config.heads = o.heads;
  return {
      .ranker = std::make_shared<heads::rank::Ranker>(config),
      .loss = loss,
      .scaling = data::FeatureScaling::fit(train, data::FeatureScalingOptions::parse(o.scaling)),
      .first_feature = train.first_index};
}

heads::rank::JudgeOptions judge_of(const TrainRankerOptions& o) {
  heads::rank::JudgeOptions judge{.metrics = {},
                                  .convention = heads::rank::Convention::preset(o.convention)};
  for (const std::string& name : o.metrics) {
    const auto metric = heads::rank::Metric::parse(name);
    check(std::find(judge.metrics.begin(), judge.metrics.end(), metric) == judge.metrics.end(),
          "--metrics has ", metric.name(), " twice");
    judge.metrics.push_back(metric);
  }
  check(!judge.metrics.empty(), "--metrics needs at least one");
  return judge;
}

void check_judged(const RankingFiles& files, const heads::rank::JudgeOptions& judging) {
  const auto check_set = [&](const char* option, const std::optional<data::RankingSet>& set) {
    if (!set) return;
    try {
      heads::rank::check_judged({set->offset_span(), set->label_span()}, judging.convention);
    } catch (const Error& error) {
      fail(option, ": ", error.what());
    }
  };
  check_set("to validate on", files.valid);
  check_set("to test on", files.test);
}

}  // namespace binade::examples
