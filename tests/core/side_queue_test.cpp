#include <binade/core/side_queue.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include <binade/core/array.h>
#include <binade/core/error.h>
#include <binade/core/kernels/elementwise.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/graph.h>
#endif

#include "gpu.h"

namespace binade::test {
namespace {

TEST_CASE("side queue: work is done in order, on another thread, before a wait ends", "[core]") {
  for (const bool beside : {true, false}) {
    SideQueue queue(Device::cpu(), beside);
    std::vector<int> done;
    std::thread::id thread;
    for (int i = 0; i < 100; ++i)
      queue.run([&, i] {
        done.push_back(i);
        thread = std::this_thread::get_id();
      });
    queue.wait_for_all();
    REQUIRE(done.size() == 100);
    for (int i = 0; i < 100; ++i) CHECK(done[static_cast<size_t>(i)] == i);
    CHECK((thread != std::this_thread::get_id()) == beside);
  }
}

TEST_CASE("side queue: a ticket waits for its work alone", "[core]") {
  SideQueue queue(Device::cpu());
  std::atomic<bool> go = false;
  std::atomic<int> done = 0;
  const SideQueue::Ticket first = queue.run([&] { ++done; });
  queue.run([&] {
    while (!go) std::this_thread::yield();
    ++done;
  });
  queue.wait(first);
  CHECK(done == 1);
  go = true;
  queue.wait_for_all();
  CHECK(done == 2);
  CHECK_THROWS_WITH(queue.wait(9), Catch::Contains("has 2 pieces of work"));
}

TEST_CASE("side queue: an error comes out of the wait, and what was behind it is left out",
          "[core]") {
  SideQueue queue(Device::cpu());
  std::atomic<int> done = 0;
  queue.run([&] { ++done; });
  queue.run([] { fail("the wire broke"); });
  queue.run([&] { ++done; });
  CHECK_THROWS_WITH(queue.wait_for_all(), Catch::Contains("the wire broke"));
  CHECK(done == 1);
  queue.run([&] { ++done; });
  queue.wait_for_all();
  CHECK(done == 2);
}

TEST_CASE("side queue: its end leaves out what has not begun", "[core]") {
  std::atomic<bool> begun = false, go = false;
  std::atomic<int> done = 0;
  std::thread opener;
  {
    SideQueue queue(Device::cpu());
    queue.run([&] {
      begun = true;
      while (!go) std::this_thread::yield();
      ++done;
    });
    queue.run([&] { ++done; });
    while (!begun) std::this_thread::yield();
    opener = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      go = true;
    });
  }
  opener.join();
  CHECK(done >= 1);  // the second piece, too, if it was begun before the end
}

#if BINADE_HAVE_CUDA

TEST_CASE("side queue: work of one queue runs behind that of another which leads it",
          "[cuda][core]") {
  require_gpu();
  const Device device = test_gpu();
  SideQueue first(device), second(device);
  const Array ones = Array::full({1 << 24}, 1, DType::f32, device);
  const Array sum = Array::zeros(ones.shape(), DType::f32, device);
  const Array seen = Array::zeros(ones.shape(), DType::f32, device);
  constexpr int kTerms = 30;  // some ms in all
  const auto work = [&] {
    sum.zero();
    SideQueue::Ticket ticket = 0;
    for (int i = 0; i < kTerms; ++i)
      ticket = first.run([&] { BINADE_DISPATCH(device, axpy(1, ones, sum)); });
    second.run([&] {
      first.lead(ticket);
      BINADE_DISPATCH(device, copy(sum, seen));
    });
    second.wait_for_all();
    first.wait_for_all();
    // Of what was waited for there is nothing to lead.
    second.run([&] { first.lead(ticket); });
    second.wait_for_all();
  };
  const auto last = [&] { return seen.slice(0, seen.numel() - 1).item(); };
  work();
  CHECK(last() == kTerms);
  seen.zero();
  cuda::CapturedGraph graph = cuda::CapturedGraph::capture(work, device);
  graph.replay();
  CHECK(last() == kTerms);
}

#endif

}  // namespace
}  // namespace binade::test
