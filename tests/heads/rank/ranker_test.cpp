// Rankers: what they compute of lists, their files, and how they are trained.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include <catch2/catch.hpp>

#include <binade/amp/grad_scaler.h>
#include <binade/autograd/ops.h>
#include <binade/core/file.h>
#include <binade/core/random.h>
#include <binade/heads/rank/files.h>
#include <binade/heads/rank/training.h>
#include <binade/optim/adamw.h>
#include <binade/optim/sgd.h>

#include "gpu.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace rank = heads::rank;
using Kind = rank::RankerConfig::Kind;

namespace {

constexpr int64_t kFeatures = 5;

// Lists of these lengths; labels follow the first two features, with some noise.
data::RankingSet planted(const std::vector<int64_t>& lengths, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<int64_t> offsets = {0};
  std::vector<float> features, labels;
  std::vector<std::string> ids;
  for (const int64_t length : lengths) {
    for (int64_t d = 0; d < length; ++d) {
      std::vector<float> x(kFeatures);
      for (float& value : x) value = normal(random);
      const float quality = x[0] - 2 * x[1] + 0.1F * normal(random);
      labels.push_back(quality > 2 ? 2.0F : quality > 0.5F ? 1.0F : 0.0F);
      features.insert(features.end(), x.begin(), x.end());
    }
    offsets.push_back(offsets.back() + length);
    ids.push_back(std::to_string(ids.size()));
  }
  const std::vector<std::string_view> views(ids.begin(), ids.end());
  data::RankingSet set;
  set.offsets = Array::from(offsets, {static_cast<int64_t>(offsets.size())});
  set.features = Array::from(features, {offsets.back(), kFeatures});
  set.labels = Array::from(labels, {offsets.back()});
  set.query_ids = data::Texts(views);
  return set;
}

std::shared_ptr<const rank::ResidentSet> resident(const data::RankingSet& set, Device device = {},
                                                  DType dtype = DType::f32) {
  return std::make_shared<const rank::ResidentSet>(set, dtype, device);
}

rank::RankerConfig small_config(Kind kind) {
  rank::RankerConfig config;
  config.features = kFeatures;
  config.kind = kind;
  config.hidden = {16, 8};
  config.dim = 16;
  config.blocks = 2;
  config.heads = 2;
  return config;
}

// Every network, with every norm that it takes.
std::vector<rank::RankerConfig> all_configs() {
  std::vector<rank::RankerConfig> configs;
  for (const std::string& kind : rank::ranker_kinds())
    for (const std::string& norm : rank::ranker_norms())
      for (const bool input_norm : {false, true}) {
        configs.push_back(small_config(rank::parse_ranker_kind(kind)));
        configs.back().norm = rank::parse_ranker_norm(norm);
        configs.back().input_norm = input_norm;
      }
  return configs;
}
std::string described(const rank::RankerConfig& config) {
  return std::string(rank::name_of(config.kind)) + ", norm " +
         std::string(rank::name_of(config.norm)) + (config.input_norm ? ", input norm" : "");
}

const rank::LossSpec kLoss = rank::LossSpec::parse("lambdarank");
const amp::Preset kFull = amp::Preset::parse("fp32");

// What a ranker, an optimizer and a step make of batches.
struct Run {
  rank::Ranker ranker;
  amp::Preset preset;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<amp::GradScaler> scaler;
  std::unique_ptr<train::TrainStep> step;

