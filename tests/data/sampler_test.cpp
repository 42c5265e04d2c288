#include <binade/core/error.h>
#include <binade/data/permutation.h>
#include <binade/data/sampler.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

using namespace binade;
using namespace binade::data;
using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

namespace {

// Token i of the row is i, so a window shows where it is.
std::shared_ptr<const TokenSource> counting(int64_t count) {
  Ids tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0);
  return std::make_shared<MemoryTokens>(tokens, count);
}

// The windows that the samples of `batches` batches are.
std::vector<int64_t> windows(const WindowSampler& sampler, int64_t batches) {
  std::vector<int64_t> out;
  for (int64_t s = 0; s < batches; ++s) {
    for (int64_t b = 0; b < sampler.options().batch_size; ++b) {
      const int64_t start = sampler.window_start(s, b);
      REQUIRE(start % sampler.options().seq_len == 0);
      out.push_back(start / sampler.options().seq_len);
    }
  }
  return out;
}

std::set<int64_t> as_set(const std::vector<int64_t>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("a permutation is one, and depends on its key", "[data][sampler]") {
  for (const int64_t size : {1, 2, 3, 5, 16, 17, 1000, 4097}) {
    std::vector<int64_t> first, again, other_seed, other_stream, sorted(size);
    for (int64_t i = 0; i < size; ++i) {
      first.push_back(Permutation(size, 1, 0)(i));
      again.push_back(Permutation(size, 1, 0)(i));
      other_seed.push_back(Permutation(size, 2, 0)(i));
      other_stream.push_back(Permutation(size, 1, 1)(i));
    }
    CHECK(first == again);
    if (size >= 16) {
      CHECK(first != other_seed);
      CHECK(first != other_stream);
    }
    std::iota(sorted.begin(), sorted.end(), 0);
    for (auto* order : {&first, &other_seed, &other_stream}) {
      std::sort(order->begin(), order->end());
      CHECK(*order == sorted);
    }
  }
  const int64_t huge = int64_t{1} << 62;
  CHECK(Permutation(huge, 3, 4)(huge - 1) != Permutation(huge, 3, 4)(huge - 2));
  CHECK_THROWS_WITH(Permutation(0, 1, 1), Contains("cannot permute 0"));
}

TEST_CASE("a permutation mixes", "[data][sampler]") {
  // Over many keys, every place is hit about equally often: chi-square with 9 degrees of freedom is
  // below 27.9 with probability 0.999. Checked for the first and the last element, and for how far
  // apart neighbours land.
  constexpr int kSize = 10, kKeys = 20000;
  for (const int index : {0, 9}) {
    std::map<int64_t, int> places, distances;
    for (uint64_t key = 0; key < kKeys; ++key) {
      const Permutation permutation(kSize, key, 0);
      ++places[permutation(index)];
      ++distances[(permutation(index) - permutation((index + 1) % kSize) + kSize) % kSize];
    }
    double places_chi = 0, distances_chi = 0;
    for (int i = 0; i < kSize; ++i) {
      const double expected = kKeys / 10.0, apart = kKeys / 9.0;
      places_chi += (places[i] - expected) * (places[i] - expected) / expected;
      if (i > 0) distances_chi += (distances[i] - apart) * (distances[i] - apart) / apart;
    }
    CHECK(places_chi < 27.9);
    CHECK(distances_chi < 27.9);
    CHECK(distances[0] == 0);
  }
}

TEST_CASE("sequential order follows its formula", "[data][sampler]") {
  const int64_t B = 3, T = 4, N = 42;
  const WindowSampler sampler(counting(N),
                              {.batch_size = B, .seq_len = T, .order = DataOrder::kSequential});
  REQUIRE(sampler.window_count() == 10);  // (42 - 1) / 4
  Ids inputs(B * T), targets(B * T);
  for (int64_t s = 0; s < 3; ++s) {
    sampler.fill(s, inputs, targets);
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t t = 0; t < T; ++t) {
        CHECK(inputs[b * T + t] == (s * B + b) * T + t);
        CHECK(targets[b * T + t] == (s * B + b) * T + t + 1);
      }
    }
  }
  // Behind the last window it begins again: sample 9 is the last window, sample 10 the first.
  CHECK(windows(sampler, 5) == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4});
  CHECK(sampler.epochs(5) == Approx(1.5));
}

