// Copies of bytes between host and device, waits, and which devices there are. Free of CUDA
// headers, so that plain .cpp files may include it.
#pragma once

#include <cstdint>
#include <string>

#include <binade/core/device.h>

namespace binade::cuda {

// Queues a copy on the stream of the device, of the destination's where both are devices; there it
// runs after what the source's stream holds, and before what that stream gets from then on. Host
// memory must be page-locked (core/memory.h) and stay as it is until the copy is done.
void copy_async(void* destination, Device destination_device, const void* source,
                Device source_device, int64_t bytes);
// Copies and waits (a host synchronisation): for host memory of any kind.
void copy_and_wait(void* destination, Device destination_device, const void* source,
                   Device source_device, int64_t bytes);

// Usable devices: 0 without a driver, without a card, or where this build has no code for the card.
int device_count();
// Why device_count() is 0, as a sentence; empty if it is not.
std::string unavailable_reason();
// Waits until everything that this library queued on the device is done (a host synchronisation).
void synchronize(int device);

// Host synchronisations so far (stream, device and event waits made through this library): a step
// must not add to it.
int64_t host_synchronisations();
// To be called before each wait; throws Error inside a capture, where waiting is not possible.
void note_host_synchronisation();

}  // namespace binade::cuda
