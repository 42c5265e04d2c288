// The emulation itself: kernels with a fault each end with a sentence, and exchanges mean what
// CUDA's manual says.
#include "device.h"

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/rearrange.h>

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

#include "core/cuda_compare.h"
#include "memory.h"
#include "runtime.h"

using emulated::configured;

namespace {

constexpr unsigned kAll = 0xffffffffu;

// Device memory of `count` numbers.
class Numbers {
 public:
  explicit Numbers(size_t count)
      : data_(static_cast<int*>(emulated::allocate(count * sizeof(int)))) {}
  ~Numbers() { emulated::release(data_); }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  operator int*() const { return data_; }

 private:
  int* data_;
};

template <class Kernel, class... Args>
void run(Kernel* kernel, unsigned blocks, unsigned threads, const Args&... args) {
  configured(kernel, "kernel", blocks, threads, 64, nullptr)(args...);
}

// Runs it in several orders; what it says, of the first one that says something.
template <class Kernel, class... Args>
std::string complaint(Kernel* kernel, unsigned threads, const Args&... args) {
  for (int order = 0; order < 8; ++order) {
    try {
      run(kernel, 1, threads, args...);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  }
  return "";
}

void write_own(int* out, int shift) {
  out[static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) + shift] = 7;
}

void read_vector(int* data, int at) {
  data[0] += reinterpret_cast<const int4*>(data + at)->x;
}
void half_meets() {
  if (threadIdx.x < 40) __syncthreads();
}
void two_barriers() {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
}
void half_exchanges() {
  if (threadIdx.x % 2 == 0)
    __shfl_sync(kAll, 1, 0);
  else
    __syncthreads();
}
void reads_ended_lane() {
  if (threadIdx.x >= 16) return;
  __shfl_xor_sync(kAll, 1, 16);
}
void stands_outside() {
  __shfl_sync(0xffffu, 1, 0);
}
void beyond_shared(int count) {
  int& number = emulated::shared<int>([] {});
  int* const numbers = &number;
  for (int i = 0; i < count; ++i) numbers[i] = i;
}
void beyond_dynamic(int count) {
  int* const numbers = static_cast<int*>(emulated::dynamic_shared);
  for (int i = 0; i < count; ++i) numbers[i] = i;
}

// Each thread reads what its neighbour wrote.
void neighbours(int* out, bool waits) {
  auto& numbers = emulated::shared<int[64]>([] {});
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (waits) __syncthreads();
  out[threadIdx.x] = numbers[(threadIdx.x + 1) % 64];
}

void exchanges(int* out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int* const own = out + 8 * threadIdx.x;
  own[0] = __shfl_sync(kAll, lane, 5);
  own[1] = __shfl_xor_sync(kAll, lane, 3);
  own[2] = __shfl_up_sync(kAll, lane, 4);
  own[3] = __shfl_down_sync(kAll, lane, 4);
  own[4] = static_cast<int>(__ballot_sync(kAll, lane % 3 == 0));
  own[5] = __shfl_sync(kAll, lane, 9, 8);  // the group's second lane
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  own[6] = lane < 16 ? __shfl_sync(half, lane, 2) : __shfl_sync(half, lane, 20);
  own[7] = __syncthreads_or(threadIdx.x == 60);
}

void ends_early(int* out) {
  if (threadIdx.x % 3 == 1) return;
  __syncthreads();
  const unsigned here = __ballot_sync(kAll, 1);
  if (threadIdx.x == 0) *out = static_cast<int>(here);
}

}  // namespace

TEST_CASE("memory beside an array cannot be touched", "[emulation]") {
  const Numbers numbers(64);
  CHECK(complaint(write_own, 64, numbers, 0).empty());
  // Blocks lie at the end of their pages and at the begin of them in turn.
  const Numbers others(64);
  int faults = 0;
  for (int* const array : {static_cast<int*>(numbers), static_cast<int*>(others)})
    for (const int shift : {1, -1}) {
      const std::string said = complaint(write_own, 64, array, shift);
      const std::string side =
          shift > 0 ? "behind a block of 256 bytes" : "before a block of 256 bytes";
      CHECK_THAT(said, Catch::Contains(side));
      faults += said.find("kernel in block (0, 0, 0), thread") == 0 ? 1 : 0;
    }
  CHECK(faults == 2);
  CHECK_THROWS_WITH(emulated::release(numbers + 1), Catch::Contains("was not allocated"));
}

