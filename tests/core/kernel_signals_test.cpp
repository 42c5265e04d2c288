// Signals that arrive amid a matmul or a convolution. A handler runs on the stack of the thread it
// interrupts, so no kernel may move the stack pointer into memory of its own: the handler's frame
// would be written in front of that, over the heap's records.
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include <catch2/catch.hpp>
#include <cstdint>

#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/matmul.h>

#include "kernel_arrays.h"

using namespace binade;
using namespace binade::test;

namespace {

volatile sig_atomic_t handled = 0;
volatile uintptr_t lowest = UINTPTR_MAX, highest = 0;
volatile pthread_t watched;

void note_frame(int) {
  if (!pthread_equal(pthread_self(), watched)) return;
  int frame = 0;
  const auto place = reinterpret_cast<uintptr_t>(&frame);
  if (place < lowest) lowest = place;
  if (place > highest) highest = place;
  handled = handled + 1;
}

// While this lives, SIGALRM comes every 50 µs.
class Alarms {
 public:
  Alarms() {
    struct sigaction action {};
    action.sa_handler = note_frame;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, &before_);
    const itimerval interval{{0, 50}, {0, 50}};
    setitimer(ITIMER_REAL, &interval, nullptr);
  }
  ~Alarms() {
    const itimerval none{};
    setitimer(ITIMER_REAL, &none, nullptr);
    sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_ {};
};

// Runs kernels amid signals on the calling thread, and looks where these were handled.
class SignalledKernels {
 public:
  SignalledKernels() {
    pthread_attr_t attributes;
    void* stack = nullptr;
    REQUIRE(pthread_getattr_np(pthread_self(), &attributes) == 0);
    pthread_attr_getstack(&attributes, &stack, &size_);
    pthread_attr_destroy(&attributes);
    bottom_ = reinterpret_cast<uintptr_t>(stack);
    watched = pthread_self();
    handled = 0;
    lowest = UINTPTR_MAX;
    highest = 0;
  }
  // Until a hundred signals came.
  template <class Kernel>
  void run(const Kernel& kernel) const {
    const sig_atomic_t before = handled;
    const Alarms alarms;
    for (int round = 0; round < 2000 && handled < before + 100; ++round) kernel();
  }
  void check_frames() const {
    CHECK(handled > 1000);
    CHECK(lowest >= bottom_);
    CHECK(highest < bottom_ + size_);
  }

 private:
  uintptr_t bottom_ = 0;
  size_t size_ = 0;
};

}  // namespace

TEST_CASE("a signal amid a cpu matmul is handled on the thread's own stack", "[matmul][cpu]") {
  const SignalledKernels signalled;
  Random random(1);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{192, 32, 96},
                                  {32, 96, 192},
                                  {8, 64, 64},
                                  {256, 256, 256}}) {
      for (const bool a_transposed : {false, true}) {
        for (const bool b_transposed : {false, true}) {
          const Array a = a_transposed ? random_array({k, m}, dtype, random).transpose(0, 1)
                                       : random_array({m, k}, dtype, random);
          const Array b = b_transposed ? random_array({n, k}, dtype, random).transpose(0, 1)
                                       : random_array({k, n}, dtype, random);
          const Array out = Array::empty({m, n}, dtype);
          signalled.run([&] { kernels::cpu::matmul(a, b, out, {}); });
        }
      }
    }
  }
  signalled.check_frames();
}

TEST_CASE("a signal amid a cpu convolution is handled on the thread's own stack", "[conv][cpu]") {
  const SignalledKernels signalled;
  Random random(2);
  // channels, size, filters, kernel, groups: one for each kind of kernel
  for (const auto& [channels, size, filters, kernel, groups] :
       {std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>{3, 24, 16, 3, 1},
        {32, 14, 32, 3, 1},
        {64, 8, 48, 1, 1},
        {32, 20, 32, 3, 32},
        {32, 12, 32, 3, 8}}) {
    const kernels::ConvParams params{1, 1, kernel / 2, kernel / 2, 1, 1, groups};
    const Array x = random_array({4, channels, size, size}, DType::f32, random);
    const Array weight =
        random_array({filters, channels / groups, kernel, kernel}, DType::f32, random);
    const Array y = random_array({4, filters, size, size}, DType::f32, random);
    const Array dx = x.clone(), dweight = weight.clone(), out = y.clone();
    signalled.run([&] { kernels::cpu::conv2d(x, weight, {}, params, out); });
    signalled.run(
        [&] { kernels::cpu::conv2d_backward(x, weight, y, params, dx, 0, {}, 0, {}, 0); });
    signalled.run(
        [&] { kernels::cpu::conv2d_backward(x, weight, y, params, {}, 0, dweight, 0, {}, 0); });
  }
  signalled.check_frames();
}
