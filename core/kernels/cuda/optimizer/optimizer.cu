// Fused optimizer updates over flat buffers, and the scalar kernels around them. Every update is
// one pass: gradient, master, moments and the compute copy move in 16-byte accesses, and nothing is
// written when the step found a non-finite gradient.
#include <binade/core/kernels/optimizer.h>

#include <cstring>

#include <binade/core/kernels/optimizer_rules.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kRun = 4;  // elements that a thread updates at a time

// What a launch reads besides its rule; the pointers may be null where no rule of the launch needs
// them.
template <class M>
struct Flat {
  const void* grad;
  DType grad_dtype;
  M* master;
  void* value;  // null: the master is the value
  DType value_dtype;
  M* moment1;  // as many as the rule has
  M* moment2;
  int64_t count;
  bool aligned;              // all buffers, for runs of kRun
  const float* grad_factor;  // null: 1
  const float* found_inf;
  const void* learning_rate;  // null: the rule has none
  DType learning_rate_dtype;
  const int64_t* step;  // null: the rule does not depend on it
};

// Updates elements [i, i + kCount).
template <int kCount, class M, class Rule>
__device__ __forceinline__ void update_run(const Flat<M>& flat, const Rule& rule, M factor,
                                           int64_t i) {
  M g[kCount], w[kCount], m[kCount] = {}, v[kCount] = {};
  load_run_as<kCount>(flat.grad, i, flat.grad_dtype, g);
  detail::load_run<kCount>(flat.master + i, w);
  if constexpr (Rule::kMoments > 0) detail::load_run<kCount>(flat.moment1 + i, m);
  if constexpr (Rule::kMoments > 1) detail::load_run<kCount>(flat.moment2 + i, v);
#pragma unroll
  for (int j = 0; j < kCount; ++j) rule.update(g[j] * factor, w[j], m[j], v[j]);
  detail::store_run<kCount>(flat.master + i, w);
  if constexpr (Rule::kMoments > 0) detail::store_run<kCount>(flat.moment1 + i, m);
  if constexpr (Rule::kMoments > 1) detail::store_run<kCount>(flat.moment2 + i, v);
  if (flat.value) store_run_as<kCount>(flat.value, i, flat.value_dtype, w);
}

template <class M, class Rule>
__global__ void __launch_bounds__(kBlock) update_flat(Flat<M> flat, Rule given) {
  if (*flat.found_inf != 0) return;
  __shared__ alignas(Rule) unsigned char memory[sizeof(Rule)];
  if (threadIdx.x == 0) {
    if (flat.step)
      given.prepare(
          flat.learning_rate ? load_as<double>(flat.learning_rate, 0, flat.learning_rate_dtype) : 0,
          *flat.step);
    memcpy(memory, &given, sizeof(Rule));
  }
  __syncthreads();
  const Rule rule = *reinterpret_cast<const Rule*>(memory);
  const M factor = flat.grad_factor ? static_cast<M>(*flat.grad_factor) : M(1);
  const int64_t step = int64_t{gridDim.x} * kBlock * kRun;
  for (int64_t i = (int64_t{blockIdx.x} * kBlock + threadIdx.x) * kRun; i < flat.count; i += step) {
    if (flat.aligned && i + kRun <= flat.count) {
      update_run<kRun>(flat, rule, factor, i);
    } else {
      const int64_t end = min(i + kRun, flat.count);
      for (int64_t j = i; j < end; ++j) update_run<1>(flat, rule, factor, j);
    }
  }
}

