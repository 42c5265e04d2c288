#include <binade/core/side_queue.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>
#include <vector>

#include <binade/core/array.h>
#include <binade/core/error.h>

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

}  // namespace
}  // namespace binade::test
