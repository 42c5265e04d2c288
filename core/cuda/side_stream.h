// A second stream of a device, free of CUDA headers.
#pragma once

#include <binade/core/device.h>

namespace binade::cuda {

class SideStream {
 public:
  explicit SideStream(Device device);
  ~SideStream();
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

  // While it lives, this thread queues its work for the device here, behind what it has queued on
  // the device's stream, or in the capture that it is in, which the side stream then is part of.
  // What is queued there afterwards waits for nothing here: record_event() inside and order_after()
  // outside do that (event.h), and have to before a capture ends.
  class Scope {
   public:
    explicit Scope(const SideStream& stream);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

 private:
  Device device_;
  void* stream_;  // cudaStream_t
};

}  // namespace binade::cuda
