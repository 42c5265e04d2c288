// Signals that arrive amid a matmul. A handler runs on the stack of the thread it interrupts, so no
// kernel may move the stack pointer into memory of its own: the handler's frame would be written in
// front of that, over the heap's records.
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include <catch2/catch.hpp>
#include <cstdint>

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

}  // namespace

TEST_CASE("a signal amid a cpu matmul is handled on the thread's own stack", "[matmul][cpu]") {
  pthread_attr_t attributes;
  void* stack = nullptr;
  size_t size = 0;
  REQUIRE(pthread_getattr_np(pthread_self(), &attributes) == 0);
  pthread_attr_getstack(&attributes, &stack, &size);
  pthread_attr_destroy(&attributes);
  const auto bottom = reinterpret_cast<uintptr_t>(stack);

  Random random(1);
  watched = pthread_self();
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
          const sig_atomic_t before = handled;
          const Alarms alarms;
          for (int round = 0; round < 2000 && handled < before + 100; ++round)
            kernels::cpu::matmul(a, b, out, {});
        }
      }
    }
  }
  CHECK(handled > 1000);
  CHECK(lowest >= bottom);
  CHECK(highest < bottom + size);
}
