// Marks in a device's queue of work, free of CUDA headers.
#pragma once

#include <memory>

#include <binade/core/device.h>

namespace binade::cuda {

// Records an event behind what is queued on the device.
std::shared_ptr<void> record_event(Device device);
bool event_passed(void* event);
void wait_for_event(void* event);  // a host synchronisation
// What is queued on the device from here on runs behind the event, of the same device; the host
// does not wait.
void order_after(void* event, Device device);

}  // namespace binade::cuda
