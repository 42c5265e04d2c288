#include <binade/core/cuda/side_stream.h>

#include <memory>

#include <binade/core/cuda/event.h>
#include <binade/core/cuda/own_stream.h>
#include <binade/core/cuda/runtime.h>

namespace binade::cuda {

SideStream::SideStream(Device device) : device_(device) {
  const DeviceScope scope(device);
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
             "cudaStreamCreateWithFlags");
  stream_ = stream;
}

// What is queued still runs to its end.
SideStream::~SideStream() {
  cudaStreamDestroy(static_cast<cudaStream_t>(stream_));
}

SideStream::Scope::Scope(const SideStream& side) {
  const DeviceScope device(side.device_);
  const std::shared_ptr<void> before = record_event(side.device_);
  set_side_stream(side.stream_, side.device_.index());
  try {
    order_after(before.get(), side.device_);
  } catch (...) {
    set_side_stream(nullptr, 0);
    throw;
  }
}

SideStream::Scope::~Scope() {
  set_side_stream(nullptr, 0);
}

}  // namespace binade::cuda
