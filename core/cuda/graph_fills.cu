#include <binade/core/cuda/graph_fills.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <binade/core/cuda/runtime.h>

namespace binade::cuda {

namespace {

constexpr int kThreads = 256;

// bytes[i] = byte i % 4 of `pattern`.
__global__ void __launch_bounds__(kThreads)
    graph_fill_kernel(uint8_t* bytes, size_t count, uint32_t pattern) {
  const size_t step = size_t{gridDim.x} * kThreads;
  const size_t first = size_t{blockIdx.x} * kThreads + threadIdx.x;
  const bool aligned = reinterpret_cast<uintptr_t>(bytes) % sizeof(uint4) == 0;
  const size_t vectors = aligned ? count / sizeof(uint4) : 0;
  for (size_t i = first; i < vectors; i += step)
    reinterpret_cast<uint4*>(bytes)[i] = make_uint4(pattern, pattern, pattern, pattern);
  for (size_t i = vectors * sizeof(uint4) + first; i < count; i += step)
    bytes[i] = static_cast<uint8_t>(pattern >> i % 4 * 8);
}

// The four bytes that a fill repeats.
uint32_t pattern_of(const cudaMemsetParams& fill) {
  switch (fill.elementSize) {
    case 1:
      return (fill.value & 0xff) * 0x01010101u;
    case 2:
      return (fill.value & 0xffff) * 0x00010001u;
    default:
      return fill.value;
  }
}

std::vector<cudaGraphNode_t> nodes_of(cudaGraph_t graph) {
  size_t count = 0;
  check_cuda(cudaGraphGetNodes(graph, nullptr, &count), "cudaGraphGetNodes");
  std::vector<cudaGraphNode_t> nodes(count);
  check_cuda(cudaGraphGetNodes(graph, nodes.data(), &count), "cudaGraphGetNodes");
  return nodes;
}

// The nodes on one side of a node. `get(nodes, edges, &count)` is CUDA's function for that side;
// toolkits before 13 do not tell the kinds of the edges, and a fill has only the plain one.
template <class Get>
std::vector<cudaGraphNode_t> neighbours(const char* name, const Get& get) {
  size_t count = 0;
  check_cuda(get(nullptr, nullptr, &count), name);
  std::vector<cudaGraphNode_t> nodes(count);
  std::vector<cudaGraphEdgeData> edges(count);
  if (count > 0) check_cuda(get(nodes.data(), edges.data(), &count), name);
  return nodes;
}

std::vector<cudaGraphNode_t> dependencies_of(cudaGraphNode_t node) {
  return neighbours(
      "cudaGraphNodeGetDependencies",
      [node](cudaGraphNode_t* nodes, [[maybe_unused]] cudaGraphEdgeData* edges, size_t* count) {
#if CUDART_VERSION >= 13000
        return cudaGraphNodeGetDependencies(node, nodes, edges, count);
#else
        return cudaGraphNodeGetDependencies(node, nodes, count);
#endif
      });
}

std::vector<cudaGraphNode_t> dependents_of(cudaGraphNode_t node) {
  return neighbours(
      "cudaGraphNodeGetDependentNodes",
      [node](cudaGraphNode_t* nodes, [[maybe_unused]] cudaGraphEdgeData* edges, size_t* count) {
#if CUDART_VERSION >= 13000
        return cudaGraphNodeGetDependentNodes(node, nodes, edges, count);
#else
        return cudaGraphNodeGetDependentNodes(node, nodes, count);
#endif
      });
}

void add_edges(cudaGraph_t graph, cudaGraphNode_t from, const std::vector<cudaGraphNode_t>& to) {
  if (to.empty()) return;
  const std::vector<cudaGraphNode_t> sources(to.size(), from);
#if CUDART_VERSION >= 13000
  check_cuda(cudaGraphAddDependencies(graph, sources.data(), to.data(), nullptr, to.size()),
             "cudaGraphAddDependencies");
#else
  check_cuda(cudaGraphAddDependencies(graph, sources.data(), to.data(), to.size()),
             "cudaGraphAddDependencies");
#endif
}

bool is_fill(cudaGraphNode_t node) {
  cudaGraphNodeType type{};
  const cudaError_t status = cudaGraphNodeGetType(node, &type);
  if (status == cudaErrorUnknown) {  // the runtime has no name for the driver's memory operations
    cudaGetLastError();
    return false;
  }
  check_cuda(status, "cudaGraphNodeGetType");
  return type == cudaGraphNodeTypeMemset;
}

}  // namespace

size_t replace_fills_by_kernels(cudaGraph_t graph) {
  size_t replaced = 0;
  for (cudaGraphNode_t node : nodes_of(graph)) {
    if (!is_fill(node)) continue;
    cudaMemsetParams fill{};
    check_cuda(cudaGraphMemsetNodeGetParams(node, &fill), "cudaGraphMemsetNodeGetParams");
    if (fill.height != 1 || fill.width == 0) continue;

    auto* bytes = static_cast<uint8_t*>(fill.dst);
    size_t count = fill.width * fill.elementSize;
    uint32_t pattern = pattern_of(fill);
    void* arguments[] = {&bytes, &count, &pattern};
    const size_t most = 8 * static_cast<size_t>(device_properties().multiprocessors);
    cudaKernelNodeParams kernel{};
    kernel.func = reinterpret_cast<void*>(graph_fill_kernel);
    kernel.gridDim =
        static_cast<unsigned>(std::clamp<size_t>(count / (kThreads * sizeof(uint4)), 1, most));
    kernel.blockDim = kThreads;
    kernel.kernelParams = arguments;
    const std::vector<cudaGraphNode_t> before = dependencies_of(node), after = dependents_of(node);
    cudaGraphNode_t successor = nullptr;
    check_cuda(cudaGraphAddKernelNode(&successor, graph, before.data(), before.size(), &kernel),
               "cudaGraphAddKernelNode");
    add_edges(graph, successor, after);
    check_cuda(cudaGraphDestroyNode(node), "cudaGraphDestroyNode");
    ++replaced;
  }
  return replaced;
}

}  // namespace binade::cuda
