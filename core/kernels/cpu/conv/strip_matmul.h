// A matmul of filters and patches which are read where a PatchReader has them, unpacked: worth it
// where rows of output pixels are as wide as tiles of the micro-kernel. Private to this folder.
#pragma once

#include <span>

#include <binade/core/kernels/cpu/conv/patches.h>

namespace binade::kernels::cpu {

// Whether that is faster than packing, for rows of `columns` output pixels and so many filters.
bool worth_reading_strips(int64_t columns, int64_t filters);

// sums (filters, selected pixels; rows `leading` apart) += a (filters, channels · taps; by rows) ·
// the reader's loaded channels.
void multiply_strips(const PatchReader<float>& reader, int64_t channels, int64_t filters,
                     Block<const float> a, float* sums, int64_t leading);

// Whether that is faster than packing where patches are the left-hand side, in runs of `run`
// pixels.
bool worth_reading_runs(int64_t run);

// sums (channels · taps, filters; by rows) += the reader's loaded channels, their pixels along
// `runs`, times b (pixels, filters) in panels of the micro-kernel's columns, `panel` numbers apart.
void multiply_runs(const PatchReader<float>& reader, std::span<const PatchReader<float>::Line> runs,
                   int64_t channels, int64_t filters, const float* b, int64_t panel, float* sums);

}  // namespace binade::kernels::cpu
