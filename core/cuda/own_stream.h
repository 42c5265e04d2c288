// INTERNAL. Between runtime.cpp and SideStream (side_stream.h).
#pragma once

namespace binade::cuda {

// The stream (cudaStream_t) of this device that this thread queues its work on instead of the
// device's; null: none. Throws Error where there is one already.
void set_side_stream(void* stream, int device);

}  // namespace binade::cuda
