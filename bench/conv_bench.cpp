// Convolutions on the CPU, f32: reads a shape a line and answers with milliseconds (the fastest
// call's) of the output, the gradient of x and the gradient of the weight, so that a peer can be
// timed in turn (bench/conv_beside_torch.py).
//
//   echo 32 64 32 32 64 3 1 1 1 | conv_bench
//
// --processor-time: of all threads, which says more on a busy machine (with OMP_NUM_THREADS=1).
// A line is: images, channels, height, width, filters, kernel size, stride, padding, groups.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <iostream>
#include <limits>
#include <string_view>

#include <binade/binade.h>

#include <binade/core/kernels/conv.h>

using namespace binade;

namespace {

double wall_ms() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}
double processor_ms() {
  return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

// Calls fill about a tenth of a second.
double fastest_ms(double (*clock)(), const std::function<void()>& call) {
  call();
  double fastest = std::numeric_limits<double>::infinity();
  const double begin = clock();
  for (int calls = 0; calls < 3 || clock() - begin < 100; ++calls) {
    const double start = clock();
    call();
    fastest = std::min(fastest, clock() - start);
  }
  return fastest;
}

}  // namespace

int main(int argc, char** argv) {
  const auto clock =
      argc > 1 && argv[1] == std::string_view("--processor-time") ? processor_ms : wall_ms;
  int64_t images, channels, height, width, filters, kernel, stride, padding, groups;
  while (std::cin >> images >> channels >> height >> width >> filters >> kernel >> stride >>
         padding >> groups) {
    const auto draw = [](const Shape& shape) { return nn::init::normal()(shape, Device::cpu()); };
    const auto out = [&](int64_t size) { return (size + 2 * padding - kernel) / stride + 1; };
    const kernels::ConvParams params{stride, stride, padding, padding, 1, 1, groups};
    const Array x = draw({images, channels, height, width});
    const Array weight = draw({filters, channels / groups, kernel, kernel});
    const Array bias = draw({filters});
    const Array y = draw({images, filters, out(height), out(width)});
    const Array dx = Array::empty(x.shape(), DType::f32);
    const Array dweight = Array::empty(weight.shape(), DType::f32);
    const double forward =
        fastest_ms(clock, [&] { kernels::cpu::conv2d(x, weight, bias, params, y); });
    const double data = fastest_ms(
        clock, [&] { kernels::cpu::conv2d_backward(x, weight, y, params, dx, 0, {}, 0, {}, 0); });
    const double weights = fastest_ms(clock, [&] {
      kernels::cpu::conv2d_backward(x, weight, y, params, {}, 0, dweight, 0, {}, 0);
    });
    fmt::print("{:.4f} {:.4f} {:.4f}\n", forward, data, weights);
    std::fflush(stdout);
  }
  return 0;
}
