#include <binade/core/cuda/graph.h>

#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/graph_fills.h>
#include <binade/core/cuda/pool.h>
#include <binade/core/cuda/runtime.h>
#include <binade/core/write_log.h>

namespace binade::cuda {

struct CapturedGraph::Impl {
  GraphArena arena{current_device()};  // outlives the executable graph, which uses its memory
  Handle<cudaGraphExec_t, cudaGraphExecDestroy> executable;
  WriteLog writes;  // of one run: every replay repeats them
  size_t nodes = 0;
};

CapturedGraph::CapturedGraph() = default;
CapturedGraph::CapturedGraph(CapturedGraph&&) noexcept = default;
CapturedGraph& CapturedGraph::operator=(CapturedGraph&&) noexcept = default;
CapturedGraph::~CapturedGraph() = default;

CapturedGraph CapturedGraph::capture(const std::function<void()>& work) {
  check(!is_capturing(), "a capture cannot start inside another one");
  CapturedGraph result;
  result.impl_ = std::make_unique<Impl>();
  Impl& impl = *result.impl_;
  const cudaStream_t stream = current_stream();
  Handle<cudaGraph_t, cudaGraphDestroy> graph;

  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
             "cudaStreamBeginCapture");
  try {
    const GraphArena::Scope scope(impl.arena);
    const WriteLog::Scope noting(impl.writes);
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, graph.put());
    cudaGetLastError();  // an invalidated capture ends with an error of its own
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream, graph.put()),
             "capturing a step (something in it cannot be part of a CUDA graph)");

  replace_fills_by_kernels(graph.get());
  check_cuda(cudaGraphGetNodes(graph.get(), nullptr, &impl.nodes), "cudaGraphGetNodes");
  check_cuda(cudaGraphInstantiate(impl.executable.put(), graph.get(), 0), "cudaGraphInstantiate");
  check_cuda(cudaGraphUpload(impl.executable.get(), stream), "cudaGraphUpload");
  return result;
}

void CapturedGraph::replay() {
  check(impl_ != nullptr, "replay() of a graph that was not captured");
  check_cuda(cudaGraphLaunch(impl_->executable.get(), current_stream()), "cudaGraphLaunch");
  impl_->writes.bump_versions();
}

size_t CapturedGraph::node_count() const {
  return impl_ != nullptr ? impl_->nodes : 0;
}

bool is_capturing() {
  if (device_count() == 0) return false;  // there is no stream to ask
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(current_stream(), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace binade::cuda
