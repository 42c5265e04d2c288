// The device that a thread works on. Free of CUDA headers, as every dispatch of a kernel includes
// it.
#pragma once

#include <binade/core/device.h>

namespace binade::cuda {

// The index of the device that this thread's CUDA calls go to. Throws Error where there is no
// usable one.
int current_device();

// Makes a device the current one while alive: the streams, library handles, properties and words of
// faults in runtime.h are those of the current device. Where it is current already, which is the
// rule, this costs a look at a variable of the thread. Throws Error for a device that is not there.
class DeviceScope {
 public:
  explicit DeviceScope(Device device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_;
  bool changed_ = false;
};

}  // namespace binade::cuda