  Run(const rank::RankerConfig& config, std::shared_ptr<const rank::ResidentSet> set,
      const rank::LossSpec& loss, const std::string& precision, bool capture = true,
      bool sgd = false)
      : ranker((RandomState::current().set_seed(7), config)),
        preset(amp::Preset::parse(precision)) {
    ranker.to(set->device());
    preset.apply(ranker);
    if (sgd)
      optimizer = std::make_unique<optim::Sgd>(optim::split_by_decay(ranker, 0));
    else
      optimizer = std::make_unique<optim::AdamW>(optim::split_by_decay(ranker, 0));
    scaler = std::make_unique<amp::GradScaler>(set->device(), amp::GradScalerOptions::of(preset));
    step =
        std::make_unique<train::TrainStep>(rank::ranking_loss(ranker, set, loss), *optimizer,
                                           *scaler, preset, train::StepOptions{.capture = capture});
  }
  std::vector<train::StepReport> run(const rank::ListBatches& batches, int64_t first,
                                     int64_t last) {
    for (int64_t index = first; index < last; ++index) {
      const train::StepData data = batches(index);
      step->run(index, data.micro_batches, data.normalisers, 0.01);
    }
    return step->take_reports(/*wait=*/true);
  }
  std::vector<float> weights() const {
    std::vector<float> all;
    for (const auto& [name, values] : ranker.state())
      for (const float value : values.to_vector<float>()) all.push_back(value);
    return all;
  }
};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("a ranker scores a list whatever its order and the lists beside it", "[rank]") {
  const data::RankingSet set = planted({7, 1, 12, 4});
  for (const rank::RankerConfig& config : all_configs()) {
    INFO(described(config));
    RandomState::current().set_seed(3);
    rank::Ranker ranker(config);
    ranker.eval();
    const std::vector<double> together = rank::score(ranker, *resident(set), kLoss, kFull);
    for (int64_t q = 0; q < set.queries(); ++q) {
      const int64_t list[] = {q};
      const data::RankingSet alone = data::select_queries(set, list);
      const std::vector<double> scores = rank::score(ranker, *resident(alone), kLoss, kFull);
      const int64_t first = set.offset_span()[static_cast<size_t>(q)];
      // The same documents, from the last to the first.
      data::RankingSet turned = alone;
      std::vector<float> features;
      for (int64_t d = alone.documents() - 1; d >= 0; --d) {
        const auto row =
            alone.feature_span().subspan(static_cast<size_t>(d * kFeatures), kFeatures);
        features.insert(features.end(), row.begin(), row.end());
      }
      turned.features = Array::from(features, {alone.documents(), kFeatures});
      std::vector<double> back = rank::score(ranker, *resident(turned), kLoss, kFull);
      std::reverse(back.begin(), back.end());
      for (size_t d = 0; d < scores.size(); ++d) {
        CHECK(scores[d] ==
              Approx(together[static_cast<size_t>(first) + d]).epsilon(1e-5).margin(1e-6));
        CHECK(back[d] == Approx(scores[d]).epsilon(1e-5).margin(1e-6));
      }
    }
    // Attention sees the rest of the list, the others do not.
    const int64_t third[] = {2};
    const data::RankingSet alone = data::select_queries(set, third);
    data::RankingSet shorter = data::sample_long_lists(alone, {.longest = 11, .seed = 1});
    const std::vector<double> fewer = rank::score(ranker, *resident(shorter), kLoss, kFull),
                              all = rank::score(ranker, *resident(alone), kLoss, kFull);
    double moved = 0;
    for (size_t d = 0; d < fewer.size(); ++d) {
      double nearest = 1e9;
      for (const double value : all) nearest = std::min(nearest, std::abs(value - fewer[d]));
      moved = std::max(moved, nearest);
    }
    CHECK((moved > 1e-5) == config.attends());
  }
}

TEST_CASE("an epoch has every list the loss learns from once", "[rank]") {
  data::RankingSet set = planted({3, 0, 5, 2, 6, 1, 4, 8});
  std::vector<float> labels = set.labels.to_vector<float>();
  for (int64_t d = 0; d < 3; ++d) labels[static_cast<size_t>(d)] = 1;  // all alike
  set.labels = Array::from(labels, {set.documents()});
  const auto on_device = resident(set);
  const rank::ListBatches batches(on_device, kLoss, {.lists = 2, .accumulation = 2, .bucket = 8});
  const int64_t usable = batches.usable_lists();
  REQUIRE(usable > 2);
  REQUIRE(usable < 6);
  std::multiset<int64_t> seen;
  for (int64_t step = 0; step < usable; ++step) {  // twice, as a step has two lists
    const train::StepData data = batches(step);
    REQUIRE(data.micro_batches.size() == 2);
    CHECK(data.normalisers.at("lists") == 2);
    for (const train::Batch& batch : data.micro_batches) {
      const auto rows = batch.at("rows").to_vector<int32_t>();
      const auto offsets = batch.at("offsets").to_vector<int64_t>();
      CHECK(rows.size() % 8 == 0);
      REQUIRE(offsets.size() == 2);
      REQUIRE(offsets[1] > 0);
      const auto& of = set.offset_span();
      const auto list = std::upper_bound(of.begin(), of.end(), rows[0]) - of.begin() - 1;
      CHECK(offsets[1] == of[static_cast<size_t>(list) + 1] - of[static_cast<size_t>(list)]);
      for (int64_t d = 0; d < offsets[1]; ++d)
        CHECK(rows[static_cast<size_t>(d)] == of[static_cast<size_t>(list)] + d);
      seen.insert(list);
    }
  }
  CHECK(seen.size() == static_cast<size_t>(2 * usable));
  for (const int64_t list : seen) CHECK(seen.count(list) == 2);
  CHECK(seen.count(0) == 0);
  CHECK(seen.count(1) == 0);

  CHECK_THROWS_WITH(rank::ListBatches(resident(planted({1, 1})), kLoss, {}),
                    Contains("learns from none of the 2 lists"));
  CHECK_THROWS_WITH(rank::ListBatches(on_device, kLoss, {.lists = 3, .accumulation = 2}),
                    Contains("micro-batches"));
}

TEST_CASE("a step does not depend on buckets or on micro-batches", "[rank]") {
  const auto set = resident(planted({9, 14, 3, 21, 7, 11, 5, 16}));
  for (const char* loss : {"lambdarank", "listnet", "mse"}) {
    for (const rank::RankerConfig& config : all_configs()) {
      INFO(loss << ", " << described(config));
      const rank::LossSpec spec = rank::LossSpec::parse(loss);
      const auto train = [&](int64_t bucket, int64_t accumulation) {
        // AdamW would make a whole step of the rounding of a gradient that is 0.
        Run run(config, set, spec, "fp32", true, /*sgd=*/true);
        const rank::ListBatches batches(
            set, spec,
            {.lists = 4, .accumulation = accumulation, .bucket = bucket, .list_numbers = true});
        const auto reports = run.run(batches, 0, 6);
        CHECK(std::isfinite(reports.back().loss));
        return std::pair(run.weights(), reports.back());
      };
      const auto [exact, report] = train(1, 1);
      const auto [filled, filled_report] = train(64, 1);
      CHECK(largest_difference(exact, filled) < 1e-5);
      CHECK(filled_report.loss == Approx(report.loss).epsilon(1e-4));
      if (config.has_batch_norm()) continue;  // whose statistics are those of a micro-batch
      const auto [split, split_report] = train(1, 2);
      CHECK(largest_difference(exact, split) < 1e-4);
      CHECK(split_report.scalars.at("ndcg") == Approx(report.scalars.at("ndcg")).epsilon(1e-4));
    }
  }
}

TEST_CASE("a ranker learns planted lists", "[rank]") {
  const std::vector<int64_t> lengths(60, 10);
  const auto set = resident(planted(lengths)), held_out = resident(planted(lengths, 2));
  const rank::JudgeOptions judge{.metrics = {rank::Metric::parse("ndcg@5")},
                                 .convention = rank::Convention::preset("skip")};
  for (const rank::RankerConfig& config : all_configs()) {
    INFO(described(config));
    Run run(config, set, kLoss, "fp32");
    run.ranker.eval();
    const train::Validation before = rank::validate(run.ranker, *held_out, kLoss, kFull, judge);
    run.ranker.train();
    const rank::ListBatches batches(set, kLoss, {.lists = 10, .list_numbers = true});
    run.run(batches, 0, 240);
    run.ranker.eval();
    const train::Validation after = rank::validate(run.ranker, *held_out, kLoss, kFull, judge);
    CHECK(*after.score > 0.95);
    CHECK(*after.score > *before.score);
    CHECK(after.scalars.at("NDCG@5") == *after.score);
    CHECK(after.loss < before.loss);
  }
}

TEST_CASE("every loss trains a ranker, with grades and with clicks", "[rank]") {
  // Longer than 10: swaps above the cut of lambda-precision would change nothing.
  data::RankingSet graded = planted({19, 14, 13, 21, 17, 11}), clicked = graded;
  std::vector<float> clicks = graded.labels.to_vector<float>();
  for (float& label : clicks) label = std::min(label, 1.0F);
  clicked.labels = Array::from(clicks, {graded.documents()});
  for (const rank::LossInfo& info : rank::loss_table()) {
    const rank::LossSpec spec = rank::LossSpec::parse(info.name);
    for (const int64_t largest : {1, 2}) {
      INFO(info.name << ", grades to " << largest);
      const auto set = resident(largest == 2 ? graded : clicked);
      rank::RankerConfig config = small_config(Kind::mlp);
      config.outputs = rank::output_columns(spec, largest);
      Run run(config, set, spec, "fp32");
      const rank::ListBatches batches(set, spec, {.lists = 3});
      for (const train::StepReport& report : run.run(batches, 0, 4)) {
        CHECK(std::isfinite(report.loss));
        CHECK(report.grad_norm > 0);
        CHECK(report.scalars.at("ndcg") > 0);
      }
      run.ranker.eval();
      CHECK(rank::score(run.ranker, *set, spec, kFull).size() ==
            static_cast<size_t>(graded.documents()));
    }
  }
}

TEST_CASE("a ranker comes back from its files", "[rank]") {
  const TemporaryFolder folder;
  const data::RankingSet set = planted({6, 3});
  const data::FeatureScaling scaling =
      data::FeatureScaling::fit(set, data::FeatureScalingOptions::parse("log1p,zscore"));
  for (const rank::RankerConfig& config : all_configs()) {
    INFO(described(config));
    Run run(config, resident(planted({9, 7, 8})), kLoss, "fp32");
    run.run(
        rank::ListBatches(resident(planted({9, 7, 8})), kLoss, {.lists = 2, .list_numbers = true}),
        0, 3);  // statistics that are not those of the beginning
    rank::Ranker& ranker = run.ranker;
    ranker.eval();
    rank::save_ranker(folder.path() / "r", ranker, kLoss, scaling);
    const rank::SavedRanker saved = rank::load_ranker(folder.path() / "r");
    REQUIRE(saved.scaling);
    CHECK(saved.loss.text() == kLoss.text());
    CHECK(rank::score(*saved.ranker, *resident(saved.scaling->apply(set)), kLoss, kFull) ==
          rank::score(ranker, *resident(scaling.apply(set)), kLoss, kFull));
  }
  rank::save_ranker(folder.path() / "r", rank::Ranker(small_config(Kind::mlp)), kLoss, {});
  CHECK_FALSE(rank::load_ranker(folder.path() / "r").scaling);
}

TEST_CASE("a ranker keeps how its features are numbered", "[rank]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r";
  const rank::Ranker ranker(small_config(Kind::linear));
  for (const std::optional<int> first : {std::optional<int>(0), std::optional<int>(1), {}}) {
    rank::save_ranker(path, ranker, kLoss, {}, first);
    CHECK(rank::load_ranker(path).first_feature == first);
  }
  rank::save_ranker(path, ranker, kLoss, {}, 1);
  std::string text = read_text_file(path / "ranker.json");
  text.replace(text.find("\"first_feature\": 1"), 18, "\"first_feature\": 2");
  write_text_file(path / "ranker.json", text);
  CHECK_THROWS_WITH(rank::load_ranker(path), Contains("first_feature"));
}

TEST_CASE("a set's features are in memory once, and its fingerprint knows all of it", "[rank]") {
  const data::RankingSet set = planted({4, 3});
  for (const DType dtype : {DType::f32, DType::f16}) {
    const auto kept = resident(set, {}, dtype);
    CHECK_FALSE(kept->host().features.defined());
    CHECK(kept->features().array().dtype() == dtype);
    CHECK((kept->features().array().data() == set.features.data()) == (dtype == DType::f32));
    CHECK(kept->fingerprint() == resident(set)->fingerprint());
  }
  std::vector<std::string> prints = {resident(set)->fingerprint()};
  const auto weights = [](int64_t count, float value) {
    return Array::full({count}, value, DType::f32);
  };
  for (const auto& [documents, lists] : {std::pair{weights(7, 2), Array()},
                                         {weights(7, 3), Array()},
                                         {Array(), weights(2, 2)},
                                         {Array(), weights(2, 3)},
                                         {weights(7, 2), weights(2, 2)}})
    prints.push_back(rank::ResidentSet(set, DType::f32, {}, documents, lists).fingerprint());
  data::RankingSet other = set;
  other.features = set.features.clone();
  other.features.data<float>()[17] += 1;
  prints.push_back(resident(other)->fingerprint());
  CHECK(std::set<std::string>(prints.begin(), prints.end()).size() == prints.size());
}

TEST_CASE("a ranker's folder of before there was a choice of norms is read", "[rank]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r";
  for (const bool layer_norm : {true, false}) {
    rank::RankerConfig config = small_config(Kind::mlp);
    config.norm = layer_norm ? rank::RankerConfig::Norm::layer : rank::RankerConfig::Norm::none;
    rank::save_ranker(path, rank::Ranker(config), kLoss, {});
    const std::string present = std::string(R"("norm": ")") + (layer_norm ? "layer" : "none") +
                                "\",\n    \"input_norm\": false";
    std::string text = read_text_file(path / "ranker.json");
    const size_t at = text.find(present);
    REQUIRE(at != std::string::npos);
    text.replace(at, present.size(),
                 std::string(R"("layer_norm": )") + (layer_norm ? "true" : "false"));
    write_text_file(path / "ranker.json", text);
    const rank::RankerConfig read = rank::load_ranker(path).ranker->config();
    CHECK(read.norm == config.norm);
    CHECK_FALSE(read.input_norm);
  }
}

TEST_CASE("files of a ranker that do not fit are refused", "[rank][bad_input]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "r";
  CHECK_THROWS_WITH(rank::load_ranker(path), Contains("holds no ranker"));
  const data::FeatureScaling scaling =
      data::FeatureScaling::fit(planted({6, 3}), data::FeatureScalingOptions::parse("zscore"));
  rank::save_ranker(path, rank::Ranker(small_config(Kind::mlp)), kLoss, scaling);
  const std::string good = read_text_file(path / "ranker.json");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    write_text_file(path / "ranker.json", text.replace(at, from.size(), to));
    return [path] { rank::load_ranker(path); };
  };
  CHECK_THROWS_WITH(with("\"features\": 5", "\"features\": 6")(), Contains("does not fit"));
  CHECK_THROWS_WITH(with("\"features\": 5", "\"features\": -1")(), Contains("features"));
  CHECK_THROWS_WITH(with("\"mlp\"", "\"forest\"")(), Contains("forest"));
  CHECK_THROWS_WITH(with("\"lambdarank\"", "\"lambdarunk\"")(), Contains("lambdarunk"));
  // Another meaning of the outputs would be scores of another ranker.
  for (const char* loss : {"mcrank", "ordinal", "mse"}) {
    const bool fits = std::string_view(loss) != "mcrank";
    INFO(loss);
    const auto load = with("\"lambdarank\"", concat('"', loss, '"'));
    if (fits)
      CHECK_NOTHROW(load());
    else
      CHECK_THROWS_WITH(load(),
                        Contains("1 numbers a document, which the loss mcrank does not read"));
  }
  CHECK_THROWS_WITH(with("\"outputs\": 1", "\"outputs\": 2")(),
                    Contains("2 numbers a document, which the loss lambdarank does not read"));
  CHECK_THROWS_WITH(with("\"format\": 1", "\"format\": 2")(), Contains("format 2"));
  CHECK_THROWS_WITH(with("\"dropout\": 0.0", "\"dropout\": \"x\"")(), Contains("dropout"));
  CHECK_THROWS_WITH(with("{", "[")(), Contains("ranker.json"));
  write_text_file(path / "ranker.json", good);
  // Another ranker's files, of the same shapes.
  const auto other = folder.path() / "other";
  rank::save_ranker(other, rank::Ranker(small_config(Kind::mlp)), kLoss,
                    data::FeatureScaling::fit(planted({7, 4}), scaling.options()));
  for (const char* name : {"scaling.safetensors", "model.safetensors"}) {
    INFO(name);
    const std::string own = read_text_file(path / name);
    write_text_file(path / name, read_text_file(other / name));
    CHECK_THROWS_WITH(rank::load_ranker(path),
                      Contains(name) && Contains("not what ranker.json was saved with"));
    // As of before there were checksums.
    CHECK_NOTHROW(with("\"checksums\"", "\"earlier\"")());
    write_text_file(path / "ranker.json", good);
    write_text_file(path / name, own);
    CHECK_NOTHROW(rank::load_ranker(path));
  }
  std::filesystem::remove(path / "scaling.safetensors");
  CHECK_THROWS_WITH(rank::load_ranker(path), Contains("scaling.safetensors"));
}

