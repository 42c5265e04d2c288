// Products for Hopper with an epilogue of their own: CUTLASS's warp-specialised persistent kernel
// with two consumer warp groups that take turns (ping-pong), so that the epilogue of one tile runs
// beside the multiplications of the next. That matters here: two values of the special function
// unit an element cost a third of the time that the multiplications of K = 768 do.
#pragma once

#include <cutlass/cutlass.h>
#include <nvtx3/nvToolsExt.h>

#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include <binade/core/cuda/runtime.h>
#include <binade/core/error.h>

#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.h>

namespace binade::kernels::cuda::sm90 {

namespace fusion = cutlass::epilogue::fusion;

using Tile = cute::Shape<cute::Int<kFusedTileRows>, cute::Int<kFusedTileCols>, cute::_64>;
using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;
using EpilogueSchedule = cutlass::epilogue::TmaWarpSpecialized;
inline constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;
inline constexpr int kAlignment = 8;  // elements: TMA moves multiples of 16 bytes

inline constexpr float kLog2E = 1.4426950408889634f;

// 1 / (1 + 2^x) from the two instructions that approximate 2^x and 1/x to within 2 ulp of f32. 2^x
// of a large argument is ∞, whose inverse is 0.
__device__ __forceinline__ float inverse_of_1_plus_exp2(float x) {
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
  return inverse;
}

// σ(2u) of gelu_tanh (unary_math.cuh), and x's square.
struct GeluSigmoid {
  float square, value;  // x² and σ

  __device__ __forceinline__ explicit GeluSigmoid(float x) : square(x * x) {
    constexpr float kSlope = -1.5957691216057308f * kLog2E;  // -2·√(2/π)·log₂ e
    value = inverse_of_1_plus_exp2(x * fmaf(square, 0.044715f * kSlope, kSlope));
  }
};

// A function of CUTLASS's fragments.
template <class Fragment>
struct Gelu;
template <int kCount>
struct Gelu<cutlass::Array<float, kCount>> {
  using Fragment = cutlass::Array<float, kCount>;
  __device__ __forceinline__ Fragment operator()(const Fragment& x) const {
    Fragment y;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i) y[i] = x[i] * GeluSigmoid(x[i]).value;
    return y;
  }
};

// Stores a tensor like `out` through TMA on the way, unless its address is null; hands on what it
// is given.
template <class T, class Source>
struct StoreThrough {
  using Descriptor = cutlass::epilogue::collective::detail::EpilogueDescriptor<
      Tile, cutlass::epilogue::collective::EpilogueTileAuto, Source, T, EpilogueSchedule>;
  using Aux = cutlass::epilogue::collective::detail::AuxStoreDescriptor<Descriptor, RowMajor, T>;
  using Node =
      fusion::Sm90AuxStore<Aux::Stages, typename Aux::EpilogueTile, T, kRound, typename Aux::Stride,
                           typename Aux::SmemLayoutAtom, typename Aux::CopyOpR2S>;

  static typename Node::Arguments arguments(const RowMatrix& to) {
    typename Node::Arguments result{static_cast<T*>(to.data), {}};
    cute::get<0>(result.dAux) = to.ld;
    return result;
  }
};

// Loads a second tensor like `out` through TMA, beside the epilogue's own source.
template <class T>
struct LoadBeside {
  using Descriptor = typename StoreThrough<T, T>::Descriptor;
  using Aux = cutlass::epilogue::collective::detail::AuxLoadDescriptor<Descriptor, RowMajor, T>;
  using Node = fusion::Sm90AuxLoad<Aux::Stages, typename Aux::EpilogueTile, T, typename Aux::Stride,
                                   typename Aux::SmemLayoutAtom, typename Aux::CopyOpS2R>;

  static typename Node::Arguments arguments(const RowMatrix& from) {
    typename Node::Arguments result{static_cast<const T*>(from.data), T(0), {}};
    cute::get<0>(result.dAux) = from.ld;
    return result;
  }
};

// Queues the kernel that CUTLASS makes of a main loop and an epilogue for a problem (M, N, K, 1).
template <class Mainloop, class Epilogue, class Problem>
void launch_product(const char* name, const Problem& problem,
                    const typename Mainloop::Arguments& operands,
                    const typename Epilogue::Arguments& epilogue) {
  using Kernel = cutlass::gemm::kernel::GemmUniversal<Problem, Mainloop, Epilogue,
                                                      cutlass::gemm::PersistentScheduler>;
  using Adapter = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  cutlass::KernelHardwareInfo hardware;
  hardware.device_id = ::binade::cuda::current_device();
  hardware.sm_count = ::binade::cuda::device_properties().multiprocessors;
  const typename Adapter::Arguments arguments{cutlass::gemm::GemmUniversalMode::kGemm, problem,
                                              operands, epilogue, hardware};
  Adapter adapter;
  const auto require = [&](cutlass::Status status) {
    check(status == cutlass::Status::kSuccess, name, " (", cute::size<0>(problem), " x ",
          cute::size<1>(problem), " x ", cute::size<2>(problem),
          "): CUTLASS refuses it: ", cutlass::cutlassGetStatusString(status));
  };
  require(Adapter::can_implement(arguments));
  require(adapter.initialize(arguments, nullptr, ::binade::cuda::current_stream()));
  nvtxRangePushA(name);
  const cutlass::Status status = adapter.run(::binade::cuda::current_stream());
  nvtxRangePop();
  ::binade::cuda::check_launch(name);
  require(status);
}

// The kernel of out = a · weight with the epilogue Fusion, which reads `source` (elements of type
// Source, or void: it reads none).
template <class T, class WeightLayout, class Source, class Fusion>
struct FusedProduct {
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, Source, RowMajor, kAlignment,
      T, RowMajor, kAlignment, EpilogueSchedule, Fusion>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, T, RowMajor, kAlignment, T, WeightLayout,
      kAlignment, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;

  static void launch(const char* name, const FusedOperands& x, const RowMatrix& source,
                     const typename Fusion::Arguments& fusion_arguments) {
    typename Mainloop::Arguments operands{
        static_cast<const T*>(x.a.data), {}, static_cast<const T*>(x.weight.data), {}};
    cute::get<0>(operands.dA) = x.a.ld;
    if constexpr (std::is_same_v<WeightLayout, RowMajor>)
      cute::get<1>(operands.dB) = x.weight.ld;
    else
      cute::get<0>(operands.dB) = x.weight.ld;
    typename Epilogue::Arguments epilogue{
        fusion_arguments, static_cast<const T*>(source.data), {}, static_cast<T*>(x.out.data), {}};
    if constexpr (!std::is_void_v<Source>) cute::get<0>(epilogue.dC) = source.ld;
    cute::get<0>(epilogue.dD) = x.out.ld;
    const cute::Shape<int, int, int, int> problem{static_cast<int>(x.m), static_cast<int>(x.n),
                                                  static_cast<int>(x.k), 1};
    launch_product<Mainloop, Epilogue>(name, problem, operands, epilogue);
  }
};

}  // namespace binade::kernels::cuda::sm90
