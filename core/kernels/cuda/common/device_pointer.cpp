#include <binade/core/kernels/cuda/common/device_pointer.h>

#include <binade/core/cuda/device_scope.h>

namespace binade::kernels::cuda {

void* device_pointer(const Array& array) {
  const Device here = Device::cuda(binade::cuda::current_device());
  check(array.device() == here, "a kernel on ", here, " was given an array ", array.shape(), ' ',
        array.dtype(), " on ", array.device(),
        ": all arrays of a call must live on one device; move it with to(device)");
  return array.data();
}

}  // namespace binade::kernels::cuda
