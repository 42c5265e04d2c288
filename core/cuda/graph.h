// A captured sequence of GPU work, replayed with one launch.
#pragma once

#include <functional>
#include <memory>

namespace binade::cuda {

class CapturedGraph {
 public:
  // Runs `work` once under stream capture: nothing is executed, everything queued on the current
  // stream is recorded. Arrays allocated meanwhile come from an arena that the graph owns, so that
  // replays may use the same addresses; memory freed inside is reused inside. A host
  // synchronisation inside `work` throws Error.
  static CapturedGraph capture(const std::function<void()>& work);

  CapturedGraph();  // empty
  CapturedGraph(CapturedGraph&&) noexcept;
  CapturedGraph& operator=(CapturedGraph&&) noexcept;
  ~CapturedGraph();

  explicit operator bool() const { return impl_ != nullptr; }
  // Queues the whole graph on the current stream. What it writes counts as changed in place: the
  // versions of those storages go up, as they did in the capture.
  void replay();
  size_t node_count() const;  // kernels, copies and fills recorded

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether the current stream is being captured.
bool is_capturing();

}  // namespace binade::cuda
