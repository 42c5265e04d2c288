// Fills of a captured graph as kernels: against fills on the host.
#include <binade/core/device.h>

#if BINADE_HAVE_CUDA

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include <binade/core/cuda/graph.h>
#include <binade/core/cuda/graph_fills.h>
#include <binade/core/cuda/runtime.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using binade::cuda::CapturedGraph;
using binade::cuda::check_cuda;

namespace {

constexpr int64_t kMiB = 1 << 20;

struct Fill {
  int64_t offset, count;
  int value;
};

// Aligned and not, longer than a grid covers at once, shorter than a vector, over each other.
const std::vector<Fill> kFills = {{0, 4096, 1},        {4099, 33, 0x7f}, {5000, 3, 0xff},
                                  {8192, 8 * kMiB, 5}, {8193, 40, 0},    {100, 1, 0xa5}};

void queue(const std::vector<Fill>& fills, const Array& bytes) {
  for (const auto& [offset, count, value] : fills)
    check_cuda(cudaMemsetAsync(static_cast<char*>(bytes.data()) + offset, value,
                               static_cast<size_t>(count), binade::cuda::current_stream()),
               "cudaMemsetAsync");
}

}  // namespace

TEST_CASE("fills of a replayed graph write what fills write", "[cuda][graph]") {
  require_gpu();
  const Array bytes = Array::empty({9 * kMiB}, DType::u8, test_gpu());
  bytes.fill(3);
  std::vector<uint8_t> expected(static_cast<size_t>(bytes.numel()), 3);
  for (const auto& [offset, count, value] : kFills)
    std::fill_n(expected.begin() + offset, count, static_cast<uint8_t>(value));
  CapturedGraph graph = CapturedGraph::capture([&] { queue(kFills, bytes); }, test_gpu());
  CHECK(graph.node_count() == kFills.size());
  graph.replay();
  CHECK((bytes.to_vector<uint8_t>() == expected));
}

TEST_CASE("every fill of a graph becomes a kernel between the same neighbours", "[cuda][graph]") {
  require_gpu();
  const binade::cuda::DeviceScope scope(test_gpu());
  const Array bytes = Array::zeros({4096}, DType::u8, test_gpu());
  cudaGraph_t graph = nullptr;
  check_cuda(cudaGraphCreate(&graph, 0), "cudaGraphCreate");
  // Words of 1, 2 and 4 bytes behind one another, then several rows, which stay a fill.
  cudaGraphNode_t last = nullptr;
  const auto add = [&](int64_t offset, unsigned word, unsigned value, size_t width, size_t rows) {
    cudaMemsetParams fill{};
    fill.dst = static_cast<char*>(bytes.data()) + offset;
    fill.elementSize = word;
    fill.value = value;
    fill.width = width;
    fill.height = rows;
    fill.pitch = 64;
    cudaGraphNode_t node = nullptr;
    check_cuda(cudaGraphAddMemsetNode(&node, graph, &last, last ? 1 : 0, &fill),
               "cudaGraphAddMemsetNode");
    last = node;
  };
  add(0, 1, 0x11, 1001, 1);
  add(2, 2, 0x2233, 33, 1);
  add(16, 4, 0x44556677, 5, 1);
  add(2048, 1, 0x88, 8, 3);
  CHECK(binade::cuda::replace_fills_by_kernels(graph) == 3);

  size_t nodes = 0, roots = 0;
  check_cuda(cudaGraphGetNodes(graph, nullptr, &nodes), "cudaGraphGetNodes");
  check_cuda(cudaGraphGetRootNodes(graph, nullptr, &roots), "cudaGraphGetRootNodes");
  CHECK(nodes == 4);
  CHECK(roots == 1);  // still one chain: the order is kept where the fills overlap
  cudaGraphExec_t executable = nullptr;
  check_cuda(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  check_cuda(cudaGraphLaunch(executable, binade::cuda::current_stream()), "cudaGraphLaunch");
  const std::vector<uint8_t> got = bytes.to_vector<uint8_t>();
  check_cuda(cudaGraphExecDestroy(executable), "cudaGraphExecDestroy");
  check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");

  std::vector<uint8_t> expected(4096, 0);
  std::fill_n(expected.begin(), 1001, uint8_t{0x11});
  for (int i = 0; i < 33; ++i) {
    expected[2 + 2 * i] = 0x33;
    expected[3 + 2 * i] = 0x22;
  }
  for (int i = 0; i < 20; ++i)
    expected[16 + i] = std::vector<uint8_t>{0x77, 0x66, 0x55, 0x44}[i % 4];
  for (int row = 0; row < 3; ++row)
    std::fill_n(expected.begin() + 2048 + 64 * row, 8, uint8_t{0x88});
  CHECK((got == expected));
}

#endif
