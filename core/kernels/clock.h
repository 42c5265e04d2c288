// Times inside a device's queue of work, which a captured graph takes anew with every replay.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// start (i64 scalar): the device's clock when its work has come so far, ns.
BINADE_KERNEL(read_clock, const Array& start)
// total (f64 scalar) += what has passed since start, s.
BINADE_KERNEL(add_elapsed, const Array& start, const Array& total)

}  // namespace binade::kernels
