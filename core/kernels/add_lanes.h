// Sums over the micro-batches of a step ("lanes"), in their order.
#pragma once

#include <vector>

#include <binade/core/kernels/optimizer.h>

namespace binade::kernels {

// sums = ((sums + lanes[0]) + lanes[1]) + …, where `first` leaves the old sums out: the bits are
// those of one addition after the other, whatever the number of lanes in a call. All are contiguous
// and have as many elements; lanes have one dtype, sums f32 (f64 for f64 lanes).
// statistics, if defined: what gradient_stats says of the new sums with this inv_scale, made in the
// same pass.
BINADE_KERNEL(add_lanes, const std::vector<Array>& lanes, const Array& sums, bool first,
              const Array& inv_scale, const Array& statistics)

}  // namespace binade::kernels
