// How halves of a layer become kernels (private to this folder): what they are told, and their
// launch.
#pragma once

#include <binade/core/kernels/few_rows.h>
#include <binade/core/kernels/cuda/decode/block_rows.cuh>

namespace binade::kernels::cuda {

template <class T>
const T* data_or_null(const Array& array) {
  return array.defined() ? device_data<const T>(array) : nullptr;
}

template <class T>
StreamRows<T> stream_rows(const FewRows& in) {
  return {device_data<const T>(in.x),
          data_or_null<float>(in.parts),
          in.parts.defined() ? static_cast<int>(in.parts.size(0)) : 0,
          data_or_null<float>(in.norm),
          static_cast<float>(in.eps),
          in.sum.defined() ? device_data<T>(in.sum) : nullptr,
          static_cast<int>(in.x.size(0)),
          static_cast<int>(in.x.size(1))};
}

inline int tiles_each(int64_t rows, int64_t blocks) {
  return static_cast<int>(ceil_div(ceil_div(rows, kTile), blocks));
}

inline bool fits(int bytes) {
  return static_cast<size_t>(bytes) <= ::binade::cuda::device_properties().shared_bytes_per_block;
}

// Calls body(integral_constant) with the units of eight of a kernel that takes so many rows.
template <class Body>
auto visit_units(int64_t rows, const Body& body) {
  if (rows <= kRowUnit) return body(std::integral_constant<int, 1>());
  if (rows <= kVeryFewRows) return body(std::integral_constant<int, kFewUnits>());
  return body(std::integral_constant<int, kMostUnits>());
}

// Shared memory that a block takes.
template <class Block>
int bytes_of(const Block& p) {
  return visit_units(p.in.rows, [&]<int kUnits>(std::integral_constant<int, kUnits>) {
    return places_of(p, first_splits(kUnits)).bytes;
  });
}

// launch_early() for blocks that have asked for more shared memory than a kernel has by itself.
template <class Block>
void launch_block(const char* name, void (*kernel)(Block), int64_t clusters, int threads,
                  const Block& block) {
  const int bytes = bytes_of(block);
  ::binade::cuda::check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name);
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(one_block_each(clusters * kCluster));
  config.blockDim = static_cast<unsigned>(threads);
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = ::binade::cuda::current_stream();
  config.attrs = attributes;
  config.numAttrs = 2;
  nvtxRangePushA(name);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, block);
  nvtxRangePop();
  ::binade::cuda::check_cuda(status, name);
}

}  // namespace binade::kernels::cuda
