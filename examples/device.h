// --device of every program.
#pragma once

#include <string>

#include <binade/core/device.h>
#include <binade/core/error.h>

namespace binade::examples {

// "auto" is the GPU where there is a usable one. Throws Error for a device that cannot be used.
inline Device choose_device(const std::string& name) {
  if (name == "auto") return cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  const Device device = Device::parse(name);
  check(device.is_cpu() || device.index() < cuda_device_count(), "--device ", name,
        " cannot be used: ",
        cuda_device_count() > 0 ? concat("this machine has ", cuda_device_count(), " usable GPU(s)")
                                : cuda_unavailable_reason());
  return device;
}

}  // namespace binade::examples
