#include <binade/core/kernels/clock.h>

#include <chrono>

namespace binade::kernels::cpu {

namespace {

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

void read_clock(const Array& start) {
  *start.data<int64_t>() = now();
}

void add_elapsed(const Array& start, const Array& total) {
  *total.data<double>() += 1e-9 * static_cast<double>(now() - *start.data<int64_t>());
}

}  // namespace binade::kernels::cpu
