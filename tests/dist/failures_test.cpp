// What ranks hear of one that fails, is lost, lets others wait, or never comes.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include <binade/dist/store_server.h>

#include "ranks.h"

namespace binade::test {
namespace {

using dist::Clock;
using dist::World;

double seconds_since(dist::Deadline begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int64_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

// Steps of nothing but a barrier, in one of which a rank does something else.
std::vector<std::string> run_steps(int size, const dist::Limits& limits, int rank,
                                   const std::function<void(World&)>& something) {
  return run_ranks(
      size,
      [&](World& world) {
        for (int64_t step = 1; step <= 12; ++step) {
          world.note_step(step);
          if (step == 10 && world.rank() == rank) something(world);
          world.communicator().barrier();
          world.communicator().barrier();
          if (step % 4 == 0) world.note_checkpoint(step);
        }
      },
      limits);
}

TEST_CASE("dist: a failure tells the step and the last checkpoint", "[dist]") {
  for (const int bad : {0, 2}) {
    const auto errors =
        run_steps(3, {.join_seconds = 20}, bad, [](World&) { fail("the disk is full"); });
    for (int rank = 0; rank < 3; ++rank) {
      CAPTURE(bad, rank, errors[static_cast<size_t>(rank)]);
      if (rank == bad) continue;
      CHECK_THAT(errors[static_cast<size_t>(rank)],
                 Catch::StartsWith(concat("rank ", bad, " of 3 (")) &&
                     Catch::EndsWith(") failed in step 10: the disk is full; last checkpoint: "
                                     "step 8"));
    }
  }
}

TEST_CASE("dist: a rank that lets others wait in a step is named", "[dist]") {
  const auto begin = Clock::now();
  // 20 steps of these are nothing, and how long they take is known: it is not 5 limits.
  const auto errors = run_steps(3, {.join_seconds = 20, .stuck_seconds = 2}, 1, [](World& world) {
    for (int i = 0; i < 300 && !world.failed(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
  });
  CHECK(seconds_since(begin) < 10);
  for (const std::string& error : errors) {
    CAPTURE(error);
    CHECK_THAT(error, Catch::StartsWith("rank 1 of 3 (") &&
                          Catch::Contains(" s while others wait for it in step 10; last "
                                          "checkpoint: step 8"));
  }
}

TEST_CASE("dist: a GPU that hangs is told from a program that does, and from a lost rank",
          "[dist]") {
  // Programs whose steps are queued; what they see of them stops behind step 7.
  for (const bool hangs : {true, false}) {
    const auto errors =
        run_ranks(3,
                  [&](World& world) {
                    for (int64_t step = 1; step <= 10; ++step) {
                      world.note_step(step);
                      world.note_finished(hangs ? std::min<int64_t>(step, 7) : step - 1);
                      world.communicator().barrier();
                    }
                    // All of them wait; they are alive, and nobody is behind.
                    const auto begin = Clock::now();
                    while (!world.failed() && (hangs || seconds_since(begin) < 4.5))
                      std::this_thread::sleep_for(std::chrono::milliseconds(50));
                    world.communicator().barrier();
                  },
                  {.join_seconds = 20, .stuck_seconds = 2});
    for (const std::string& error : errors) {
      CAPTURE(hangs, error);
      if (hangs) {
        CHECK_THAT(error, Catch::StartsWith("a GPU hangs, or all wait for each other: all 3 ranks "
                                            "are there, and for ") &&
                              Catch::Contains(" s none has finished step 8 in step 10"));
      } else {
        CHECK(error.empty());  // a long step on the CPU
      }
    }
  }
}

TEST_CASE("dist: a rank that says that it is busy is waited for", "[dist]") {
  const auto errors = run_steps(3, {.join_seconds = 20, .stuck_seconds = 2}, 1, [](World& world) {
    const World::Busy scope = world.busy();
    std::this_thread::sleep_for(std::chrono::milliseconds(4500));
  });
  for (const std::string& error : errors) CHECK(error.empty());
}

TEST_CASE("dist: what one rank does alone is waited for", "[dist]") {
  std::atomic<int> done = 0, seen = 0;
  const auto errors = run_ranks(3, [&](World& world) {
    for (int turn = 1; turn <= 2; ++turn) {
      world.first_alone([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        ++done;
      });
      seen += done == turn;
      world.communicator().barrier();
    }
  });
  for (const std::string& error : errors) CHECK(error.empty());
  CHECK(seen == 6);
  // The others hear of it when that fails.
  const auto failed =
      run_ranks(2, [&](World& world) { world.first_alone([] { fail("no room"); }); });
  CHECK(failed[0] == "no room");
  CHECK_THAT(failed[1], Catch::StartsWith("rank 0 of 2 (") && Catch::EndsWith("failed: no room"));
}

TEST_CASE("dist: a rank that is silent is named", "[dist]") {
  const int port = dist::port_of(dist::listen_on(0, true));
  std::string error;
  dist::Deadline heard{};
  std::thread first([&] {
    try {
      World world({0, 2, 0, "127.0.0.1", port}, {.join_seconds = 20, .silent_seconds = 3});
      try {
        world.communicator().barrier();
      } catch (const Error& thrown) {
        error = thrown.what();
        heard = Clock::now();
      }
    } catch (const Error& thrown) {
      error = thrown.what();
    }
  });
  // It joins, and says nothing any more.
  const dist::Socket silent = dist::connect_to("127.0.0.1", port, dist::after(5));
  dist::send_message(silent, {"join", "1", "2", "rank 1 of 2 (a, process 71)"}, dist::after(5));
  const auto begin = Clock::now();
  first.join();
  CHECK(heard - begin < std::chrono::seconds(15));
  CHECK(error == "rank 1 of 2 (a, process 71) has been silent for 3 s");
}

TEST_CASE("dist: a store that is silent is named", "[dist]") {
  // It lets the rank join, and says nothing any more.
  const dist::Socket listener = dist::listen_on(0, true);
  std::vector<dist::Socket> connections;
  std::thread server([&] {
    for (int i = 0; i < 2; ++i)
      connections.push_back(std::move(*dist::accept_from(listener, dist::after(5))));
    for (const dist::Socket& one : connections) {
      const dist::Message message = dist::receive_message(one, dist::after(5));
      if (message[0] == "everybody")
        dist::send_message(one, {"rank 0 of 2 (b, process 9)", "rank 1"}, dist::after(5));
    }
  });
  const auto begin = Clock::now();
  CHECK_THROWS_WITH(World({1, 2, 1, "127.0.0.1", dist::port_of(listener)},
                          {.join_seconds = 20, .silent_seconds = 3}),
                    "rank 0 of 2 (b, process 9) at 127.0.0.1 has been silent for 3 s");
  server.join();
  CHECK(seconds_since(begin) < 15);
}

TEST_CASE("dist: a launcher's word on how a rank ended is what the others hear", "[dist]") {
  dist::Socket listener = dist::listen_on(0, true);
  const int port = dist::port_of(listener);
  dist::StoreServer server(std::move(listener), {.ranks = 2, .limits = {}, .told_of_ends = true});
  std::vector<std::string> errors(2);
  std::vector<std::thread> threads;
  for (const int rank : {0, 1})
    threads.emplace_back([&, rank] {
      dist::Launch launch{rank, 2, rank, "127.0.0.1", port, /*served=*/true};
      try {
        World world(launch, {.join_seconds = 20});
        world.note_step(5);
        world.communicator().barrier();
        if (rank == 1) {
          server.ended(1, "was ended by signal 9 (Killed)");
          while (!world.failed()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
        world.communicator().barrier();
      } catch (const Error& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK_THAT(errors[0], Catch::StartsWith("rank 1 of 2 (") &&
                            Catch::EndsWith(") was ended by signal 9 (Killed) in step 5; no "
                                            "checkpoint so far"));
  REQUIRE(server.failure());
  CHECK(server.failure()->rank == 1);
}

TEST_CASE("dist: worlds leave no open files behind, however they end", "[dist]") {
  const int port = dist::port_of(dist::listen_on(0, true));
  const dist::Launch alone{0, 2, 0, "127.0.0.1", port};
  const auto make_all = [&] {
    const auto whole = run_ranks(3, [](World& world) { world.communicator().barrier(); });
    for (const std::string& error : whole) CHECK(error.empty());
    run_steps(2, {.join_seconds = 20}, 1, [](World&) { fail("some reason"); });
    CHECK_THROWS_WITH(World(alone, {.join_seconds = 0.2}), Catch::Contains("not all 2 ranks"));
    CHECK_THROWS_WITH(World({1, 2, 1, "127.0.0.1", port}, {.join_seconds = 0.2}),
                      Catch::Contains("has waited 0.2 s"));
    const dist::Socket taken = dist::listen_on(port, true);
    CHECK_THROWS_WITH(World(alone, {.join_seconds = 0.2}), Catch::Contains("cannot listen on"));
  };
  make_all();
  const int64_t before = open_files();
  for (int i = 0; i < 3; ++i) make_all();
  CHECK(open_files() == before);
}

}  // namespace
}  // namespace binade::test
