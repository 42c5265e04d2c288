// The pass over the gradients and the loss-scale automaton (specs: mixed precision).
#include <cmath>
#include <limits>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/optimizer.h>

namespace binade::kernels::cpu {
namespace {

struct Statistics {
  double norm_sq = 0;
  int64_t first_bad = kNoBadGradient;  // 2·position + (1 if NaN)
};

// Of `count` gradients g; positions count from `begin`.
template <class C>
Statistics statistics_of(const C* g, C inv_scale, int64_t count, int64_t begin) {
  const C sum = sum_of<C>(count, [=](int64_t i) {
    const C unscaled = g[i] * inv_scale;
    return unscaled * unscaled;
  });
  if (std::isfinite(sum)) return {static_cast<double>(sum), kNoBadGradient};
  // Rare: a bad gradient, or a sum beyond the range of C.
  Statistics result;
  for (int64_t i = 0; i < count; ++i) {
    const C unscaled = g[i] * inv_scale;
    if (std::isfinite(g[i]))
      result.norm_sq += static_cast<double>(unscaled * unscaled);
    else if (result.first_bad == kNoBadGradient)
      result.first_bad = 2 * (begin + i) + (std::isnan(g[i]) ? 1 : 0);
  }
  return result;
}

}  // namespace

void gradient_stats(const Array& grad, const Array& inv_scale, const Array& norm_sq,
                    const Array& first_bad) {
  constexpr int64_t kChunk = 65536;
  const DType dtype = grad.dtype();
  const int64_t numel = grad.numel();
  std::vector<Statistics> chunks(static_cast<size_t>((numel + kChunk - 1) / kChunk));
  visit_real(dtype, "gradient_stats", [&](auto zero) {
    using C = decltype(zero);
    const C factor = static_cast<C>(inv_scale.data<float>()[0]);
    const auto* data = static_cast<const std::byte*>(grad.data());
    parallel_for(numel, kChunk, [&](int64_t begin, int64_t end) {
      TileReader<C> reader;
      Statistics& total = chunks[static_cast<size_t>(begin / kChunk)];
      for (int64_t i = begin; i < end; i += kTile) {
        const int64_t count = std::min(kTile, end - i);
        const C* g = reader.read(data + i * size_of(dtype), size_of(dtype), dtype, count);
        const Statistics tile = statistics_of(g, factor, count, i);
        total.norm_sq += tile.norm_sq;
        total.first_bad = std::min(total.first_bad, tile.first_bad);
      }
    });
  });
  double& sum = norm_sq.data<double>()[0];
  int64_t& first = first_bad.data<int64_t>()[0];
  first = kNoBadGradient;
  for (const Statistics& chunk : chunks) {
    sum += chunk.norm_sq;
    first = std::min(first, chunk.first_bad);
  }
}

void clip_factor(const Array& norm_sq, const Array& first_bad, const Array& inv_scale,
                 float max_norm, const Array& found_inf, const Array& norm,
                 const Array& grad_factor) {
  const double sum = norm_sq.data<double>()[0];
  const int64_t* positions = first_bad.data<int64_t>();
  const bool bad = !std::isfinite(sum) ||
                   std::any_of(positions, positions + first_bad.numel(),
                               [](int64_t position) { return position != kNoBadGradient; });
  const float length = static_cast<float>(std::sqrt(sum));
  const float clip = max_norm > 0 ? std::min(1.0f, max_norm / (length + 1e-6f)) : 1.0f;
  found_inf.data<float>()[0] = bad ? 1.0f : 0.0f;
  norm.data<float>()[0] = length;
  grad_factor.data<float>()[0] = inv_scale.data<float>()[0] * clip;
}

void update_scale(const ScalerState& state, const ScalerSettings& settings,
                  const Array& found_inf) {
  float& scale = state.scale.data<float>()[0];
  int32_t& tracker = state.tracker.data<int32_t>()[0];
  int32_t& credit = state.credit.data<int32_t>()[0];
  int32_t& at_floor = state.at_floor.data<int32_t>()[0];
  const bool bad = found_inf.data<float>()[0] != 0;
  if (bad) ++state.skipped.data<int64_t>()[0];
  at_floor = bad && scale <= settings.min_scale ? at_floor + 1 : 0;
  if (!settings.dynamic) return;

  if (bad) {
    tracker = 0;
    credit = std::max(credit - 1, 0);
    if (credit == 0) scale = std::max(settings.min_scale, scale * settings.backoff_factor);
  } else {
    credit = settings.hysteresis;
    if (++tracker >= settings.growth_interval) {
      scale = std::min(settings.max_scale, scale * settings.growth_factor);
      tracker = 0;
    }
  }
  state.inv_scale.data<float>()[0] = 1 / scale;
}

void advance_step(const Array& step, const Array& found_inf) {
  if (found_inf.data<float>()[0] == 0) ++step.data<int64_t>()[0];
}

}  // namespace binade::kernels::cpu
