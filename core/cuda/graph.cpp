#include <binade/core/cuda/graph.h>

#include <atomic>
#include <utility>
#include <vector>

#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/graph_fills.h>
#include <binade/core/cuda/pool.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/write_log.h>

namespace binade::cuda {

struct CapturedGraph::Impl {
  Impl(Device where, std::shared_ptr<GraphArena> memory)
      : device(where), arena(std::move(memory)) {}

  Device device;
  std::vector<std::shared_ptr<const void>> kept;
  std::shared_ptr<GraphArena> arena;  // outlives the executable graph, which uses its memory
  Handle<cudaGraphExec_t, cudaGraphExecDestroy> executable;
  WriteLog writes;  // of one run: every replay repeats them
  size_t nodes = 0;
};

CapturedGraph::CapturedGraph() = default;
CapturedGraph::CapturedGraph(CapturedGraph&&) noexcept = default;
CapturedGraph& CapturedGraph::operator=(CapturedGraph&&) noexcept = default;
CapturedGraph::~CapturedGraph() = default;

namespace {

std::atomic<uint64_t> replays{0};

using Graph = Handle<cudaGraph_t, cudaGraphDestroy>;
using Kept = std::vector<std::shared_ptr<const void>>;

thread_local Kept* kept_now = nullptr;  // of the capture that this thread is in

class KeepingScope {
 public:
  explicit KeepingScope(Kept& kept) : previous_(std::exchange(kept_now, &kept)) {}
  ~KeepingScope() { kept_now = previous_; }
  KeepingScope(const KeepingScope&) = delete;
  KeepingScope& operator=(const KeepingScope&) = delete;

 private:
  Kept* previous_;
};

// What `work` queues on the current device; what it writes is noted in `writes`.
Graph record(const std::function<void()>& work, GraphArena& arena, WriteLog& writes) {
  const CaptureScope capture;
  Graph graph;
  check_cuda(cudaStreamBeginCapture(capture.stream(), cudaStreamCaptureModeThreadLocal),
             "cudaStreamBeginCapture");
  try {
    const GraphArena::Scope scope(arena);
    const WriteLog::Scope noting(writes);
    work();
  } catch (...) {
    cudaStreamEndCapture(capture.stream(), graph.put());
    cudaGetLastError();  // an invalidated capture ends with an error of its own
    throw;
  }
  check_cuda(cudaStreamEndCapture(capture.stream(), graph.put()),
             "capturing a step (something in it cannot be part of a CUDA graph)");
  return graph;
}

}  // namespace

CapturedGraph CapturedGraph::capture(const std::function<void()>& work, Device device,
                                     const CapturedGraph* beside) {
  check(beside == nullptr || (*beside && beside->impl_->device == device),
        "a graph can only be captured beside one of its own device");
  const DeviceScope scope(device);
  CapturedGraph result;
  result.impl_ = std::make_unique<Impl>(
      device, beside ? beside->impl_->arena : std::make_shared<GraphArena>(device.index()));
  Impl& impl = *result.impl_;
  const KeepingScope keeping(impl.kept);
  const Graph graph = record(work, *impl.arena, impl.writes);
  replace_fills_by_kernels(graph.get());
  check_cuda(cudaGraphGetNodes(graph.get(), nullptr, &impl.nodes), "cudaGraphGetNodes");
  check_cuda(cudaGraphInstantiate(impl.executable.put(), graph.get(), 0), "cudaGraphInstantiate");
  check_cuda(cudaGraphUpload(impl.executable.get(), current_stream()), "cudaGraphUpload");
  return result;
}

void CapturedGraph::replay() {
  check(impl_ != nullptr, "replay() of a graph that was not captured");
  const DeviceScope scope(impl_->device);
  check_cuda(cudaGraphLaunch(impl_->executable.get(), current_stream()), "cudaGraphLaunch");
  ++replays;
  impl_->writes.bump_versions();
}

size_t CapturedGraph::node_count() const {
  return impl_ != nullptr ? impl_->nodes : 0;
}

uint64_t replay_count() {
  return replays;
}

bool is_capturing() {
  return CaptureScope::active();
}

void keep_with_capture(std::shared_ptr<const void> object) {
  if (kept_now) kept_now->push_back(std::move(object));
}

}  // namespace binade::cuda
