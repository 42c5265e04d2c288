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
