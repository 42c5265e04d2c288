// The pass over the gradients and the loss-scale automaton (specs: mixed precision).
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/optimizer.h>
#include <binade/core/kernels/optimizer_rules.h>

namespace binade::kernels::cpu {
namespace {

constexpr double kAllFinite = std::numeric_limits<double>::infinity();

// A row of the statistics, as it lies in memory.
struct Chunk {
  double norm_sq = 0;
  double first_bad = kAllFinite;  // 2·position + (1 if NaN)
};
static_assert(sizeof(Chunk) == 2 * sizeof(double));

// Of `count` gradients g; positions count from `begin`.
template <class C>
Chunk statistics_of(const C* g, C inv_scale, int64_t count, int64_t begin) {
  const C sum = sum_of<C>(count, [=](int64_t i) {
    const C unscaled = g[i] * inv_scale;
    return unscaled * unscaled;
  });
  if (std::isfinite(sum)) return {static_cast<double>(sum), kAllFinite};
  // Rare: a bad gradient, or a sum beyond the range of C.
  Chunk result;
  for (int64_t i = 0; i < count; ++i) {
    const C unscaled = g[i] * inv_scale;
    if (std::isfinite(g[i]))
      result.norm_sq += static_cast<double>(unscaled * unscaled);
    else if (result.first_bad == kAllFinite)
      result.first_bad = static_cast<double>(2 * (begin + i) + (std::isnan(g[i]) ? 1 : 0));
  }
  return result;
}

}  // namespace

void gradient_stats(const Array& grad, const Array& inv_scale, const Array& statistics) {
  const DType dtype = grad.dtype();
  const int64_t numel = grad.numel();
  auto* chunks = static_cast<Chunk*>(statistics.data());
  visit_real(dtype, "gradient_stats", [&](auto zero) {
    using C = decltype(zero);
    const C factor = static_cast<C>(inv_scale.data<float>()[0]);
    const auto* data = static_cast<const std::byte*>(grad.data());
    parallel_for(statistics.size(0), 8, [&](int64_t first, int64_t last) {
      TileReader<C> reader;
      for (int64_t chunk = first; chunk < last; ++chunk) {
        const int64_t begin = chunk * kGradientChunk;
        const int64_t end = std::min(begin + kGradientChunk, numel);
        Chunk total;
        for (int64_t i = begin; i < end; i += kTile) {
          const int64_t count = std::min(kTile, end - i);
          const C* g = reader.read(data + i * size_of(dtype), size_of(dtype), dtype, count);
          const Chunk tile = statistics_of(g, factor, count, i - begin);
          total.norm_sq += tile.norm_sq;
          total.first_bad = std::min(total.first_bad, tile.first_bad);
        }
        chunks[chunk] = total;
      }
    });
  });
}

void add_gradient_stats(const Array& statistics, const Array& norm_sq, const Array& first_bad) {
  const auto* chunks = static_cast<const Chunk*>(statistics.data());
  double& sum = norm_sq.data<double>()[0];
  int64_t& first = first_bad.data<int64_t>()[0];
  first = kNoBadGradient;
  for (int64_t chunk = 0; chunk < statistics.size(0); ++chunk) {
    sum += chunks[chunk].norm_sq;
    if (first == kNoBadGradient && chunks[chunk].first_bad != kAllFinite)
      first = 2 * kGradientChunk * chunk + static_cast<int64_t>(chunks[chunk].first_bad);
  }
}

void clip_factor(const Array& norm_sq, const Array& first_bad, const Array& inv_scale,
                 float max_norm, const Array& found_inf, const Array& norm,
                 const Array& grad_factor) {
  const double* sums = norm_sq.data<double>();
  const int64_t* positions = first_bad.data<int64_t>();
  const bool bad = std::any_of(positions, positions + first_bad.numel(),
                               [](int64_t position) { return position != kNoBadGradient; });
  const Clipping clipping = clip_to(std::accumulate(sums, sums + norm_sq.numel(), 0.0), bad,
                                    inv_scale.data<float>()[0], max_norm);
  found_inf.data<float>()[0] = clipping.found_inf;
  norm.data<float>()[0] = clipping.norm;
  grad_factor.data<float>()[0] = clipping.grad_factor;
}

void update_scale(const ScalerState& state, const ScalerSettings& settings,
                  const Array& found_inf) {
  float& scale = state.scale.data<float>()[0];
  float& inv_scale = state.inv_scale.data<float>()[0];
  int32_t& tracker = state.tracker.data<int32_t>()[0];
  int32_t& credit = state.credit.data<int32_t>()[0];
  int64_t& skipped = state.skipped.data<int64_t>()[0];
  int32_t& at_floor = state.at_floor.data<int32_t>()[0];
  ScalerNumbers numbers{scale, inv_scale, tracker, credit, skipped, at_floor};
  move_scale(numbers, settings, found_inf.data<float>()[0] != 0);
  scale = numbers.scale;
  inv_scale = numbers.inv_scale;
  tracker = numbers.tracker;
  credit = numbers.credit;
  skipped = numbers.skipped;
  at_floor = numbers.at_floor;
}

void advance_step(const Array& step, const Array& found_inf) {
  if (found_inf.data<float>()[0] == 0) ++step.data<int64_t>()[0];
}

}  // namespace binade::kernels::cpu
