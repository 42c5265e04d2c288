// The first rung: tensors, operations, a gradient, and a line fitted with it.
// The next is mlp_regression.cpp.
#include <iostream>

#include <binade/binade.h>

using namespace binade;

int main() {
  // A tensor has a shape, a dtype (here f32) and a device (here the CPU).
  const Tensor a = tensor({{1, 2, 3}, {4, 5, 6}});
  std::cout << "a = " << a << "\n\n";

  // Operations are functions. They broadcast as in NumPy; axes count from 0, or from -1 backwards.
  std::cout << "a minus its row means = " << a - mean(a, {1}, /*keep_dims=*/true) << "\n\n";
  std::cout << "a · aᵀ = " << matmul(a, transpose(a, 0, 1)) << "\n\n";

  // What is wrong is an exception that says what was asked.
  try {
    matmul(a, a);
  } catch (const Error& error) {
    std::cout << "a · a is an error: " << error.what() << "\n\n";
  }

  // A leaf with requires_grad. What is computed from it remembers how; backward() walks that back
  // and leaves the gradient at the leaf: here 3x².
  const Tensor x = tensor({1, 2, 3}).set_requires_grad(true);
  sum(x * x * x).backward();
  std::cout << "the gradient of Σx³ at (1, 2, 3) = " << x.grad() << "\n\n";

  // Gradient descent by hand: y = 2x − 1, seen through some noise.
  RandomState::current().set_seed(1);
  const Tensor inputs = randn({100});
  const Tensor targets = 2.0 * inputs - 1.0 + 0.1 * randn({100});
  const Tensor slope = tensor({0}).set_requires_grad(true);
  const Tensor offset = tensor({0}).set_requires_grad(true);
  for (int step = 0; step < 100; ++step) {
    const Tensor loss = mse_loss(slope * inputs + offset, targets);
    loss.backward();
    for (const Tensor& leaf : {slope, offset}) {
      leaf.set_value((leaf.detach() - 0.1 * Tensor(leaf.grad())).array());
      leaf.zero_grad();  // otherwise the next backward() adds to it
    }
    if (step % 25 == 24) std::cout << "step " << step + 1 << ": loss " << loss.item() << '\n';
  }
  std::cout << "y = " << slope.item() << " x + " << offset.item() << '\n';
}