TEST_CASE("a vector off its alignment is found", "[emulation]") {
  const Numbers numbers(64);
  CHECK(complaint(read_vector, 1, static_cast<int*>(numbers), 4).empty());
  CHECK_THAT(complaint(read_vector, 1, static_cast<int*>(numbers), 3),
             Catch::Contains("not aligned"));
}

TEST_CASE("threads that wait for others in vain are found", "[emulation]") {
  CHECK_THAT(complaint(half_meets, 64), !Catch::Contains("never come"));  // the others have ended
  CHECK_THAT(complaint(two_barriers, 64), Catch::Contains("different barriers"));
  CHECK_THAT(complaint(half_exchanges, 64), Catch::Contains("never come") &&
                                                Catch::Contains("__syncthreads in") &&
                                                Catch::Contains("check_emulation.cpp:"));
  CHECK_THAT(complaint(reads_ended_lane, 32), Catch::Contains("which takes no part"));
  CHECK_THAT(complaint(stands_outside, 32), Catch::Contains("is not named in the mask"));
}

TEST_CASE("shared memory has guards, and nothing in it to begin with", "[emulation]") {
  CHECK(complaint(beyond_shared, 1, 1).empty());
  CHECK_THAT(complaint(beyond_shared, 1, 2), Catch::Contains("beside a variable of 4 bytes"));
  CHECK(complaint(beyond_dynamic, 1, 16).empty());
  CHECK_THAT(complaint(beyond_dynamic, 1, 17), Catch::Contains("beside a variable of 64 bytes"));

  const Numbers out(64);
  const auto wrong = [&](bool waits) {
    int count = 0;
    for (int order = 0; order < 8; ++order) {
      run(neighbours, 1, 64, static_cast<int*>(out), waits);
      for (int i = 0; i < 64; ++i) count += out[i] != (i + 1) % 64;
    }
    return count;
  };
  CHECK(wrong(true) == 0);
  CHECK(wrong(false) > 0);  // a race
}

TEST_CASE("exchanges have the values of CUDA's", "[emulation]") {
  const Numbers out(8 * 64);
  for (int order = 0; order < 4; ++order) {
    run(exchanges, 1, 64, static_cast<int*>(out));
    for (int thread = 0; thread < 64; ++thread) {
      const int lane = thread % 32;
      const int* own = out + 8 * thread;
      const int want[8] = {
          5,          lane ^ 3,         lane < 4 ? lane : lane - 4, lane > 27 ? lane : lane + 4,
          0x49249249, lane / 8 * 8 + 1, lane < 16 ? 2 : 20,         1};
      CHECK(std::equal(want, want + 8, own));
    }
    run(ends_early, 1, 32, static_cast<int*>(out));
    CHECK(static_cast<unsigned>(out[0]) == 0x6db6db6du);
  }
}

TEST_CASE("kernels with loops over their grid agree on devices of any size", "[emulation]") {
  using namespace binade;
  test::Random random(1);
  for (const int multiprocessors : {1, 2, 132}) {
    emulated::set_multiprocessors(multiprocessors);
    for (const DType dtype : {DType::f64, DType::f16, DType::u8}) {
      INFO(multiprocessors << " multiprocessors, " << dtype);
      const Array x = Array::empty({5, 7001}, dtype);
      test::fill_random(x, random);
      const kernels::AxisMap maps[] = {{.size = 5},
                                       {.size = 7001, .offset = 7000, .reversed = true}};
      test::compare_devices(
          [&](const auto& v) {
            BINADE_DISPATCH(v[0].device(), rearrange(v[0], maps, 0, v[1]));
            BINADE_DISPATCH(v[0].device(), copy(v[0], v[2]));
          },
          {x, Array::zeros(x.shape(), dtype), Array::zeros({7001, 5}, dtype).transpose(0, 1)});
    }
  }
  emulated::set_multiprocessors(1);
}
