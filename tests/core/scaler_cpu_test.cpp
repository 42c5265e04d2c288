// Gradient statistics, clip factor and the loss-scale automaton of the CPU.
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include <binade/core/kernels/optimizer.h>

#include "kernel_arrays.h"
#include "parsed_json.h"
#include "shared.h"

namespace binade::test {
namespace {

using namespace kernels;

Array scalar(double value, DType dtype) {
  return array_of({value}, {1}, dtype);
}

ScalerState state_of(double scale, int hysteresis = 1) {
  return {scalar(scale, DType::f32),      scalar(1 / scale, DType::f32), scalar(0, DType::i32),
          scalar(hysteresis, DType::i32), scalar(0, DType::i64),         scalar(0, DType::i32)};
}

// The scale after every step of a sequence of good (0) and bad (1) steps.
std::vector<double> scales_over(const std::vector<int>& bad, const ScalerState& state,
                                const ScalerSettings& settings) {
  std::vector<double> scales;
  for (const int found : bad) {
    cpu::update_scale(state, settings, scalar(found, DType::f32));
    scales.push_back(read(state.scale, 0));
    CHECK(read(state.inv_scale, 0) == 1 / scales.back());
  }
  return scales;
}

TEST_CASE("the loss scale follows PyTorch's trace", "[scaler][cpu]") {
  const auto path = shared_path("fixtures/grad_scaler.json");
  if (!path) return;
  const nlohmann::json traces = test::parsed(std::ifstream(*path));
  REQUIRE(traces.size() == 3);
  for (const nlohmann::json& trace : traces) {
    const nlohmann::json& given = trace.at("settings");
    ScalerSettings settings;
    settings.growth_factor = given.value("growth_factor", 2.0f);
    settings.backoff_factor = given.value("backoff_factor", 0.5f);
    settings.growth_interval = given.value("growth_interval", 2000);
    settings.min_scale = 1e-37f;  // PyTorch has neither floor nor ceiling
    settings.max_scale = 3e38f;
    CHECK(scales_over(trace.at("found_inf").get<std::vector<int>>(),
                      state_of(given.value("init_scale", 65536.0)),
                      settings) == trace.at("scale_after").get<std::vector<double>>());
  }
}

TEST_CASE("the loss scale stays between floor and ceiling", "[scaler][cpu]") {
  ScalerSettings settings;
  settings.growth_interval = 2;
  settings.min_scale = 2;
  settings.max_scale = 16;
  const ScalerState state = state_of(8);
  CHECK(scales_over({1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0}, state, settings) ==
        std::vector<double>{4, 2, 2, 2, 2, 4, 4, 8, 8, 16, 16, 16});
  CHECK(state.skipped.item() == 4);
  CHECK(state.tracker.item() == 0);
}

TEST_CASE("skips at the floor are counted until a good step", "[scaler][cpu]") {
  const ScalerState state = state_of(4);
  std::vector<double> counts;
  for (const int bad : {1, 1, 1, 1, 0, 1}) {
    cpu::update_scale(state, {}, scalar(bad, DType::f32));
    counts.push_back(state.at_floor.item());
  }
  CHECK(counts == std::vector<double>{0, 0, 1, 2, 0, 1});
}

TEST_CASE("hysteresis: once the credit is spent every bad step backs off", "[scaler][cpu]") {
  ScalerSettings settings;
  settings.hysteresis = 3;
  settings.growth_interval = 2;
  const ScalerState state = state_of(1024, 3);
  CHECK(scales_over({1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0}, state, settings) ==
        std::vector<double>{1024, 1024, 512, 256, 256, 256, 256, 128, 128, 256, 256, 256, 256});
  CHECK(state.credit.item() == 3);
  CHECK(state.skipped.item() == 8);
}

TEST_CASE("a constant scale stays, and skips are still counted", "[scaler][cpu]") {
  ScalerSettings settings;
  settings.dynamic = false;
  const ScalerState state = state_of(512);
  CHECK(scales_over({1, 0, 1}, state, settings) == std::vector<double>{512, 512, 512});
  CHECK(state.skipped.item() == 2);
}

Array chunk_statistics(const Array& grad, double inv_scale) {
  const Array statistics = Array::full({kernels::gradient_chunks(grad.numel()), 2}, 7, DType::f64);
  cpu::gradient_stats(grad, scalar(inv_scale, DType::f32), statistics);
  return statistics;
}

struct Statistics {
  double norm_sq, first_bad;
};
Statistics statistics_of(const Array& grad, double inv_scale) {
  const Array norm_sq = scalar(0, DType::f64), first_bad = scalar(0, DType::i64);
  const Array chunks = chunk_statistics(grad, inv_scale);
  cpu::add_gradient_stats(chunks, norm_sq, first_bad);
  return {norm_sq.item(), first_bad.item()};
}

constexpr double kNone = static_cast<double>(kNoBadGradient);

TEST_CASE("gradient statistics: norm and the first bad element", "[scaler][cpu]") {
  Random random(83);
  for (const DType dtype : kFloatingTypes)
    for (const int64_t n : {1, 1000, 1025, 200000}) {
      INFO(name_of(dtype) << " " << n);
      const Array grad = random_array({n}, dtype, random, 100);
      const auto expected = [&] {
        double total = 0;
        for (int64_t i = 0; i < n; ++i) {
          const double g = read(grad, i) / 1024;
          if (std::isfinite(g)) total += g * g;
        }
        return total;
      };
      Statistics got = statistics_of(grad, 1.0 / 1024);
      CHECK(got.norm_sq == Approx(expected()).epsilon(1e-6));
      CHECK(got.first_bad == kNone);

      const int64_t at = n / 2;
      write(grad, n - 1, NAN);
      write(grad, at, -INFINITY);
      got = statistics_of(grad, 1.0 / 1024);
      CHECK(got.norm_sq == Approx(expected()).epsilon(1e-6));
      CHECK(got.first_bad == 2 * static_cast<double>(at));
      write(grad, at, NAN);
      CHECK(statistics_of(grad, 1.0 / 1024).first_bad == 2 * static_cast<double>(at) + 1);
    }
}

TEST_CASE("gradient statistics: a chunk's depend on its own elements alone", "[scaler][cpu]") {
  Random random(84);
  constexpr int64_t kBytes = 2 * sizeof(double);
  for (const DType dtype : kFloatingTypes) {
    const int64_t n = 3 * kGradientChunk + 1001;
    const Array grad = random_array({n}, dtype, random, 100);
    write(grad, kGradientChunk + 5, INFINITY);
    write(grad, n - 2, NAN);
    const Array all = chunk_statistics(grad, 0.5);
    CHECK(std::isinf(read(all, 1)));
    CHECK(read(all, 3) == 2 * 5);
    CHECK(read(all, 7) == 2 * 999 + 1);
    for (int64_t chunk = 0; chunk < 4; ++chunk) {
      INFO(name_of(dtype) << " chunk " << chunk);
      const int64_t begin = chunk * kGradientChunk;
      const Array one =
          chunk_statistics(grad.slice(0, begin, std::min(begin + kGradientChunk, n)), 0.5);
      CHECK(std::memcmp(one.data(), all.slice(0, chunk).data(), kBytes) == 0);
    }
  }
  CHECK(statistics_of(Array::empty({0}, DType::f16), 1).first_bad == kNone);
}

TEST_CASE("gradients are unscaled before they are squared", "[scaler][cpu]") {
  // 2^13 squared over 10^4 elements overflows a half, and (2^100)² overflows a float.
  const Array halves = Array::full({10000}, 8192, DType::f16);
  CHECK(statistics_of(halves, 1.0 / 65536).norm_sq == 10000 * 0x1p-6);
  const Array floats = Array::full({3000}, 0x1p100, DType::f32);
  CHECK(statistics_of(floats, 0x1p-100).norm_sq == 3000);
}

TEST_CASE("the clip factor scales gradients to the largest norm", "[scaler][cpu]") {
  // {found_inf, norm, grad_factor}, for a scale of 8.
  const auto factors = [](double norm_sq, const std::vector<int64_t>& first_bad, float max_norm) {
    const Array found = scalar(9, DType::f32), norm = scalar(9, DType::f32);
    const Array factor = scalar(9, DType::f32);
    cpu::clip_factor(scalar(norm_sq, DType::f64),
                     Array::from(first_bad, {static_cast<int64_t>(first_bad.size())}),
                     scalar(0.125, DType::f32), max_norm, found, norm, factor);
    return std::vector<double>{found.item(), norm.item(), factor.item()};
  };
  const std::vector<int64_t> clean = {kNoBadGradient, kNoBadGradient};
  CHECK(factors(16, clean, 0) == std::vector<double>{0, 4, 0.125});    // no clipping asked for
  CHECK(factors(16, clean, 100) == std::vector<double>{0, 4, 0.125});  // below the limit
  CHECK(factors(0, clean, 1) == std::vector<double>{0, 0, 0.125});
  const std::vector<double> clipped = factors(16, clean, 1);  // by the norm, not by its square
  CHECK(clipped[0] == 0);
  CHECK(clipped[1] == 4);
  CHECK(clipped[2] == Approx(0.125 / (4 + 1e-6)));
  CHECK(factors(INFINITY, clean, 1)[0] == 1);
  CHECK(factors(16, {kNoBadGradient, 12}, 1)[0] == 1);
  CHECK(factors(16, {0, kNoBadGradient}, 1)[0] == 1);
}

}  // namespace
}  // namespace binade::test
