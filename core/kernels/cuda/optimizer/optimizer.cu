// Fused optimizer updates over flat buffers, and the scalar kernels around them. Every update is
// one pass: gradient, master, moments and the compute copy move in 16-byte accesses, and nothing is
// written when the step found a non-finite gradient.
#include <binade/core/kernels/optimizer.h>

#include <cmath>
#include <cstring>

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kRun = 4;  // elements that a thread updates at a time

// What a rule reads besides the elements; the pointers may be null where no rule of the launch
// needs them.
template <class M>
struct Flat {
  const void* grad;
  DType grad_dtype;
  M* master;
  void* value;  // null: the master is the value
  DType value_dtype;
  M* moment1;  // null: not used
  M* moment2;
  int64_t count;
  bool aligned;              // all buffers, for runs of kRun
  const float* grad_factor;  // null: 1
  const float* found_inf;
  const void* learning_rate;  // null: the rule has none
  DType learning_rate_dtype;
  const int64_t* step;
};

// A rule holds its settings as the masters' type, takes what depends on the step once per block
// (`prepare`), then updates elements.

template <class M>
struct AdamW {
  M lr_factor, beta1, rest1, beta2, rest2, eps, weight_decay;  // rest = 1 − β
  double exact_beta1, exact_beta2;
  M lr = 0, unbias1 = 0, unbias2 = 0;  // 1/(1 − βᵗ)

  explicit AdamW(const AdamWParams& p)
      : lr_factor(p.lr_factor),
        beta1(p.beta1),
        rest1(1 - p.beta1),
        beta2(p.beta2),
        rest2(1 - p.beta2),
        eps(p.eps),
        weight_decay(p.weight_decay),
        exact_beta1(p.beta1),
        exact_beta2(p.beta2) {}
  __device__ void prepare(M learning_rate, int64_t steps_done) {
    const double t = static_cast<double>(steps_done + 1);
    lr = learning_rate * lr_factor;
    unbias1 = static_cast<M>(1.0 / (1.0 - pow(exact_beta1, t)));
    unbias2 = static_cast<M>(1.0 / (1.0 - pow(exact_beta2, t)));
  }
  __device__ __forceinline__ void update(M g, M& w, M& m, M& v) const {
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * (g * g);
    w -= lr * (m * unbias1 / (sqrt(v * unbias2) + eps) + weight_decay * w);
  }
};

template <class M>
struct Sgd {
  M lr_factor, momentum, fresh, weight_decay;  // fresh = 1 − dampening
  bool nesterov;
  bool first_step = false;
  M lr = 0;

  explicit Sgd(const SgdParams& p)
      : lr_factor(p.lr_factor),
        momentum(p.momentum),
        fresh(1 - p.dampening),
        weight_decay(p.weight_decay),
        nesterov(p.nesterov) {}
  __device__ void prepare(M learning_rate, int64_t steps_done) {
    lr = learning_rate * lr_factor;
    first_step = steps_done == 0;
  }
  __device__ __forceinline__ void update(M g, M& w, M& m, M&) const {
    g += weight_decay * w;
    if (momentum != M(0)) {
      m = first_step ? g : momentum * m + fresh * g;
      g = nesterov ? g + momentum * m : m;
    }
    w -= lr * g;
  }
};

template <class M>
struct Lion {
  M lr_factor, beta1, rest1, beta2, rest2, weight_decay;
  M lr = 0;

  explicit Lion(const LionParams& p)
      : lr_factor(p.lr_factor),
        beta1(p.beta1),
        rest1(1 - p.beta1),
        beta2(p.beta2),
        rest2(1 - p.beta2),
        weight_decay(p.weight_decay) {}
  __device__ void prepare(M learning_rate, int64_t) { lr = learning_rate * lr_factor; }
  __device__ __forceinline__ void update(M g, M& w, M& m, M&) const {
    const M blend = beta1 * m + rest1 * g;
    const M sign = static_cast<M>((blend > M(0)) - (blend < M(0)));
    w -= lr * (sign + weight_decay * w);
    m = beta2 * m + rest2 * g;
  }
};

