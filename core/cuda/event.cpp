#include <binade/core/cuda/event.h>

#include <binade/core/cuda/runtime.h>

namespace binade::cuda {

std::shared_ptr<void> record_event(Device device) {
  const DeviceScope scope(device);
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  std::shared_ptr<void> owner(event,
                              [](void* e) { cudaEventDestroy(static_cast<cudaEvent_t>(e)); });
  check_cuda(cudaEventRecord(event, current_stream()), "cudaEventRecord");
  return owner;
}

bool event_passed(void* event) {
  const cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(event));
  if (status == cudaErrorNotReady) return false;
  check_cuda(status, "cudaEventQuery");
  return true;
}

void wait_for_event(void* event) {
  if (event_passed(event)) return;
  note_host_synchronisation();
  check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "cudaEventSynchronize");
}

void order_after(void* event, Device device) {
  const DeviceScope scope(device);
  check_cuda(cudaStreamWaitEvent(current_stream(), static_cast<cudaEvent_t>(event), 0),
             "cudaStreamWaitEvent");
}

}  // namespace binade::cuda
