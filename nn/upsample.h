// Upsample: images a whole number of times larger, NCHW.
#pragma once

#include <binade/autograd/ops/conv.h>
#include <binade/nn/module.h>

namespace binade::nn {

class Upsample : public Module {
 public:
  explicit Upsample(int64_t scale, Interpolation mode = Interpolation::nearest,
                    bool align_corners = false)
      : scale_(scale), mode_(mode), align_corners_(align_corners) {
    check(scale > 0, "an upsampling needs a scale of 1 or more, got ", scale);
  }

  // x (N, C, H, W) → (N, C, scale·H, scale·W).
  Tensor forward(const Tensor& x) const {
    check(x.dims() == 4, "Upsample: x must be (N, C, H, W), got ", x.shape());
    return interpolate(x, {x.size(2) * scale_, x.size(3) * scale_}, mode_, align_corners_);
  }

 private:
  int64_t scale_;
  Interpolation mode_;
  bool align_corners_;
};

}  // namespace binade::nn
