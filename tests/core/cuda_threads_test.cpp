// What other threads do while one captures a step.
#include <binade/core/device.h>

#if BINADE_HAVE_CUDA

#include <future>
#include <thread>

#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/device_errors.h>
#include <binade/core/kernels/matmul.h>

#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using binade::cuda::CapturedGraph;

namespace {

// Runs `work` on another thread to its end, and hands on what it throws.
template <class Work>
void on_another_thread(const Work& work) {
  std::async(std::launch::async, work).get();
}

float first_of(const Array& x) {
  return x.to_vector<float>().front();
}

}  // namespace

TEST_CASE("what a second thread launches stays out of a capture, and runs", "[cuda][graph]") {
  require_gpu();
  const Array mine = Array::zeros({1000}, DType::f32, test_gpu());
  const Array theirs = Array::zeros({1000}, DType::f32, test_gpu());
  float seen = 0;
  bool capturing_there = true;
  CapturedGraph graph = CapturedGraph::capture(
      [&] {
        mine.fill(1);
        on_another_thread([&] {
          capturing_there = binade::cuda::is_capturing();
          theirs.fill(2);
          seen = first_of(theirs);  // waits for the GPU, which only the capturing thread may not
        });
        CHECK(binade::cuda::is_capturing());
      },
      test_gpu());
  CHECK_FALSE(capturing_there);
  CHECK(seen == 2);
  CHECK(graph.node_count() == 1);
  CHECK(first_of(mine) == 0);
  theirs.fill(3);
  graph.replay();
  CHECK(first_of(mine) == 1);
  CHECK(first_of(theirs) == 3);
}

TEST_CASE("a second thread multiplies, synchronises and frees memory during a capture",
          "[cuda][graph]") {
  require_gpu();
  Random random(71);
  const Array a = gpu_random({168, 104}, DType::f16, random);
  const Array b = gpu_random({104, 88}, DType::f16, random);
  const auto multiply = [&](const Array& rows, const Array& out) {
    BINADE_DISPATCH(rows.device(), matmul(rows, b, out, {}));
  };
  const Array some = a.slice(0, 0, 40);
  const Array captured = gpu_empty({168, 88}, DType::f16), beside = gpu_empty({40, 88}, DType::f16);
  const auto allocate = [] {
    const Array large = Array::full({64 << 20}, 1, DType::u8, test_gpu());
    CHECK(large.slice(0, -1).item() == 1);
  };
  // A step runs eagerly before it is captured; what the other thread runs has been run, too.
  multiply(a, captured);
  multiply(some, beside);
  allocate();
  release_cached_memory(test_gpu());  // the other thread asks the device for memory
  captured.zero();
  beside.zero();
  CapturedGraph graph = CapturedGraph::capture(
      [&] {
        multiply(a, captured);
        on_another_thread([&] {
          multiply(some, beside);
          synchronize(test_gpu());
          check_device_faults(test_gpu());
          allocate();
        });
        on_another_thread([&] { release_cached_memory(test_gpu()); });
      },
      test_gpu());
  graph.replay();
  const Array eager = gpu_empty({168, 88}, DType::f16);
  multiply(a, eager);
  const std::vector<float> expected = eager.to_vector<float>();
  for (const Array& result : {captured, beside}) {
    const std::vector<float> got = result.to_vector<float>();
    for (size_t i = 0; i < got.size(); ++i)
      REQUIRE(std::abs(got[i] - expected[i]) <=
              2 * epsilon_of(DType::f16) * (std::abs(expected[i]) + 1));
  }
}

TEST_CASE("two threads capture at once", "[cuda][graph]") {
  require_gpu();
  const Array x = Array::zeros({1000}, DType::f32, test_gpu());
  const Array y = Array::zeros({1000}, DType::f32, test_gpu());
  CapturedGraph theirs;
  CapturedGraph mine = CapturedGraph::capture(
      [&] {
        x.fill(1);
        on_another_thread([&] {
          theirs = CapturedGraph::capture(
              [&] { y.copy_from(Array::full({1000}, 2, DType::f32, test_gpu())); }, test_gpu());
        });
        x.copy_from(Array::full({1000}, 3, DType::f32, test_gpu()));
      },
      test_gpu());
  CHECK(mine.node_count() == 3);
  CHECK(theirs.node_count() == 2);
  theirs.replay();
  CHECK(first_of(x) == 0);
  CHECK(first_of(y) == 2);
  mine.replay();
  CHECK(first_of(x) == 3);
}

TEST_CASE("a capture that fails leaves its thread and the others as they were", "[cuda][graph]") {
  require_gpu();
  const Array x = Array::zeros({10}, DType::f32, test_gpu());
  for (int time = 0; time < 3; ++time) {
    CHECK_THROWS_WITH(CapturedGraph::capture(
                          [&] {
                            x.fill(1);
                            fail("in the middle");
                          },
                          test_gpu()),
                      Catch::Contains("in the middle"));
    CHECK_FALSE(binade::cuda::is_capturing());
    CHECK(first_of(x) == static_cast<float>(2 * time));
    on_another_thread([&] { x.fill(2 * (time + 1)); });
  }
  CapturedGraph graph = CapturedGraph::capture([&] { x.fill(8); }, test_gpu());
  graph.replay();
  CHECK(first_of(x) == 8);
}

#endif  // BINADE_HAVE_CUDA
