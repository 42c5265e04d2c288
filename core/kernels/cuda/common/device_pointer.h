// Where an array lies, for a kernel. Free of CUDA headers.
#pragma once

#include <binade/core/array.h>

namespace binade::kernels::cuda {

// The address of the array's first element. Throws Error for an array that is not on the current
// device: a kernel that reads it would fail long after its launch, without a name, or read it
// slowly over the bus.
void* device_pointer(const Array& array);

}  // namespace binade::kernels::cuda
