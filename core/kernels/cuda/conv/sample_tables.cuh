// Samples of interpolation along rows and columns, tabulated (axis_tables.cuh).
#pragma once

#include <binade/core/kernels/cuda/conv/axis_tables.cuh>

namespace binade::kernels::cuda {

template <class C>
__device__ TableSample<C> sample_at(const InterpolateParams& params, int64_t o, int64_t size,
                                    int64_t outputs) {
  const Sample<C> sample = interpolation_sample<C>(params, o, size, outputs);
  return {static_cast<int32_t>(sample.at), static_cast<int32_t>(sample.next), sample.near,
          sample.far};
}

// What the sample gives to position `i`.
template <class C>
__device__ __forceinline__ C share_of(const TableSample<C>& sample, int i) {
  return (sample.at == i ? sample.near : C(0)) + (sample.next == i ? sample.far : C(0));
}

template <class C>
__device__ Cover cover_at(const InterpolateParams& params, int64_t i, int64_t size,
                          int64_t outputs) {
  PoolCover cover = interpolation_cover(params, i, size, outputs);
  const auto reads = [&](int64_t o) {
    return share_of(sample_at<C>(params, o, size, outputs), static_cast<int>(i)) != C(0);
  };
  while (cover.begin < cover.end && !reads(cover.begin)) ++cover.begin;
  while (cover.begin < cover.end && !reads(cover.end - 1)) --cover.end;
  return {static_cast<int32_t>(cover.begin), static_cast<int32_t>(cover.end)};
}

// Entries of rows, then of columns.
template <class C>
__global__ void __launch_bounds__(kBlock)
    sample_tables_kernel(const ImageSizes sizes, const InterpolateParams params,
                         TableSample<C>* samples, int32_t* places, Cover* covers) {
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i < sizes.outputs()) {
    samples[i] = i < sizes.out_height
                     ? sample_at<C>(params, i, sizes.height, sizes.out_height)
                     : sample_at<C>(params, i - sizes.out_height, sizes.width, sizes.out_width);
    places[i] = samples[i].at;
  }
  if (covers == nullptr) return;
  if (i < sizes.height)
    covers[i] = cover_at<C>(params, i, sizes.height, sizes.out_height);
  else if (i < int64_t{sizes.height} + sizes.width)
    covers[i] = cover_at<C>(params, i - sizes.height, sizes.width, sizes.out_width);
}

// The tables in device memory, for the kernels queued while this lives.
template <class C>
class SamplesOnDevice {
 public:
  SamplesOnDevice(const ImageSizes& sizes, const InterpolateParams& params, bool with_covers)
      : samples_(sizes.outputs()),
        places_(sizes.outputs()),
        covers_(with_covers ? sizes.entries() - sizes.outputs() : 1) {
    Cover* covers = with_covers ? covers_.data() : nullptr;
    launch("sample_tables", sample_tables_kernel<C>,
           one_block_each(
               ceil_div(std::max(sizes.outputs(), sizes.entries() - sizes.outputs()), kBlock)),
           kBlock, 0, sizes, params, samples_.data(), places_.data(), covers);
    tables_ = {samples_.data(), samples_.data() + sizes.out_height,
               places_.data(),  places_.data() + sizes.out_height,
               covers,          with_covers ? covers + sizes.height : nullptr};
  }
  const SampleTables<C>& operator*() const { return tables_; }

 private:
  Workspace<TableSample<C>> samples_;
  Workspace<int32_t> places_;
  Workspace<Cover> covers_;
  SampleTables<C> tables_;
};

}  // namespace binade::kernels::cuda