// The direction takes the gradient's place.
template <class M>
struct Direction {
  M lr_factor, weight_decay;
  M lr = 0;

  __device__ void prepare(M learning_rate, int64_t) { lr = learning_rate * lr_factor; }
  __device__ __forceinline__ void update(M direction, M& w, M&, M&) const {
    w = w * (M(1) - lr * weight_decay) - lr * direction;
  }
};

// The average is the master, what it follows takes the gradient's place.
template <class M>
struct MovingAverage {
  M keep, rest;

  __device__ void prepare(M, int64_t) {}
  __device__ __forceinline__ void update(M value, M& average, M&, M&) const {
    average = keep * average + rest * value;
  }
};

// Updates elements [i, i + kCount).
template <int kCount, class M, class Rule>
__device__ __forceinline__ void update_run(const Flat<M>& flat, const Rule& rule, M factor,
                                           int64_t i) {
  M g[kCount], w[kCount], m[kCount] = {}, v[kCount] = {};
  load_run_as<kCount>(flat.grad, i, flat.grad_dtype, g);
  detail::load_run<kCount>(flat.master + i, w);
  if (flat.moment1) detail::load_run<kCount>(flat.moment1 + i, m);
  if (flat.moment2) detail::load_run<kCount>(flat.moment2 + i, v);
#pragma unroll
  for (int j = 0; j < kCount; ++j) rule.update(g[j] * factor, w[j], m[j], v[j]);
  detail::store_run<kCount>(flat.master + i, w);
  if (flat.moment1) detail::store_run<kCount>(flat.moment1 + i, m);
  if (flat.moment2) detail::store_run<kCount>(flat.moment2 + i, v);
  if (flat.value) store_run_as<kCount>(flat.value, i, flat.value_dtype, w);
}