template <class M, class Rule>
void launch_update(const UpdateBuffers& buffers, const UpdateContext& context, const Rule& rule) {
  const auto& [grad, master, value, moment1, moment2] = buffers;
  const auto& [grad_factor, found_inf, learning_rate, step] = context;
  const bool copies = value.defined() && value.data() != master.data();
  bool aligned = true;
  for (const Array* x : {&grad, &master, &moment1, &moment2})
    aligned = aligned && is_run_aligned(*x, kRun);
  if (copies) aligned = aligned && is_run_aligned(value, kRun);
  const Flat<M> flat{grad.data(),
                     grad.dtype(),
                     device_data<M>(master),
                     copies ? value.data() : nullptr,
                     copies ? value.dtype() : DType::f32,
                     Rule::kMoments > 0 ? device_data<M>(moment1) : nullptr,
                     Rule::kMoments > 1 ? device_data<M>(moment2) : nullptr,
                     master.numel(),
                     aligned,
                     grad_factor.defined() ? device_data<float>(grad_factor) : nullptr,
                     device_data<float>(found_inf),
                     learning_rate.defined() ? learning_rate.data() : nullptr,
                     learning_rate.dtype(),
                     step.defined() ? device_data<int64_t>(step) : nullptr};
  launch(Rule::kName, update_flat<M, Rule>, grid_for(ceil_div(flat.count, kRun)), kBlock, 0, flat,
         rule);
}

__global__ void clip(const double* norm_sq, int64_t optimizers, const int64_t* first_bad,
                     int64_t groups, const float* inv_scale, float max_norm, float* found_inf,
                     float* norm, float* grad_factor) {
  double sum = 0;
  for (int64_t i = 0; i < optimizers; ++i) sum += norm_sq[i];
  bool bad = false;
  for (int64_t i = 0; i < groups; ++i) bad = bad || first_bad[i] != kNoBadGradient;
  const Clipping clipping = clip_to(sum, bad, *inv_scale, max_norm);
  *found_inf = clipping.found_inf;
  *norm = clipping.norm;
  *grad_factor = clipping.grad_factor;
}

__global__ void advance(int64_t* step, const float* found_inf) {
  if (*found_inf == 0) *step += 1;
}

struct ScalerPointers {
  float* scale;
  float* inv_scale;
  int32_t* tracker;
  int32_t* credit;
  int64_t* skipped;
  int32_t* at_floor;
};

__global__ void step_scaler(ScalerPointers state, ScalerSettings settings, const float* found_inf) {
  ScalerNumbers numbers{*state.scale,  *state.inv_scale, *state.tracker,
                        *state.credit, *state.skipped,   *state.at_floor};
  move_scale(numbers, settings, *found_inf != 0);
  *state.scale = numbers.scale;
  *state.inv_scale = numbers.inv_scale;
  *state.tracker = numbers.tracker;
  *state.credit = numbers.credit;
  *state.skipped = numbers.skipped;
  *state.at_floor = numbers.at_floor;
}

}  // namespace

void optimizer_update(const UpdateBuffers& buffers, const UpdateContext& context,
                      const UpdateSettings& settings) {
  const auto update = [&](auto zero) {
    using M = decltype(zero);
    with_rule<M>(settings, [&](const auto& rule) { launch_update<M>(buffers, context, rule); });
  };
  const DType dtype = buffers.master.dtype();
  if (dtype == DType::f64) return update(double{});
  check(dtype == DType::f32, "optimizer_update needs masters of f32 or f64, got ", name_of(dtype));
  update(float{});
}

void clip_factor(const Array& norm_sq, const Array& first_bad, const Array& inv_scale,
                 float max_norm, const Array& found_inf, const Array& norm,
                 const Array& grad_factor) {
  launch("clip_factor", clip, 1, 1, 0, device_data<double>(norm_sq), norm_sq.numel(),
         device_data<int64_t>(first_bad), first_bad.numel(), device_data<float>(inv_scale),
         max_norm, device_data<float>(found_inf), device_data<float>(norm),
         device_data<float>(grad_factor));
}

void update_scale(const ScalerState& state, const ScalerSettings& settings,
                  const Array& found_inf) {
  const ScalerPointers pointers{
      device_data<float>(state.scale),     device_data<float>(state.inv_scale),
      device_data<int32_t>(state.tracker), device_data<int32_t>(state.credit),
      device_data<int64_t>(state.skipped), device_data<int32_t>(state.at_floor)};
  launch("update_scale", step_scaler, 1, 1, 0, pointers, settings, device_data<float>(found_inf));
}

void advance_step(const Array& step, const Array& found_inf) {
  launch("advance_step", advance, 1, 1, 0, device_data<int64_t>(step),
         device_data<float>(found_inf));
}

}  // namespace binade::kernels::cuda
