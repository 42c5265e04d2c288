#include <binade/optim/clip.h>

#include <algorithm>
#include <cmath>

#include <binade/core/kernels/optimizer.h>

namespace binade::optim {

Array clipped_step(Optimizer& optimizer, double max_norm) {
  return clipped_step(std::vector{&optimizer}, max_norm);
}

Array clipped_step(const std::vector<Optimizer*>& optimizers, double max_norm) {
  check(!optimizers.empty() &&
            std::find(optimizers.begin(), optimizers.end(), nullptr) == optimizers.end(),
        "clipped_step was called without an optimizer");
  check(max_norm >= 0 && std::isfinite(static_cast<float>(max_norm)),
        "clipped_step needs a norm of 0 or more, got ", max_norm);
  const Device device = optimizers.front()->device();
  int64_t groups = 0;
  for (const Optimizer* optimizer : optimizers) {
    check(optimizer->device() == device, "clipped_step: one optimizer's parameters are on ", device,
          ", another's on ", optimizer->device());
    check(std::count(optimizers.begin(), optimizers.end(), optimizer) == 1,
          "clipped_step was given one optimizer twice");
    optimizer->check_ready();
    groups += static_cast<int64_t>(optimizer->groups().size());
  }
  for (Optimizer* optimizer : optimizers) optimizer->gather_grads();

  const auto count = static_cast<int64_t>(optimizers.size());
  const Array norm_sq = Array::zeros({count}, DType::f64, device);
  const Array first_bad = Array::empty({groups}, DType::i64, device);
  const Array one = Array::full({}, 1, DType::f32, device);
  int64_t place = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Optimizer& optimizer = *optimizers[static_cast<size_t>(i)];
    const int64_t end = place + std::ssize(optimizer.groups());
    optimizer.measure(one, norm_sq.select(0, i), first_bad.slice(0, place, end));
    place = end;
  }
  const auto scalar = [&] { return Array::empty({}, DType::f32, device); };
  const Array found_inf = scalar(), norm = scalar(), factor = scalar();
  BINADE_DISPATCH(device, clip_factor(norm_sq, first_bad, one, static_cast<float>(max_norm),
                                      found_inf, norm, factor));
  for (Optimizer* optimizer : optimizers) optimizer->update(factor, found_inf);
  return norm;
}

}  // namespace binade::optim
