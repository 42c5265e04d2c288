// Element types on the device and their conversions. Halves are read as they are, computed in float
// and rounded once on the way out; doubles are computed in double.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include <binade/core/array.h>
#include <binade/core/device_errors.h>

#include <binade/core/kernels/cuda/common/device_pointer.h>

namespace binade::kernels::cuda {

// The device's type for a C++ element type: Half -> __half, BFloat16 -> __nv_bfloat16.
template <class T>
struct DeviceType {
  using type = T;
};
template <>
struct DeviceType<Half> {
  using type = __half;
};
template <>
struct DeviceType<BFloat16> {
  using type = __nv_bfloat16;
};
template <class T>
using DeviceOf = typename DeviceType<T>::type;

// What a (device) type is computed in: float for halves and float, double for double, int64_t for
// integers and bool.
template <class T>
using ComputeOf = std::conditional_t<
    std::is_same_v<T, double>, double,
    std::conditional_t<std::is_same_v<T, bool> || std::is_integral_v<T>, int64_t, float>>;

// The array's first element as a device type. The caller has looked at the dtype. Throws Error for
// an array that is not on the current device.
template <class T>
T* device_data(const Array& array) {
  return static_cast<T*>(device_pointer(array));
}

template <class T>
__device__ __forceinline__ ComputeOf<T> widen(T value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half2float(value);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __bfloat162float(value);
  } else {
    return static_cast<ComputeOf<T>>(value);
  }
}

// Rounds to nearest even. Double goes to a half by way of float, as on the CPU.
template <class T, class C>
__device__ __forceinline__ T narrow(C value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, bool>) {
    return value != C(0);
  } else {
    return static_cast<T>(value);
  }
}

// An element of runtime dtype, as C: for places where a branch costs nothing beside the access.
template <class C>
__device__ __forceinline__ C load_as(const void* data, int64_t offset, DType dtype) {
  switch (dtype) {
    case DType::f64:
      return static_cast<C>(static_cast<const double*>(data)[offset]);
    case DType::f32:
      return static_cast<C>(static_cast<const float*>(data)[offset]);
    case DType::f16:
      return static_cast<C>(__half2float(static_cast<const __half*>(data)[offset]));
    case DType::bf16:
      return static_cast<C>(__bfloat162float(static_cast<const __nv_bfloat16*>(data)[offset]));
    case DType::i64:
      return static_cast<C>(static_cast<const int64_t*>(data)[offset]);
    case DType::i32:
      return static_cast<C>(static_cast<const int32_t*>(data)[offset]);
    default:  // u8 and bool
      return static_cast<C>(static_cast<const uint8_t*>(data)[offset]);
  }
}

template <class C>
__device__ __forceinline__ void store_as(void* data, int64_t offset, DType dtype, C value) {
  switch (dtype) {
    case DType::f64:
      static_cast<double*>(data)[offset] = static_cast<double>(value);
      break;
    case DType::f32:
      static_cast<float*>(data)[offset] = static_cast<float>(value);
      break;
    case DType::f16:
      static_cast<__half*>(data)[offset] = narrow<__half>(value);
      break;
    case DType::bf16:
      static_cast<__nv_bfloat16*>(data)[offset] = narrow<__nv_bfloat16>(value);
      break;
    case DType::i64:
      static_cast<int64_t*>(data)[offset] = static_cast<int64_t>(value);
      break;
    case DType::i32:
      static_cast<int32_t*>(data)[offset] = static_cast<int32_t>(value);
      break;
    case DType::u8:
      static_cast<uint8_t*>(data)[offset] = static_cast<uint8_t>(value);
      break;
    default:
      static_cast<bool*>(data)[offset] = value != C(0);
  }
}

// Notes an error for check_device_faults(); `word` is cuda::fault_word().
__device__ __forceinline__ void note_fault(uint32_t* word, DeviceFault fault) {
  atomicMax(word, static_cast<uint32_t>(fault));
}

struct Sum {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return a + b;
  }
};
// The larger one; NaN wins.
struct Max {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return a > b || a != a ? a : b;
  }
};
struct Min {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return a < b || a != a ? a : b;
  }
};

}  // namespace binade::kernels::cuda
