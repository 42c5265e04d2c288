// Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019) over the last dimension; batch
// norm over the channels of images, and what norms of channels and of groups of them consist of.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// x and y (N, D) with contiguous rows, one floating dtype; weight, bias (D) of any floating dtype,
// bias may be undefined. mean, rstd (N) f32 (f64 for f64), kept for backward.
BINADE_KERNEL(layer_norm, const Array& x, const Array& weight, const Array& bias, double eps,
              const Array& y, const Array& mean, const Array& rstd)
// dx = dx_beta·dx + …; dweight = dweight_beta·dweight + …, dbias likewise. Undefined ones are not
// computed. dx_sums (D) f32 (f64 for f64) receives the column sums of dx as it is stored: the bias
// gradient of a linear layer in front. Column sums are in f32 and deterministic (two stages).
BINADE_KERNEL(layer_norm_backward, const Array& dy, const Array& x, const Array& weight,
              const Array& mean, const Array& rstd, const Array& dx, float dx_beta,
              const Array& dweight, float dweight_beta, const Array& dbias, float dbias_beta,
              const Array& dx_sums)
BINADE_KERNEL(rms_norm, const Array& x, const Array& weight, double eps, const Array& y,
              const Array& rstd)
BINADE_KERNEL(rms_norm_backward, const Array& dy, const Array& x, const Array& weight,
              const Array& rstd, const Array& dx, float dx_beta, const Array& dweight,
              float dweight_beta)
// sum = x + residual (rounded once to its dtype), then the norm of `sum`: one pass over memory.
// Pass an undefined `mean` (and bias) for RMS norm.
BINADE_KERNEL(add_norm, const Array& x, const Array& residual, const Array& weight,
              const Array& bias, double eps, const Array& sum, const Array& y, const Array& mean,
              const Array& rstd)

// length = √(Σ x²) along `dim`, and y = x·s with s = 1/max(length, eps). x and y have one floating
// dtype; length, of size 1 along `dim`, is f32 (f64 for f64) and contiguous.
BINADE_KERNEL(normalize, const Array& x, int dim, double eps, const Array& length, const Array& y)
// dx = dy·s − x·(Σ x·dy)·s²/length; without its second part where eps was the divisor, or 0.
BINADE_KERNEL(normalize_backward, const Array& x, const Array& dy, const Array& length, int dim,
              double eps, const Array& dx)
// What the gradient of a cosine is made of: da = b·across + a·along_a and db = a·across + b·along_b
// in one pass, da or db undefined where it is not wanted. across, along_a and along_b are f32 (f64
// for f64) and, as a and b, expanded to the gradients' shape; a, b, da and db have one floating
// dtype, da and db are contiguous.
BINADE_KERNEL(weighted_pair, const Array& a, const Array& b, const Array& across,
              const Array& along_a, const Array& along_b, const Array& da, const Array& db)
// across, along_a and along_b of a cosine a·b/(|a|·|b|), each length at least eps. All arrays are
// of one size, contiguous, and f32 (f64).
BINADE_KERNEL(cosine_scales, const Array& dy, const Array& a_length, const Array& b_length,
              const Array& cosine, double eps, const Array& across, const Array& along_a,
              const Array& along_b)

// Batch norm over N, H, W of (N, C, H, W) contiguous (Ioffe & Szegedy 2015). weight, bias, mean,
// rstd and the running statistics are (C) f32 (f64 for f64). Training: batch statistics go to mean
// and rstd, the running ones move by `momentum` (variance unbiased, as in PyTorch).
BINADE_KERNEL(batch_norm, const Array& x, const Array& weight, const Array& bias, double eps,
              double momentum, const Array& running_mean, const Array& running_var, const Array& y,
              const Array& mean, const Array& rstd)
BINADE_KERNEL(batch_norm_backward, const Array& dy, const Array& x, const Array& weight,
              const Array& mean, const Array& rstd, const Array& dx, const Array& dweight,
              const Array& dbias)

// The steps of norms whose statistics and parameters belong to channels: x (N, C, …), contiguous;
// all vectors (C), f32 (f64 for f64). mean and rstd = 1/√(variance + eps) of each channel's values.
BINADE_KERNEL(channel_moments, const Array& x, double eps, const Array& mean, const Array& rstd)
// y = (x − center)·scale + shift.
BINADE_KERNEL(channel_affine, const Array& x, const Array& center, const Array& scale,
              const Array& shift, const Array& y)
// products = Σ dy·(x − mean)·rstd and sums = Σ dy over each channel's values.
BINADE_KERNEL(channel_sums, const Array& dy, const Array& x, const Array& mean, const Array& rstd,
              const Array& products, const Array& sums)
// dx = dy·slope − offset − (x − mean)·along: a norm's gradient, once the sums are known.
BINADE_KERNEL(channel_gradient, const Array& dy, const Array& x, const Array& mean,
              const Array& slope, const Array& offset, const Array& along, const Array& dx)

}  // namespace binade::kernels
