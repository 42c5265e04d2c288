// Optimizer updates over the flat buffers of one parameter group: one pass over memory, in tiles.
#include <binade/core/kernels/optimizer.h>

#include <cmath>

#include <binade/core/kernels/cpu/elementwise/map.h>

namespace binade::kernels::cpu {
namespace {

bool was_skipped(const Array& found_inf) {
  return found_inf.data<float>()[0] != 0;
}

double read_scalar(const Array& scalar) {
  return scalar.dtype() == DType::f64 ? scalar.data<double>()[0]
                                      : static_cast<double>(scalar.data<float>()[0]);
}

// A tile of a flat buffer.
std::byte* element(const Array& array, int64_t i) {
  return static_cast<std::byte*>(array.data()) + i * size_of(array.dtype());
}

// For every tile of the group: update(i, g) gives nothing back and changes element i of master and
// moments in place; g is the gradient to apply. make_update(master, m1, m2) makes it from the
// tile's pointers. Afterwards the compute copy is rewritten.
template <class C, class MakeUpdate>
void update_tiles(const UpdateBuffers& buffers, const Array& gradient, C factor,
                  const MakeUpdate& make_update) {
  const auto& [grad, master, value, moment1, moment2] = buffers;
  const bool separate_value = value.data() != master.data();
  const DType dtype = gradient.dtype();
  parallel_for(master.numel(), kGrain, [&](int64_t begin, int64_t end) {
    TileReader<C> reader;
    for (int64_t start = begin; start < end; start += kTile) {
      const int64_t count = std::min(kTile, end - start);
      const C* g = reader.read(element(gradient, start), size_of(dtype), dtype, count);
      C* w = master.data<C>() + start;
      C* m1 = moment1.defined() ? moment1.data<C>() + start : nullptr;
      C* m2 = moment2.defined() ? moment2.data<C>() + start : nullptr;
      const auto update = make_update(w, m1, m2);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) update(i, g[i] * factor);
      if (separate_value) convert(w, dtype_of<C>(), element(value, start), value.dtype(), count);
    }
  });
}

// Calls visitor(C{}, grad_factor, lr) unless the step is skipped.
template <class Visitor>
void visit_update(const UpdateBuffers& buffers, const UpdateContext& context, double lr_factor,
                  const char* op, const Visitor& visitor) {
  if (was_skipped(context.found_inf)) return;
  const double lr = read_scalar(context.learning_rate) * lr_factor;
  visit_real(buffers.master.dtype(), op, [&](auto zero) {
    using C = decltype(zero);
    visitor(zero, static_cast<C>(context.grad_factor.data<float>()[0]), static_cast<C>(lr));
  });
}

}  // namespace

void adamw_update(const UpdateBuffers& buffers, const UpdateContext& context,
                  const AdamWParams& params) {
  visit_update(
      buffers, context, params.lr_factor, "adamw_update",
      [&](auto zero, auto grad_factor, auto lr) {
        using C = decltype(zero);
        const double step = static_cast<double>(context.step.data<int64_t>()[0] + 1);
        const C unbias1 = static_cast<C>(1 / (1 - std::pow(params.beta1, step)));
        const C unbias2 = static_cast<C>(1 / (1 - std::pow(params.beta2, step)));
        const C beta1 = static_cast<C>(params.beta1), rest1 = static_cast<C>(1 - params.beta1);
        const C beta2 = static_cast<C>(params.beta2), rest2 = static_cast<C>(1 - params.beta2);
        const C eps = static_cast<C>(params.eps), decay = static_cast<C>(params.weight_decay);
        update_tiles<C>(buffers, buffers.grad, grad_factor, [=](C* w, C* m, C* v) {
          return [=](int64_t i, C g) {
            m[i] = beta1 * m[i] + rest1 * g;
            v[i] = beta2 * v[i] + rest2 * (g * g);
            const C direction = m[i] * unbias1 / (std::sqrt(v[i] * unbias2) + eps);
            w[i] -= lr * (direction + decay * w[i]);
          };
        });
      });
}

void sgd_update(const UpdateBuffers& buffers, const UpdateContext& context,
                const SgdParams& params) {
  visit_update(buffers, context, params.lr_factor, "sgd_update",
               [&](auto zero, auto grad_factor, auto lr) {
                 using C = decltype(zero);
                 const C momentum = static_cast<C>(params.momentum),
                         decay = static_cast<C>(params.weight_decay);
                 const bool first = context.step.data<int64_t>()[0] == 0;
                 const C old = first ? C{0} : momentum;
                 const C fresh = first ? C{1} : static_cast<C>(1 - params.dampening);
                 if (params.momentum == 0) {
                   update_tiles<C>(buffers, buffers.grad, grad_factor, [=](C* w, C*, C*) {
                     return [=](int64_t i, C g) { w[i] -= lr * (g + decay * w[i]); };
                   });
                 } else if (params.nesterov) {
                   update_tiles<C>(buffers, buffers.grad, grad_factor, [=](C* w, C* m, C*) {
                     return [=](int64_t i, C g) {
                       const C decayed = g + decay * w[i];
                       m[i] = old * m[i] + fresh * decayed;
                       w[i] -= lr * (decayed + momentum * m[i]);
                     };
                   });
                 } else {
                   update_tiles<C>(buffers, buffers.grad, grad_factor, [=](C* w, C* m, C*) {
                     return [=](int64_t i, C g) {
                       m[i] = old * m[i] + fresh * (g + decay * w[i]);
                       w[i] -= lr * m[i];
                     };
                   });
                 }
               });
}

void lion_update(const UpdateBuffers& buffers, const UpdateContext& context,
                 const LionParams& params) {
  visit_update(
      buffers, context, params.lr_factor, "lion_update", [&](auto zero, auto grad_factor, auto lr) {
        using C = decltype(zero);
        const C beta1 = static_cast<C>(params.beta1), rest1 = static_cast<C>(1 - params.beta1);
        const C beta2 = static_cast<C>(params.beta2), rest2 = static_cast<C>(1 - params.beta2);
        const C decay = static_cast<C>(params.weight_decay);
        update_tiles<C>(buffers, buffers.grad, grad_factor, [=](C* w, C* m, C*) {
          return [=](int64_t i, C g) {
            const C blend = beta1 * m[i] + rest1 * g;
            const C sign = blend > 0 ? C{1} : blend < 0 ? C{-1} : C{0};
            w[i] -= lr * (sign + decay * w[i]);
            m[i] = beta2 * m[i] + rest2 * g;
          };
        });
      });
}

void ema_update(const Array& average, const Array& master, double decay, const Array& found_inf) {
  if (was_skipped(found_inf)) return;
  visit_real(average.dtype(), "ema_update", [&](auto zero) {
    using C = decltype(zero);
    const C keep = static_cast<C>(decay), rest = static_cast<C>(1 - decay);
    map<C>([=](C old, C value) { return keep * old + rest * value; }, average, average, master);
  });
}

void apply_direction(const UpdateBuffers& buffers, const Array& direction,
                     const UpdateContext& context, double lr_factor, double weight_decay) {
  visit_update(buffers, context, lr_factor, "apply_direction", [&](auto zero, auto, auto lr) {
    using C = decltype(zero);
    const C keep = 1 - lr * static_cast<C>(weight_decay);
    update_tiles<C>(buffers, direction, C{1}, [=](C* w, C*, C*) {
      return [=](int64_t i, C d) { w[i] = w[i] * keep - lr * d; };
    });
  });
}

}  // namespace binade::kernels::cpu
