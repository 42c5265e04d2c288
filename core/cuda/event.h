// Marks in the current stream's queue, free of CUDA headers.
#pragma once

#include <memory>

namespace binade::cuda {

// Records an event on the current stream.
std::shared_ptr<void> record_event();
bool event_passed(void* event);
void wait_for_event(void* event);  // a host synchronisation

}  // namespace binade::cuda