template <class M, class Rule>
__global__ void __launch_bounds__(kBlock) update_flat(Flat<M> flat, Rule given) {
  if (*flat.found_inf != 0) return;
  __shared__ alignas(Rule) unsigned char memory[sizeof(Rule)];
  if (threadIdx.x == 0) {
    if (flat.learning_rate)
      given.prepare(load_as<M>(flat.learning_rate, 0, flat.learning_rate_dtype), *flat.step);
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
void launch_update(const char* name, const UpdateBuffers& buffers, const Array& grad,
                   const float* grad_factor, const Array& found_inf, const Array& learning_rate,
                   const Array& step, const Rule& rule) {
  const Array& value = buffers.value;
  const bool copies = value.defined() && value.data() != buffers.master.data();
  const auto data_or_null = [](const Array& x) {
    return x.defined() ? device_data<M>(x) : nullptr;
  };
  bool aligned = true;
  for (const Array* x : {&grad, &buffers.master, &buffers.moment1, &buffers.moment2})
    aligned = aligned && is_run_aligned(*x, kRun);
  if (copies) aligned = aligned && is_run_aligned(value, kRun);
  const Flat<M> flat{grad.data(),
                     grad.dtype(),
                     device_data<M>(buffers.master),
                     copies ? value.data() : nullptr,
                     copies ? value.dtype() : DType::f32,
                     data_or_null(buffers.moment1),
                     data_or_null(buffers.moment2),
                     buffers.master.numel(),
                     aligned,
                     grad_factor,
                     device_data<float>(found_inf),
                     learning_rate.defined() ? learning_rate.data() : nullptr,
                     learning_rate.dtype(),
                     step.defined() ? device_data<int64_t>(step) : nullptr};
  launch(name, update_flat<M, Rule>, grid_for(ceil_div(flat.count, kRun)), kBlock, 0, flat, rule);
}

// Calls run(M{}) with the master's type.
template <class Run>
void visit_master(const char* name, const Array& master, const Run& run) {
  if (master.dtype() == DType::f64) {
    run(double{});
  } else {
    check(master.dtype() == DType::f32, name, " needs masters of f32 or f64, got ",
          name_of(master.dtype()));
    run(float{});
  }
}

// An update by Rule<M>{params}.
template <template <class> class Rule, class Params>
void update(const char* name, const UpdateBuffers& buffers, const UpdateContext& context,
            const Params& params) {
  visit_master(name, buffers.master, [&](auto element) {
    using M = decltype(element);
    launch_update<M>(name, buffers, buffers.grad, device_data<float>(context.grad_factor),
                     context.found_inf, context.learning_rate, context.step, Rule<M>(params));
  });
}

__global__ void clip(const double* norm_sq, const int64_t* first_bad, int64_t groups,
                     const float* inv_scale, float max_norm, float* found_inf, float* norm,
                     float* grad_factor) {
  bool bad = !isfinite(*norm_sq);
  for (int64_t i = 0; i < groups; ++i) bad = bad || first_bad[i] != kNoBadGradient;
  const float length = static_cast<float>(sqrt(*norm_sq));
  const float clip = max_norm > 0 ? fminf(1.0f, max_norm / (length + 1e-6f)) : 1.0f;
  *found_inf = bad ? 1.0f : 0.0f;
  *norm = length;
  *grad_factor = *inv_scale * clip;
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
  const bool bad = *found_inf != 0;
  float scale = *state.scale;
  if (bad) *state.skipped += 1;
  *state.at_floor = bad && scale <= settings.min_scale ? *state.at_floor + 1 : 0;
  if (!settings.dynamic) return;
  if (bad) {
    *state.tracker = 0;
    *state.credit = max(*state.credit - 1, 0);
    if (*state.credit == 0) scale = fmaxf(settings.min_scale, scale * settings.backoff_factor);
  } else {
    *state.credit = settings.hysteresis;
    *state.tracker += 1;
    if (*state.tracker >= settings.growth_interval) {
      scale = fminf(settings.max_scale, scale * settings.growth_factor);
      *state.tracker = 0;
    }
  }
  *state.scale = scale;
  *state.inv_scale = 1.0f / scale;
}

}  // namespace

void adamw_update(const UpdateBuffers& buffers, const UpdateContext& context,
                  const AdamWParams& params) {
  update<AdamW>("adamw_update", buffers, context, params);
}

void sgd_update(const UpdateBuffers& buffers, const UpdateContext& context,
                const SgdParams& params) {
  update<Sgd>("sgd_update", buffers, context, params);
}

void lion_update(const UpdateBuffers& buffers, const UpdateContext& context,
                 const LionParams& params) {
  update<Lion>("lion_update", buffers, context, params);
}

void apply_direction(const UpdateBuffers& buffers, const Array& direction,
                     const UpdateContext& context, double lr_factor, double weight_decay) {
  visit_master("apply_direction", buffers.master, [&](auto element) {
    using M = decltype(element);
    const UpdateBuffers written{{}, buffers.master, buffers.value, {}, {}};
    launch_update<M>("apply_direction", written, direction.contiguous(), nullptr, context.found_inf,
                     context.learning_rate, context.step,
                     Direction<M>{static_cast<M>(lr_factor), static_cast<M>(weight_decay)});
  });
}

void ema_update(const Array& average, const Array& master, double decay, const Array& found_inf) {
  visit_master("ema_update", average, [&](auto element) {
    using M = decltype(element);
    const UpdateBuffers written{{}, average, {}, {}, {}};
    launch_update<M>("ema_update", written, master, nullptr, found_inf, {}, {},
                     MovingAverage<M>{static_cast<M>(decay), static_cast<M>(1 - decay)});
  });
}

void clip_factor(const Array& norm_sq, const Array& first_bad, const Array& inv_scale,
                 float max_norm, const Array& found_inf, const Array& norm,
                 const Array& grad_factor) {
  launch("clip_factor", clip, 1, 1, 0, device_data<double>(norm_sq),
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
