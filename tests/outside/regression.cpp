// Fits y = 2x − 1 by gradient descent and prints what it found.
#include <cmath>
#include <cstdio>
#include <vector>

#include <binade/autograd/ops.h>
#include <binade/autograd/tensor.h>

int main() {
  using binade::Tensor;
  const Tensor x = Tensor::from(std::vector<float>{-2, -1, 0, 1, 2}, {5});
  const Tensor y = 2.0 * x - 1.0;
  Tensor slope(Tensor::scalar(0.0).array(), /*requires_grad=*/true);
  Tensor offset(Tensor::scalar(0.0).array(), /*requires_grad=*/true);

  constexpr double kLearningRate = 0.1;
  for (int step = 0; step < 100; ++step) {
    for (const Tensor& parameter : {slope, offset}) parameter.zero_grad();
    mean(square(slope * x + offset - y)).backward();
    for (const Tensor& parameter : {slope, offset}) {
      const Tensor next = parameter.detach() - kLearningRate * Tensor(parameter.grad());
      parameter.set_value(next.array());
    }
  }
  std::printf("y = %.3f x + %.3f\n", slope.item(), offset.item());
  const bool right = std::abs(slope.item() - 2) < 1e-3 && std::abs(offset.item() + 1) < 1e-3;
  return right ? 0 : 1;
}
