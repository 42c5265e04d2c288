// What nvcc knows by itself, for a C++ compiler; included in front of each kernel's source. The
// language's rest is up to translate.sed.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>

#include <bit>
#include <cstring>
#include <functional>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "block.h"

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__
#undef __forceinline__
#define __forceinline__ inline
#undef __noinline__
#define __noinline__

// Of the thread that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulated {

extern void* dynamic_shared;  // of the running block

template <class T, class Tag>
T& shared(Tag) {
  constexpr size_t kGuard = SharedVariable::kGuard;
  alignas(64) static unsigned char memory[kGuard + sizeof(T) + kGuard];
  static SharedVariable variable{memory, sizeof(T)};
  enter_shared(variable);
  return *reinterpret_cast<T*>(memory + kGuard);
}

// configured(kernel, "name", grid, block, shared bytes, stream)(arguments...) launches it.
template <class... Params>
auto configured(void (*kernel)(Params...), const char* name, dim3 grid, dim3 block,
                size_t shared_bytes, cudaStream_t) {
  return [=](const auto&... args) {
    const std::tuple<Params...> given(static_cast<Params>(args)...);
    run_grid(name, grid, block, shared_bytes, [&] { std::apply(kernel, given); });
  };
}

template <class T>
uint64_t bits_of(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T value_of(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// The value of lane `source`, of the thread's own where that lies beyond its group.
template <class T>
T shuffle(const Place& place, uint32_t mask, T value, int source) {
  const Given& given = meet_warp(place, mask, bits_of(value));
  if ((given.lanes >> source & 1u) == 0)
    fail_launch(std::string(place.what) + " reads lane " + std::to_string(source) +
                ", which takes no part");
  return value_of<T>(given.values[source]);
}

// An approximate instruction of PTX, by its name.
inline float instruction(std::string_view name, float x) {
  if (name == "ex2.approx") return ::exp2f(x);
  if (name == "lg2.approx") return ::log2f(x);
  if (name == "rcp.approx") return 1.0f / x;
  fail_launch("no instruction is called " + std::string(name));
}

}  // namespace emulated

using EmulatedSource = std::source_location;

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <class... Params>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               const Params&... args) {
  emulated::configured(kernel, "kernel", config->gridDim, config->blockDim,
                       config->dynamicSmemBytes, config->stream)(args...);
  return cudaSuccess;
}

// ---- waiting ------------------------------------------------------------------------------------

inline void __syncthreads(EmulatedSource where = EmulatedSource::current()) {
  emulated::meet_block({"__syncthreads", where}, false);
}
inline int __syncthreads_or(int vote, EmulatedSource where = EmulatedSource::current()) {
  return emulated::meet_block({"__syncthreads_or", where}, vote != 0) > 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       EmulatedSource where = EmulatedSource::current()) {
  emulated::meet_warp({"__syncwarp", where}, mask, 0);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              EmulatedSource where = EmulatedSource::current()) {
  const int lane = emulated::lane_of_thread();
  return emulated::shuffle({"__shfl_sync", where}, mask, value,
                           (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32,
                  EmulatedSource where = EmulatedSource::current()) {
  const int lane = emulated::lane_of_thread(), source = lane ^ flip;
  return emulated::shuffle({"__shfl_xor_sync", where}, mask, value,
                           source < (lane | (width - 1)) + 1 ? source : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 EmulatedSource where = EmulatedSource::current()) {
  const int lane = emulated::lane_of_thread(), source = lane - static_cast<int>(distance);
  return emulated::shuffle({"__shfl_up_sync", where}, mask, value,
                           source >= (lane & ~(width - 1)) ? source : lane);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   EmulatedSource where = EmulatedSource::current()) {
  const int lane = emulated::lane_of_thread(), source = lane + static_cast<int>(distance);
  return emulated::shuffle({"__shfl_down_sync", where}, mask, value,
                           source <= (lane | (width - 1)) ? source : lane);
}
// fold(a, b) over what the lanes of `mask` gave, as T.
template <class T, class Fold>
T fold_lanes(const emulated::Place& place, unsigned mask, T value, const Fold& fold) {
  const emulated::Given& given = emulated::meet_warp(place, mask, emulated::bits_of(value));
  T all = value;
  for (int lane = 0; lane < 32; ++lane)
    if (given.lanes >> lane & 1u) all = fold(all, emulated::value_of<T>(given.values[lane]));
  return all;
}
inline int __any_sync(unsigned mask, int vote, EmulatedSource where = EmulatedSource::current()) {
  return fold_lanes({"__any_sync", where}, mask, static_cast<int>(vote != 0), std::bit_or());
}
inline int __all_sync(unsigned mask, int vote, EmulatedSource where = EmulatedSource::current()) {
  return fold_lanes({"__all_sync", where}, mask, static_cast<int>(vote != 0), std::bit_and());
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value,
                                  EmulatedSource where = EmulatedSource::current()) {
  const emulated::Given& given = emulated::meet_warp({"__reduce_add_sync", where}, mask, value);
  unsigned sum = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (given.lanes >> lane & 1u) sum += static_cast<unsigned>(given.values[lane]);
  return sum;
}
inline int __reduce_min_sync(unsigned mask, int value,
                             EmulatedSource where = EmulatedSource::current()) {
  return fold_lanes({"__reduce_min_sync", where}, mask, value,
                    [](int a, int b) { return b < a ? b : a; });
}
inline int __reduce_max_sync(unsigned mask, int value,
                             EmulatedSource where = EmulatedSource::current()) {
  return fold_lanes({"__reduce_max_sync", where}, mask, value,
                    [](int a, int b) { return a < b ? b : a; });
}
inline unsigned __ballot_sync(unsigned mask, int vote,
                              EmulatedSource where = EmulatedSource::current()) {
  const emulated::Given& given = emulated::meet_warp({"__ballot_sync", where}, mask, vote != 0);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (given.lanes >> lane & 1u) votes |= static_cast<unsigned>(given.values[lane]) << lane;
  return votes;
}

// ---- memory -------------------------------------------------------------------------------------

template <class T>
T atomicMax(T* at, T value) {
  const T before = *at;
  if (value > before) *at = value;
  return before;
}
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <class T>
T atomicOr(T* at, T value) {
  const T before = *at;
  *at = before | value;
  return before;
}

// One block after another: what was written is there.
inline void __threadfence() {}
template <class T>
T __ldcg(const T* at) {
  return *at;
}

// ---- numbers ------------------------------------------------------------------------------------

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) return std::fmin(C(a), C(b));
  return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>) return std::fmax(C(a), C(b));
  return C(a) < C(b) ? C(b) : C(a);
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(((uint64_t{high} << 32) | low) >> (shift & 31));
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline double __longlong_as_double(long long bits) {
  return std::bit_cast<double>(bits);
}
