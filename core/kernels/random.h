// Random numbers: Philox4x32-10 (Salmon et al. 2011), counter-based, the same on CPU and CUDA.
// key = (seed); counter = (element / 4, place, step): see core/random.h for the layout.
#pragma once

#include <binade/core/kernels/kernels.h>
#include <binade/core/random.h>

namespace binade::kernels {

// What dropout multiplies a kept element by: 1/(1−p) in the compute type C, 0 where none is kept.
template <class C>
C kept_factor(double probability) {
  const C p = static_cast<C>(probability);
  return p < 1 ? 1 / (1 - p) : C{0};
}

// Contiguous outputs, f32/f64/f16/bf16. Draws are made in double and rounded to out's dtype (to a
// half by way of f32). uniform: uniform_in(low, high, word) of core/random.h.
BINADE_KERNEL(uniform, const Array& out, const PhiloxKey& key, double low, double high)
// fma(stddev, z, mean) with z of normal_pair() in core/random.h; CPU and CUDA agree within 2 ulp.
BINADE_KERNEL(normal, const Array& out, const PhiloxKey& key, double mean, double stddev)
// The same draws of the elements from `first` on, a multiple of 4, of a larger output.
namespace cpu {
void uniform(const Array& out, const PhiloxKey& key, double low, double high, int64_t first);
void normal(const Array& out, const PhiloxKey& key, double mean, double stddev, int64_t first);
}  // namespace cpu
// out (bool) = uniform < probability.
BINADE_KERNEL(bernoulli, const Array& out, const PhiloxKey& key, double probability)
// y = keep ? x·(1/(1−p)) : 0 with the mask of the key (element i kept iff uniform_i ≥ p, p rounded
// to f32, so that a key has one mask for all dtypes); p = 1 gives zeros. y = beta·y + that. The
// backward is the same kernel with the same key on dy.
BINADE_KERNEL(dropout, const Array& x, const PhiloxKey& key, double probability, const Array& y,
              float beta)

}  // namespace binade::kernels