TEST_CASE("sizes of a ranker are checked", "[rank][bad_input]") {
  const auto with = [](const auto& change) {
    rank::RankerConfig config = small_config(Kind::attention);
    change(config);
    rank::Ranker ranker(config);
  };
  CHECK_THROWS_WITH(with([](auto& c) { c.features = 0; }), Contains("features"));
  CHECK_THROWS_WITH(with([](auto& c) { c.heads = 3; }), Contains("no multiple of its 3 heads"));
  CHECK_THROWS_WITH(with([](auto& c) { c.dropout = 1; }), Contains("dropout"));
  CHECK_THROWS_WITH(with([](auto& c) { c.hidden = {0}; }), Contains("hidden width"));
  // Before they are made, which would take minutes.
  CHECK_THROWS_WITH(with([](auto& c) { c.blocks = 1025; }), Contains("attention blocks"));
  CHECK_THROWS_WITH(with([](auto& c) { c.hidden.assign(1025, 1); }), Contains("hidden layers"));
  CHECK_THROWS_WITH(with([](auto& c) {
                      c.kind = Kind::dasalc;
                      c.hidden = {};
                    }),
                    Contains("needs hidden layers"));
  CHECK_THROWS_WITH(rank::parse_ranker_norm("group"), Contains("none, layer, batch"));
  const rank::Ranker ranker(small_config(Kind::attention));
  CHECK_THROWS_WITH(ranker.forward(Tensor(Array::zeros({3, 4}, DType::f32))),
                    Contains("a ranker of 5 features"));
  CHECK_THROWS_WITH(ranker.forward(Tensor(Array::zeros({3, kFeatures}, DType::f32))),
                    Contains("which list"));
}

