// The GPU that tests run on.
#pragma once

#include <cstdlib>
#include <string>

#include <binade/core/device.h>
#include <binade/core/error.h>

#include "skip.h"

namespace binade::test {

// cuda:0, or what BINADE_TEST_DEVICE names: with cuda:1 the whole suite runs on the second GPU,
// while the first one is current.
inline Device test_gpu() {
  static const Device device = [] {
    const char* name = std::getenv("BINADE_TEST_DEVICE");
    return name == nullptr ? Device::cuda() : Device::parse(name);
  }();
  return device;
}

// Skips the test where there is no usable GPU. One that was asked for by name must be there.
inline void require_gpu() {
  if (cuda_device_count() == 0) skip(cuda_unavailable_reason());
  check(test_gpu().is_cuda() && test_gpu().index() < cuda_device_count(),
        "BINADE_TEST_DEVICE names ", test_gpu(), "; this machine has ", cuda_device_count(),
        " usable GPU(s)");
}

// Skips the test where there are fewer than two.
inline void require_two_gpus() {
  require_gpu();
  if (cuda_device_count() < 2) skip("this machine has one usable GPU; the test needs two");
}

}  // namespace binade::test
