// Matmuls for Hopper with an epilogue of their own: CUTLASS's warp-specialised persistent kernel
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

// σ(2u) of gelu_tanh (unary_rules.h), and x's square.
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

// A node of CUTLASS's tree of epilogue operations that is written from scratch, apart from its
// callbacks: what the host does for a node that needs no workspace, and a producer that loads
// nothing for it. Arguments reach the device as they are; Storage is its shared memory.
template <class NodeArguments, class NodeStorage>
class VisitorNode {
 public:
  using Arguments = NodeArguments;
  using Params = NodeArguments;
  using SharedStorage = NodeStorage;

  template <class Problem>
  static constexpr Params to_underlying_arguments(const Problem&, const Arguments& arguments,
                                                  void*) {
    return arguments;
  }
  template <class Problem>
  static bool can_implement(const Problem&, const Arguments&) {
    return true;
  }
  template <class Problem>
  static size_t get_workspace_size(const Problem&, const Arguments&) {
    return 0;
  }
  template <class Problem>
  static cutlass::Status initialize_workspace(const Problem&, const Arguments&, void*, cudaStream_t,
                                              cutlass::CudaHostAdapter* = nullptr) {
    return cutlass::Status::kSuccess;
  }

  CUTLASS_HOST_DEVICE VisitorNode() {}
  CUTLASS_HOST_DEVICE VisitorNode(const Params& params, const SharedStorage& shared)
      : params_(&params), shared_(const_cast<SharedStorage*>(&shared)) {}

  CUTLASS_DEVICE bool is_producer_load_needed() const { return false; }
  CUTLASS_DEVICE bool is_C_load_needed() const { return false; }

  template <class... Args>
  CUTLASS_DEVICE auto get_producer_load_callbacks(
      const fusion::detail::ProducerLoadArgs<Args...>&) {
    return fusion::detail::EmptyProducerLoadCallbacks{};
  }

 protected:
  const Params* params_ = nullptr;
  SharedStorage* shared_ = nullptr;
};

// The part of a tile that a visit() of the epilogue is about. A thread has 16 of its elements:
// element i lies in row 8·(i/2 % 2) + lane/4 of its warp's 16, and in column 8·(i/4) + 2·(lane % 4)
// + i % 2.
struct Subtile {
  static constexpr int kWarps = 4;  // of the warp group that has the tile
  static constexpr int kRows = 64, kCols = 32;
  static constexpr int kThreadElements = kRows * kCols / (32 * kWarps);
};

// Fails to compile where CUTLASS deals elements out in another way. `place(row, column)` is the
// coordinate of an element as the node's tile counts it.
template <class ConsumerStoreArgs, class Place>
CUTLASS_DEVICE void require_subtile(const ConsumerStoreArgs& args, const Place& place) {
  using namespace cute;
  CUTE_STATIC_ASSERT_V(size(args.tiled_copy) == Int<32 * Subtile::kWarps>{});
  CUTE_STATIC_ASSERT_V(size<0>(args.epi_tile) == Int<Subtile::kRows>{});
  CUTE_STATIC_ASSERT_V(size<1>(args.epi_tile) == Int<Subtile::kCols>{});
  CUTE_STATIC_ASSERT_V(args.tCcD(Int<1>{}) == place(_0{}, _1{}));
  CUTE_STATIC_ASSERT_V(args.tCcD(Int<2>{}) == place(_8{}, _0{}));
  CUTE_STATIC_ASSERT_V(args.tCcD(Int<4>{}) == place(_0{}, _8{}));
  CUTE_STATIC_ASSERT_V(args.tCcD(Int<8>{}) == place(_0{}, _16{}));
}

// What a StoringNode makes of its inputs.
template <class Result, class Stored>
struct ResultAndStored {
  Result result;
  Stored stored;
};

// A node that hands on one function of the sums and of what it is given, and stores another on the
// way, unless its address is null: Function(sums, inputs...) gives both.
template <class T, class Function>
class StoringNode : public StoreThrough<T, T>::Node {
  using Store = typename StoreThrough<T, T>::Node;

 public:
  using Store::Store;

  template <class StoreCallbacks>
  struct Callbacks : StoreCallbacks {
    template <class Sums, class... Inputs>
    CUTLASS_DEVICE auto visit(const Sums& sums, int vector, int subtile_row, int subtile_col,
                              const Inputs&... inputs) {
      const auto both = Function()(sums, inputs...);
      StoreCallbacks::visit(sums, vector, subtile_row, subtile_col, both.stored);
      return both.result;
    }
  };

  template <bool kReferenceSource, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(
      const fusion::detail::ConsumerStoreArgs<Args...>& args) {
    auto callbacks = Store::template get_consumer_store_callbacks<kReferenceSource>(args);
    return Callbacks<decltype(callbacks)>{callbacks};
  }
};

// The epilogue and the main loop that CUTLASS makes for tiles of a shape. Out and Source may be
// void: no output of its own, and nothing read.
template <class TileShape, class EpilogueTile, class Source, class Out, class OutLayout,
          class Fusion>
using EpilogueOf = typename cutlass::epilogue::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, TileShape, Cluster, EpilogueTile, float,
    float, Source, OutLayout, kAlignment, Out, OutLayout, kAlignment, EpilogueSchedule,
    Fusion>::CollectiveOp;
template <class T, class TileShape, class WeightLayout, class Epilogue>
using MainloopOf = typename cutlass::gemm::collective::CollectiveBuilder<
    cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, T, RowMajor, kAlignment, T, WeightLayout,
    kAlignment, float, TileShape, Cluster,
    cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
        sizeof(typename Epilogue::SharedStorage))>,
    cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;

// Calls Kernel<T>::launch(operands) for their dtype.
template <template <class T> class Kernel, class Operands>
void launch_of_dtype(const Operands& operands) {
  if (operands.dtype == DType::f16)
    Kernel<cutlass::half_t>::launch(operands);
  else
    Kernel<cutlass::bfloat16_t>::launch(operands);
}

// Queues the kernel that CUTLASS makes of a main loop and an epilogue for a problem (M, N, K, 1).
template <class Mainloop, class Epilogue, class Problem>
void launch_kernel(const char* name, const Problem& problem,
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
struct FusedMatmul {
  using Epilogue = EpilogueOf<Tile, cutlass::epilogue::collective::EpilogueTileAuto, Source, T,
                              RowMajor, Fusion>;
  using Mainloop = MainloopOf<T, Tile, WeightLayout, Epilogue>;

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
    launch_kernel<Mainloop, Epilogue>(name, problem, operands, epilogue);
  }
};

}  // namespace binade::kernels::cuda::sm90
