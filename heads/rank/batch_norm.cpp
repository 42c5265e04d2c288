#include <binade/heads/rank/batch_norm.h>

#include <cmath>
#include <vector>

#include <binade/autograd/ops.h>

namespace binade::heads::rank {

namespace {

constexpr double kMomentum = 0.1;

// running ← running + momentum·(batch − running), where that is finite.
void move_towards(const Tensor& running, const Tensor& batch) {
  const Tensor moved = running * (1 - kMomentum) + batch * kMomentum;
  const Tensor finite = equal(moved - moved, moved * 0.0);
  running.array().copy_from(where(finite, moved, running).array());
}

}  // namespace

BatchNorm::BatchNorm(int64_t width)
    : weight_(add_parameter("weight", {width}, nn::init::ones(), true)),
      bias_(add_parameter("bias", {width}, nn::init::zeros(), true)),
      running_mean_(add_buffer("running_mean", Array::zeros({width}, DType::f32))),
      running_var_(add_buffer("running_var", Array::full({width}, 1, DType::f32))) {}

Tensor BatchNorm::forward(const Tensor& x, const Tensor& documents) const {
  const Tensor z = binade::to(x, DType::f32);
  Tensor centred, variance;
  if (training()) {
    const Tensor ones = documents.defined()
                            ? documents
                            : Tensor(Array::full({z.size(0), 1}, 1, DType::f32, z.device()));
    const Tensor count = sum(ones);
    const Tensor average = sum(z * ones, {0}) / count;
    centred = z - average;
    variance = sum(square(centred) * ones, {0}) / count;
    const NoGrad off;
    move_towards(*running_mean_, average);
    move_towards(*running_var_, variance * (count / clamp(count - 1.0, 1, HUGE_VAL)));
  } else {
    centred = z - *running_mean_;
    variance = *running_var_;
  }
  const Tensor scale = rsqrt(variance + kNormEpsilon) * weight_->tensor();
  return binade::to(centred * scale + bias_->tensor(), x.dtype());
}

BatchNormSteps batch_norm_steps(const nn::StateDict& state, const std::string& name) {
  const auto numbers = [&](const char* what) {
    return state.at(name + what).to(Device::cpu()).to(DType::f32);
  };
  const auto weight = numbers(".weight").to_vector<double>(),
             variance = numbers(".running_var").to_vector<double>();
  std::vector<float> scale;
  for (size_t i = 0; i < weight.size(); ++i)
    scale.push_back(static_cast<float>(weight[i] / std::sqrt(variance[i] + kNormEpsilon)));
  return {numbers(".running_mean"), Array::from(scale, {static_cast<int64_t>(scale.size())}),
          numbers(".bias")};
}

}  // namespace binade::heads::rank