TEST_CASE("a shuffled epoch has every window once", "[data][sampler]") {
  const SamplerOptions options = {.batch_size = 4, .seq_len = 5, .seed = 11};
  const WindowSampler sampler(counting(501), options);
  REQUIRE(sampler.window_count() == 100);
  const auto order = windows(sampler, 75);  // three epochs
  std::vector<std::vector<int64_t>> epochs;
  for (int e = 0; e < 3; ++e)
    epochs.emplace_back(order.begin() + 100 * e, order.begin() + 100 * (e + 1));
  for (const auto& epoch : epochs) CHECK(as_set(epoch).size() == 100);
  CHECK(epochs[0] != epochs[1]);
  CHECK(epochs[1] != epochs[2]);
  // A sampler made anew goes on anywhere.
  const WindowSampler resumed(counting(501), options);
  Ids inputs(20), targets(20), inputs2(20), targets2(20);
  for (const int64_t batch : {0, 24, 25, 60}) {
    sampler.fill(batch, inputs, targets);
    resumed.fill(batch, inputs2, targets2);
    CHECK(inputs == inputs2);
    CHECK(targets == targets2);
    for (size_t i = 0; i < inputs.size(); ++i) CHECK(targets[i] == inputs[i] + 1);
  }
  SamplerOptions other = options;
  other.seed = 12;
  CHECK(windows(WindowSampler(counting(501), other), 25) != epochs[0]);
}

TEST_CASE("training and validation windows are apart", "[data][sampler]") {
  for (const DataOrder order : {DataOrder::kShuffled, DataOrder::kSequential}) {
    SamplerOptions options = {.batch_size = 1,
                              .seq_len = 3,
                              .order = order,
                              .seed = 5,
                              .split = DataSplit::kTrain,
                              .validation_fraction = 0.2};
    const auto tokens = counting(3 * 50 + 1);
    const WindowSampler train(tokens, options);
    options.split = DataSplit::kValidation;
    const WindowSampler validation(tokens, options);
    REQUIRE(train.window_count() == 40);
    REQUIRE(validation.window_count() == 10);
    auto all = as_set(windows(train, 40));
    const auto held_out = as_set(windows(validation, 10));
    CHECK(all.size() == 40);
    CHECK(held_out.size() == 10);
    all.insert(held_out.begin(), held_out.end());
    CHECK(all.size() == 50);
    CHECK(as_set(windows(validation, 20)) == held_out);  // in every epoch
    if (order == DataOrder::kSequential) CHECK(*held_out.begin() == 40);
  }
  // At least one window each, however small the fraction.
  SamplerOptions options = {
      .batch_size = 1, .seq_len = 3, .split = DataSplit::kValidation, .validation_fraction = 1e-6};
  CHECK(WindowSampler(counting(100), options).window_count() == 1);
  options.validation_fraction = 0.999999;
  CHECK(WindowSampler(counting(100), options).window_count() == 32);
}

TEST_CASE("a sampler refuses what it cannot do", "[data][sampler][bad_input]") {
  CHECK_THROWS_WITH(WindowSampler(counting(4), {.batch_size = 1, .seq_len = 4}),
                    Contains("4 tokens, too few for a window of 4"));
  CHECK(WindowSampler(counting(5), {.batch_size = 1, .seq_len = 4}).window_count() == 1);
  CHECK_THROWS_WITH(WindowSampler(counting(0), {.batch_size = 1, .seq_len = 4}),
                    Contains("0 tokens"));
  CHECK_THROWS_WITH(
      WindowSampler(counting(5), {.batch_size = 1, .seq_len = 4, .split = DataSplit::kTrain}),
      Contains("a training and a validation window"));
  CHECK_THROWS_WITH(WindowSampler(counting(9), {.batch_size = 0, .seq_len = 4}),
                    Contains("0 rows"));
  CHECK_THROWS_WITH(WindowSampler(counting(9), {.batch_size = 1, .seq_len = 0}),
                    Contains("0 tokens"));
  for (const double fraction : {0.0, 1.0, -1.0, std::nan("")}) {
    CHECK_THROWS_WITH(WindowSampler(counting(90), {.batch_size = 1,
                                                   .seq_len = 4,
                                                   .split = DataSplit::kTrain,
                                                   .validation_fraction = fraction}),
                      Contains("validation fraction"));
  }
  const WindowSampler sampler(counting(90), {.batch_size = 2, .seq_len = 4});
  Ids small(7), right(8);
  CHECK_THROWS_WITH(sampler.fill(0, small, right), Contains("8 tokens"));
  CHECK_THROWS_WITH(sampler.fill(-1, right, right), Contains("no batch -1"));
}
