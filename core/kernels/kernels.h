// How kernels are declared and picked.
//
// A kernel is declared once and defined twice: in `cpu/` and in `cuda/`, with the same name and
// arguments. Outputs come allocated, all arrays of a call live on one device, and shapes and dtypes
// were checked by the caller (the op's differentiable face); a kernel throws only for a dtype that
// it does not know. Unless a comment says otherwise
//   - inputs may have any strides (a broadcast dimension has stride 0), outputs too;
//   - f16 and bf16 are read as they are, computed in f32 and rounded once on the way out;
//   - sums run in f32 (f64 for f64 inputs) in an order that depends on the shape alone, so that two
//     runs give the same bits; options (eps …) are doubles, rounded once to what is computed in;
//   - `beta` is 0 (overwrite) or 1 (add to what the output holds);
//   - CUDA kernels are queued on the stream of the arrays' device, which the dispatch makes the
//     current one, and never wait for it.
#pragma once

#include <binade/core/array.h>
#include <binade/core/cuda/device_scope.h>

// BINADE_KERNEL(name, args...) declares cpu::name and cuda::name.
#define BINADE_KERNEL(name, ...) \
  namespace cpu {                \
  void name(__VA_ARGS__);        \
  }                              \
  namespace cuda {               \
  void name(__VA_ARGS__);        \
  }

// One visible line that picks the kernel of the array's device, and runs it with that device
// current:
//   BINADE_DISPATCH(x.device(), softmax(x, y));
#define BINADE_DISPATCH(where, ...)                                 \
  do {                                                              \
    if ((where).is_cpu()) {                                         \
      ::binade::kernels::cpu::__VA_ARGS__;                          \
    } else {                                                        \
      if constexpr (::binade::kCudaBuilt) {                         \
        const ::binade::cuda::DeviceScope binade_scope(where);      \
        ::binade::kernels::cuda::__VA_ARGS__;                       \
      } else {                                                      \
        ::binade::fail("this build of Binade has no CUDA kernels"); \
      }                                                             \
    }                                                               \
  } while (false)
