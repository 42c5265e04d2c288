// Work beside a device's stream: forked and joined by events, eagerly and in a captured graph.
#include <binade/core/device.h>

#if BINADE_HAVE_CUDA

#include <algorithm>

#include <binade/core/cuda/graph.h>
#include <binade/core/side_queue.h>

#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using binade::cuda::CapturedGraph;

TEST_CASE("a side queue's work comes behind what was queued, and before what waits for it",
          "[cuda][graph]") {
  require_gpu();
  constexpr int64_t kCount = 1 << 22;  // long enough to be overtaken
  const Array a = Array::zeros({kCount}, DType::f32, test_gpu());
  const Array b = Array::zeros({kCount}, DType::f32, test_gpu());
  const Array c = Array::zeros({kCount}, DType::f32, test_gpu());
  SideQueue queue(test_gpu());
  const auto work = [&] {
    for (int round = 0; round < 3; ++round) {
      a.fill(1 + round);
      const SideQueue::Ticket first = queue.run([&] { b.copy_from(a); });
      queue.run([&] { c.copy_from(b); });
      queue.wait(first);
      a.fill(-1);  // what was read may be written again
      queue.wait_for_all();
    }
  };
  const auto check_and_clear = [&] {
    const std::vector<float> all = c.to_vector<float>();
    CHECK(std::count(all.begin(), all.end(), 3.0F) == kCount);
    CHECK(a.to_vector<float>().back() == -1);
    for (const Array& one : {a, b, c}) one.zero();
  };
  for (int i = 0; i < 3; ++i) {
    work();
    check_and_clear();
  }
  CapturedGraph graph = CapturedGraph::capture(work, test_gpu());
  CHECK(c.to_vector<float>().back() == 0);
  for (int i = 0; i < 3; ++i) {
    graph.replay();
    check_and_clear();
  }
}

TEST_CASE("a capture that ends early with work beside it can be tried again", "[cuda][graph]") {
  require_gpu();
  const Array a = Array::zeros({1000}, DType::f32, test_gpu());
  SideQueue queue(test_gpu());
  CHECK_THROWS_WITH(CapturedGraph::capture(
                        [&] {
                          queue.run([&] { a.fill(1); });
                          fail("half way");
                        },
                        test_gpu()),
                    Catch::Contains("half way"));
  queue.forget();
  queue.wait_for_all();  // for nothing
  CapturedGraph graph = CapturedGraph::capture(
      [&] {
        queue.run([&] { a.fill(2); });
        queue.wait_for_all();
      },
      test_gpu());
  graph.replay();
  CHECK(a.to_vector<float>().front() == 2);
}

#endif
