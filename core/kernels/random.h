// Random numbers: Philox4x32-10 (Salmon et al. 2011), counter-based, the same on CPU and CUDA.
// key = (seed); counter = (element / 4, place, step): see core/random.h for the layout.
#pragma once

#include <binade/core/kernels/kernels.h>
#include <binade/core/random.h>

namespace binade::kernels {

// Contiguous outputs, f32/f64/f16/bf16. Draws are made in double and rounded to out's dtype (to a
// half by way of f32). uniform: uniform_in(low, high, word) of core/random.h.
BINADE_KERNEL(uniform, const Array& out, const PhiloxKey& key, double low, double high)
// fma(stddev, z, mean) with z of normal_pair() in core/random.h; CPU and CUDA agree within 2 ulp.
BINADE_KERNEL(normal, const Array& out, const PhiloxKey& key, double mean, double stddev)
// out (bool) = uniform < probability.
BINADE_KERNEL(bernoulli, const Array& out, const PhiloxKey& key, double probability)
// y = keep ? x·(1/(1−p)) : 0 with the mask of the key (element i kept iff uniform_i ≥ p); the
// factor is taken in f32, p = 1 gives zeros. y = beta·y + that. The backward is the same kernel
// with the same key on dy.
BINADE_KERNEL(dropout, const Array& x, const PhiloxKey& key, float probability, const Array& y,
              float beta)

}  // namespace binade::kernels
