// Rectified flow: a straight line from data x0 at t = 0 to noise ε at t = 1, whose velocity ε − x0
// a model learns (Liu et al. 2023; Lipman et al. 2023). All of it in f32.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <binade/autograd/tensor.h>

namespace binade::heads::flow {

// Moves times towards noise: s·t / (1 + (s − 1)·t) (Esser et al. 2024, eq. 23).
double shifted(double t, double shift);
// Times of u: σ(u), shifted. −∞ gives exactly 0.
Tensor times_of(const Tensor& logit_times, double shift);
// x_t = (1 − t)·x0 + t·ε for x0, ε (B, G, C) and t (B, G); exactly x0 at t = 0.
Tensor noised(const Tensor& clean, const Tensor& noise, const Tensor& times);

// The times of a drawing, from 1 down to 0: `points` of them, evenly spaced and then shifted, so
// points − 1 Euler steps. Throws Error for fewer than 2 points or a shift that is not positive.
std::vector<double> drawing_times(int64_t points, double shift);

// How the guided velocity is brought back to the size of the conditional one.
enum class Renorm : uint8_t {
  none,
  global,        // the norm of a whole image
  channel,       // of each token
  text_channel,  // of each token, behind the step away from the unconditional text alone
};
Renorm parse_renorm(std::string_view name);  // by these names; Error for another

// Classifier-free guidance over two conditions (BAGEL, arXiv 2505.14683; after Brooks et al. 2023).
struct Guidance {
  double text_scale = 4, image_scale = 1.5;
  Renorm renorm = Renorm::global;
  double least_renorm = 0;       // the factor of renormalising is in [this, 1]
  double low = 0.4, high = 1.0;  // guided where low < t ≤ high

  bool at(double t) const { return text_scale > 1 && t > low && t <= high; }
};

// v (N, tokens, C): the velocities under all conditions, without the last text, and without images
// (undefined: there are none, and the image scale has no part). Renormalised image by image.
//   g = v∅T + s_T·(v − v∅T);  g ← v∅I + s_I·(g − v∅I);  g·clamp(‖v‖ / ‖g‖, least, 1)
Tensor guided(const Tensor& conditional, const Tensor& without_text, const Tensor& without_images,
              const Guidance& guidance);

}  // namespace binade::heads::flow
