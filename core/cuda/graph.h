// A captured sequence of GPU work, replayed with one launch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <binade/core/device.h>

namespace binade::cuda {

class CapturedGraph {
 public:
  // Runs `work` once under stream capture: nothing is executed, everything that this thread queues
  // on `device` is recorded; other threads go on as ever. Arrays allocated meanwhile come from an
  // arena that the graph owns, so that replays may use the same addresses; memory freed inside is
  // reused inside. Work on another device and a host synchronisation inside `work` throw Error.
  // `beside`: a graph of the device whose arena is used, too. Such graphs may be replayed in any
  // order, but each one's results, unless they were allocated outside, only stay until another is.
  static CapturedGraph capture(const std::function<void()>& work, Device device = Device::cuda(),
                               const CapturedGraph* beside = nullptr);

  CapturedGraph();  // empty
  CapturedGraph(CapturedGraph&&) noexcept;
  CapturedGraph& operator=(CapturedGraph&&) noexcept;
  ~CapturedGraph();

  explicit operator bool() const { return impl_ != nullptr; }
  // Queues the whole graph on its device. What it writes counts as changed in place: the versions
  // of those storages go up, as they did in the capture.
  void replay();
  size_t node_count() const;  // kernels, copies and fills recorded

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// How many graphs this process has queued so far, of all devices.
uint64_t replay_count();

// Whether this thread is inside a capture.
bool is_capturing();

// Inside a capture of this thread: the graph holds `object` as long as it lives. For memory that
// was allocated before the capture and that its owner may free. Outside: nothing.
void keep_with_capture(std::shared_ptr<const void> object);

}  // namespace binade::cuda
