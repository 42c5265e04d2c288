#include <binade/optim/gradient_norm.h>

#include <binade/core/kernels/optimizer.h>

namespace binade::optim {

void measure_gradients(const Array& grads, const Array& inv_scale, const Array& norm_sq,
                       const Array& first_bad) {
  const Array statistics =
      Array::empty({kernels::gradient_chunks(grads.numel()), 2}, DType::f64, grads.device());
  BINADE_DISPATCH(grads.device(), gradient_stats(grads, inv_scale, statistics));
  BINADE_DISPATCH(grads.device(), add_gradient_stats(statistics, norm_sq, first_bad));
}

}  // namespace binade::optim
