// Optimizer updates over the flat buffers of one parameter group: one pass over memory, in tiles.
#include <binade/core/kernels/optimizer.h>

#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/optimizer_rules.h>

namespace binade::kernels::cpu {
namespace {

double read_scalar(const Array& scalar) {
  if (!scalar.defined()) return 0;
  return scalar.dtype() == DType::f64 ? scalar.data<double>()[0]
                                      : static_cast<double>(scalar.data<float>()[0]);
}

std::byte* element(const Array& array, int64_t i) {
  return static_cast<std::byte*>(array.data()) + i * size_of(array.dtype());
}

// Applies the rule to elements [0, count), with g[i]·factor as the gradient.
template <class M, class Rule>
void update_tile(const Rule& rule, const M* g, M factor, M* w, M* m, M* v, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    M unused{};
    if constexpr (Rule::kMoments == 0) {
      rule.update(g[i] * factor, w[i], unused, unused);
    } else if constexpr (Rule::kMoments == 1) {
      rule.update(g[i] * factor, w[i], m[i], unused);
    } else {
      rule.update(g[i] * factor, w[i], m[i], v[i]);
    }
  }
}

// Applies a prepared rule to the whole group, then rewrites the compute copy.
template <class M, class Rule>
void update_group(const Rule& given, const UpdateBuffers& buffers, M factor) {
  const auto& [gradient, master, value, moment1, moment2] = buffers;
  const bool separate_value = value.defined() && value.data() != master.data();
  const DType dtype = gradient.dtype();
  parallel_for(master.numel(), kGrain, [&](int64_t begin, int64_t end) {
    TileReader<M> reader;
    const Rule rule = given;  // a local copy, which the stores below cannot change
    for (int64_t start = begin; start < end; start += kTile) {
      const int64_t count = std::min(kTile, end - start);
      const M* g = reader.read(element(gradient, start), size_of(dtype), dtype, count);
      M* w = master.data<M>() + start;
      M* m = Rule::kMoments > 0 ? moment1.data<M>() + start : nullptr;
      M* v = Rule::kMoments > 1 ? moment2.data<M>() + start : nullptr;
      update_tile(rule, g, factor, w, m, v, count);
      if (separate_value) convert(w, dtype_of<M>(), element(value, start), value.dtype(), count);
    }
  });
}

}  // namespace

void optimizer_update(const UpdateBuffers& buffers, const UpdateContext& context,
                      const UpdateSettings& settings) {
  if (context.found_inf.data<float>()[0] != 0) return;
  visit_real(buffers.master.dtype(), "optimizer_update", [&](auto zero) {
    using M = decltype(zero);
    with_rule<M>(settings, [&](auto rule) {
      if (context.step.defined())
        rule.prepare(read_scalar(context.learning_rate), context.step.data<int64_t>()[0]);
      const Array& factor = context.grad_factor;
      update_group(rule, buffers,
                   factor.defined() ? static_cast<M>(factor.data<float>()[0]) : M{1});
    });
  });
}

}  // namespace binade::kernels::cpu
