// INTERNAL. What the losses share.
#pragma once

#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/loss.h>

namespace binade::ops {

// `x` is (…, features), its rows those of the targets.
void check_targets(const char* op, const char* what, const Tensor& x, const Tensor& targets);
// One number, without a gradient, or undefined.
void check_normaliser(const char* op, const Tensor& normaliser);
void check_smoothing(const char* op, double label_smoothing);

// cross_entropy with options.weight, for arguments that were checked otherwise.
Tensor weighted_cross_entropy(const Tensor& logits, const Tensor& targets,
                              const CrossEntropyOptions& options);

}  // namespace binade::ops
