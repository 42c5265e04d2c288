#include <binade/dist/communicator.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <numeric>
#include <string>
#include <vector>

#include <binade/dist/store_server.h>

#include "ranks.h"

namespace binade::test {
namespace {

using dist::Clock;
using dist::Communicator;
using dist::World;

// What rank `from` sends rank `to`: of other lengths for all pairs, none for some.
std::vector<uint8_t> letter(int from, int to, int round) {
  std::vector<uint8_t> bytes(static_cast<size_t>(
      (from + 2 * to + round) % 4 == 0 ? 0 : 1 + 7001 * from + 300007 * to + round));
  std::iota(bytes.begin(), bytes.end(), static_cast<uint8_t>(31 * from + 7 * to + round));
  return bytes;
}

Communicator::Block block_of(std::vector<uint8_t>& bytes) {
  return {bytes.data(), static_cast<int64_t>(bytes.size())};
}

bool all_empty(const std::vector<std::string>& errors) {
  for (const std::string& error : errors)
    if (!error.empty()) UNSCOPED_INFO(error);
  return std::all_of(errors.begin(), errors.end(), [](const auto& one) { return one.empty(); });
}

double seconds_since(dist::Deadline begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

TEST_CASE("dist: all_to_all, all_gather and broadcast bring every byte", "[dist]") {
  for (const int size : {2, 3, 4}) {
    std::atomic<int> wrong = 0;
    const auto errors = run_ranks(size, [&](World& world) {
      const int me = world.rank();
      for (int round = 0; round < 5; ++round) {
        std::vector<std::vector<uint8_t>> out, in, gathered;
        std::vector<Communicator::Block> send, receive, blocks;
        for (int peer = 0; peer < size; ++peer) {
          out.push_back(letter(me, peer, round));
          in.emplace_back(letter(peer, me, round).size());
          gathered.push_back(letter(peer, 1, round));
          if (peer != me) std::fill(gathered.back().begin(), gathered.back().end(), uint8_t{0});
        }
        for (int peer = 0; peer < size; ++peer) {
          const auto at = static_cast<size_t>(peer);
          send.push_back(block_of(out[at]));
          receive.push_back(block_of(in[at]));
          blocks.push_back(block_of(gathered[at]));
        }
        world.communicator().all_to_all(send, receive);
        world.communicator().all_gather(blocks);
        const int root = round % size;
        std::vector<uint8_t> word = letter(root, 1, round + 1);
        if (me != root) std::fill(word.begin(), word.end(), uint8_t{0});
        world.communicator().broadcast(block_of(word), root);
        world.communicator().barrier();
        for (int peer = 0; peer < size; ++peer) {
          wrong += in[static_cast<size_t>(peer)] != letter(peer, me, round);
          wrong += gathered[static_cast<size_t>(peer)] != letter(peer, 1, round);
        }
        wrong += word != letter(root, 1, round + 1);
      }
    });
    CAPTURE(size);
    CHECK(all_empty(errors));
    CHECK(wrong == 0);
  }
}

TEST_CASE("dist: slices cover everything once, in whole units", "[dist]") {
  for (const int64_t elements : {0, 1, 8191, 8192, 8193, 50000, 1000000})
    for (const int ranks : {1, 2, 3, 4, 7}) {
      const std::vector<dist::Slice> all = dist::slices(elements, ranks, 8192);
      REQUIRE(std::ssize(all) == ranks);
      int64_t end = 0;
      for (const dist::Slice& one : all) {
        CHECK(one.begin == end);
        CHECK(one.end >= one.begin);
        CHECK((one.begin % 8192 == 0 || one.begin == elements));
        end = one.end;
      }
      CHECK(end == elements);
    }
}

TEST_CASE("dist: a rank that throws is named on every other one at once", "[dist]") {
  for (const int bad : {0, 1, 3}) {
    const auto begin = Clock::now();
    const auto errors = run_ranks(4, [&](World& world) {
      for (int round = 0; round < 1000; ++round) {
        if (world.rank() == bad && round == 20) fail("the disk is full");
        world.communicator().barrier();
      }
    });
    const std::string name = concat("rank ", bad, " of 4 (");
    CAPTURE(bad);
    CHECK(seconds_since(begin) < 15);  // not the 20 s of one that is silent
    for (int rank = 0; rank < 4; ++rank) {
      const std::string& error = errors[static_cast<size_t>(rank)];
      CHECK(error.find("the disk is full") != std::string::npos);
      CHECK((rank == bad) == (error.find(name) == std::string::npos));
    }
  }
}

TEST_CASE("dist: a rank that goes without a word is named on the others", "[dist]") {
  for (const int bad : {0, 2}) {
    const auto errors = run_ranks(3, [&](World& world) {
      world.communicator().barrier();
      if (world.rank() == bad) return;
      for (int round = 0; round < 3; ++round) world.communicator().barrier();
    });
    const std::string name = concat("rank ", bad, " of 3 (");
    for (int rank = 0; rank < 3; ++rank)
      CHECK((rank == bad) == (errors[static_cast<size_t>(rank)].find(name) == std::string::npos));
  }
}

TEST_CASE("dist: ranks that do different things are told so", "[dist]") {
  const auto errors = run_ranks(2, [&](World& world) {
    std::vector<uint8_t> bytes(world.rank() == 0 ? 10 : 12);
    world.communicator().broadcast(block_of(bytes));
    world.communicator().barrier();
  });
  CHECK(errors[1].find("10 bytes") != std::string::npos);
  CHECK(errors[0].find("12") != std::string::npos);
}

TEST_CASE("dist: who is missing at the start is told with who came", "[dist]") {
  const int port = dist::port_of(dist::listen_on(0, true));
  std::vector<std::string> errors(2);
  std::vector<std::thread> threads;
  for (const int rank : {0, 1})
    threads.emplace_back([&, rank] {
      try {
        const World world({rank, 3, rank, "127.0.0.1", port}, {.join_seconds = 1});
      } catch (const Error& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) {
    CAPTURE(error);
    CHECK(error.find("not all 3 ranks are there") != std::string::npos);
    CHECK(error.find("rank 0 of 3") != std::string::npos);
    CHECK(error.find("rank 1 of 3") != std::string::npos);
  }
}

TEST_CASE("dist: a rank without rank 0 says whom it waited for", "[dist]") {
  const int port = dist::port_of(dist::listen_on(0, true));
  CHECK_THROWS_WITH(World({1, 2, 1, "127.0.0.1", port}, {.join_seconds = 0.3}),
                    Catch::Contains("rank 1 of 2 has waited") && Catch::Contains("rank 0"));
}

TEST_CASE("dist: the same rank twice, and another number of ranks, are refused", "[dist]") {
  const std::pair<dist::Launch, const char*> cases[] = {
      {{.rank = 1, .size = 2}, "was told of 2 ranks, its store of 3"},
      {{.rank = 0, .size = 3}, "is there twice"}};
  for (const auto& [given, expected] : cases) {
    const int port = dist::port_of(dist::listen_on(0, true));
    std::string first_error;
    std::thread first([&] {
      try {
        const World world({0, 3, 0, "127.0.0.1", port}, {.join_seconds = 10});
      } catch (const Error& error) {
        first_error = error.what();
      }
    });
    const dist::Socket socket = dist::connect_to("127.0.0.1", port, dist::after(5));
    while (dist::StoreServer::who_came("127.0.0.1", port).empty())
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    dist::send_message(socket,
                       {"join", std::to_string(given.rank), std::to_string(given.size), "X"},
                       dist::after(5));
    const dist::Message answer = dist::receive_message(socket, dist::after(5));
    first.join();
    CHECK(answer.at(1).find(expected) != std::string::npos);
    CHECK(first_error.find(expected) != std::string::npos);
  }
}

TEST_CASE("dist: different texts are told with their difference", "[dist]") {
  const auto errors = run_ranks(3, [&](World& world) {
    world.require_same("options", "the same");
    world.require_same("options", world.rank() == 2 ? "b" : "a",
                       [](const std::string& first, const std::string& own) {
                         return "seed (" + first + " -> " + own + ")";
                       });
  });
  for (const std::string& error : errors)
    CHECK(error.find("the ranks have different options: seed (a -> b)") != std::string::npos);
}

}  // namespace
}  // namespace binade::test