TEST_CASE("a captured step of ranking gives the eager step's bits in every bucket",
          "[rank][cuda]") {
  require_gpu();
  std::vector<int64_t> lengths;
  for (int64_t q = 0; q < 64; ++q) lengths.push_back(2 + q * 7 % 90);
  for (const char* precision : {"fp32", "fp16"}) {
    INFO(precision);
    const auto set =
        resident(planted(lengths), test_gpu(), amp::Preset::parse(precision).compute_dtype);
    const rank::ListBatches batches(set, kLoss, {.lists = 8, .bucket = 64, .list_numbers = true});
    rank::RankerConfig config = small_config(Kind::mlp);
    config.dropout = 0.1;
    for (const bool batch_norm : {false, true}) {
      CAPTURE(batch_norm);
      config.input_norm = batch_norm;
      config.norm = batch_norm ? rank::RankerConfig::Norm::batch : rank::RankerConfig::Norm::layer;
      Run eager(config, set, kLoss, precision, false), graphs(config, set, kLoss, precision);
      const auto a = eager.run(batches, 0, 60), b = graphs.run(batches, 0, 60);
      CHECK(graphs.step->graphs() > 1);
      for (size_t i = 0; i < a.size(); ++i) CHECK(a[i].loss == b[i].loss);
      CHECK(eager.weights() == graphs.weights());  // and running statistics
    }
  }
}
