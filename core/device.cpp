#include <binade/core/device.h>

#include <charconv>
#include <ostream>
#include <string>

#include <binade/core/device_errors.h>
#include <binade/core/error.h>
#include <binade/core/memory.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/faults.h>
#include <binade/core/cuda/pool.h>
#endif

namespace binade {

Device Device::parse(std::string_view text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda(0);
  if (text.substr(0, 5) == "cuda:") {
    int index = -1;
    const char* end = text.data() + text.size();
    const auto result = std::from_chars(text.data() + 5, end, index);
    if (result.ec == std::errc() && result.ptr == end && index >= 0) return cuda(index);
  }
  fail("unknown device \"", text, "\": use cpu, cuda or cuda:N");
}

std::ostream& operator<<(std::ostream& out, Device device) {
  if (device.is_cpu()) return out << "cpu";
  return out << "cuda:" << std::to_string(device.index());
}

#if BINADE_HAVE_CUDA

int cuda_device_count() {
  return cuda::device_count();
}

std::string cuda_unavailable_reason() {
  return cuda::unavailable_reason();
}

void synchronize(Device device) {
  if (device.is_cuda()) cuda::synchronize(device.index());
}

void check_device_faults(Device device) {
  if (device.is_cuda()) cuda::check_faults(device.index());
}

#else

int cuda_device_count() {
  return 0;
}
std::string cuda_unavailable_reason() {
  return "this build of Binade has no CUDA kernels (configure with -DBINADE_CUDA=ON)";
}
void synchronize(Device) {}
void check_device_faults(Device) {}

#endif

}  // namespace binade
