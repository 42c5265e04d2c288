// Windows: verbs that write where the receiver said they may. On the CPU they are verbs as others;
// GPUs of one host copy without NCCL.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/side_queue.h>
#include <binade/dist/world.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/graph.h>
#endif

#include "dist/ranks.h"
#include "gpu.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using dist::Communicator;

namespace {

using Block = Communicator::Block;

// What `from` sends `to` in round `round`: bytes that are like no other's.
uint8_t byte_of(int from, int to, int64_t round, int64_t i) {
  return static_cast<uint8_t>(i * 7 + i / 251 + from * 31 + to * 67 + round * 5 + 1);
}

// How much that is: unequal, odd, and nothing at all among them.
int64_t bytes_of(int from, int to, int64_t round) {
  constexpr int64_t kSome[] = {4096, 0, 1, 70001, 333, 1 << 20};
  return kSome[static_cast<size_t>(from + 2 * to + round) % std::size(kSome)];
}

constexpr int64_t kSlot = 1 << 20;

Array on(Device device, const std::vector<uint8_t>& bytes) {
  return Array::from(bytes, {static_cast<int64_t>(bytes.size())}).to(device);
}

// One round of all_to_all; `window`: memory of (ranks, kSlot).
class Round {
 public:
  Round(Communicator& ranks, int64_t round) : ranks_(ranks), round_(round) {
    for (int peer = 0; peer < ranks.size(); ++peer) {
      std::vector<uint8_t> bytes;
      for (int64_t i = 0; i < bytes_of(ranks.rank(), peer, round); ++i)
        bytes.push_back(byte_of(ranks.rank(), peer, round, i));
      sent_.push_back(on(ranks.device(), bytes));
    }
  }

  void run(const Communicator::Window& window) const {
    std::vector<Block> send, receive;
    for (int peer = 0; peer < ranks_.size(); ++peer) {
      const auto p = static_cast<size_t>(peer);
      send.push_back({sent_[p].data(), sent_[p].bytes()});
      receive.push_back(
          {window.memory().select(0, peer).data(), bytes_of(peer, ranks_.rank(), round_)});
    }
    ranks_.all_to_all(send, receive, window, ranks_.rank() * kSlot);
  }

  void check_received(const Array& window) const {
    const std::vector<uint8_t> all = window.to_vector<uint8_t>();
    for (int peer = 0; peer < ranks_.size(); ++peer)
      for (int64_t i = 0; i < bytes_of(peer, ranks_.rank(), round_); ++i)
        check(all[static_cast<size_t>(peer * kSlot + i)] == byte_of(peer, ranks_.rank(), round_, i),
              "byte ", i, " of rank ", peer, " is wrong in round ", round_);
  }

 private:
  Communicator& ranks_;
  int64_t round_;
  std::vector<Array> sent_;
};

void exchange_in_windows(Communicator& ranks) {
  const Device device = ranks.device();
  const auto window = ranks.open_window(Array::zeros({ranks.size(), kSlot}, DType::u8, device));
  for (int64_t round = 0; round < 6; ++round) {
    const Round one(ranks, round);
    one.run(*window);
    one.check_received(window->memory());
  }
  // Blocks of unequal length, of which each rank has its own in the middle of a window.
  const std::vector<int64_t> places = {16, 1000, 1001, 5000, 9000};
  const Array values = Array::full({9000}, 255, DType::u8, device);
  const auto gathered = ranks.open_window(values);
  std::vector<Block> blocks;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    const auto r = static_cast<size_t>(rank);
    const Array part = values.slice(0, places[r], places[r + 1]);
    if (rank == ranks.rank()) part.fill(rank);
    blocks.push_back({part.data(), part.bytes()});
  }
  ranks.all_gather(blocks, *gathered);
  const std::vector<uint8_t> found = values.to_vector<uint8_t>();
  for (int64_t i = 0; i < 9000; ++i) {
    int expected = 255;
    for (int rank = 0; rank < ranks.size(); ++rank)
      if (i >= places[static_cast<size_t>(rank)] && i < places[static_cast<size_t>(rank) + 1])
        expected = rank;
    check(found[static_cast<size_t>(i)] == expected, "byte ", i, " is ",
          int{found[static_cast<size_t>(i)]}, ", not ", expected);
  }
}

void check_windows(int size, const std::function<Device(int rank)>& device_of) {
  const std::vector<std::string> errors = run_ranks(size, [&](dist::World& world) {
    exchange_in_windows(world.communicator(device_of(world.rank())));
  });
  for (const std::string& error : errors) CHECK(error == "");
}

}  // namespace

TEST_CASE("windows: every byte comes, and to its place", "[dist]") {
  for (const int size : {2, 3, 4}) check_windows(size, [](int) { return Device::cpu(); });
}

TEST_CASE("windows: what does not lie in one is refused", "[dist]") {
  const std::vector<std::string> errors = run_ranks(2, [](dist::World& world) {
    Communicator& ranks = world.communicator();
    const Array memory = Array::zeros({2, 16}, DType::u8), other = Array::zeros({16}, DType::u8);
    const auto window = ranks.open_window(memory);
    std::string refusals;
    for (const Block& block : {Block{other.data(), 16}, Block{memory.select(0, 1).data(), 17}}) {
      std::vector<Block> blocks(2, {other.data(), block.bytes});
      std::vector<Block> receive = blocks;
      receive[static_cast<size_t>(1 - ranks.rank())] = block;
      try {
        ranks.all_to_all(blocks, receive, *window, 0);
      } catch (const Error& error) {
        refusals += error.what();
      }
      try {
        ranks.all_gather({block, block}, *window);
      } catch (const Error& error) {
        refusals += error.what();
      }
    }
    constexpr std::string_view kText = "lies outside of the window";
    size_t found = 0;
    for (size_t at = refusals.find(kText); at != std::string::npos;
         at = refusals.find(kText, at + 1))
      ++found;
    check(found == 4, found, " refusals: ", refusals);
    std::vector<Block> inside;
    for (int rank = 0; rank < 2; ++rank) inside.push_back({memory.select(0, rank).data(), 16});
    for (const int64_t offset : {-1, 17, 32}) {
      refusals.clear();
      try {
        ranks.all_to_all(inside, inside, *window, offset);
      } catch (const Error& error) {
        refusals = error.what();
      }
      check(refusals.find("lies outside of a window of 32") != std::string::npos, "byte ", offset,
            ": ", refusals);
    }
    ranks.open_window(memory.transpose(0, 1));
  });
  for (const std::string& error : errors) CHECK_THAT(error, Contains("is contiguous memory"));
}

#if BINADE_HAVE_CUDA

namespace {

int gpu_ranks() {
  return std::min(cuda_device_count(), 4);
}

std::vector<std::string> run_gpu_ranks(const std::function<void(Communicator&)>& body) {
  return run_ranks(gpu_ranks(), [&](dist::World& world) {
    body(world.communicator(Device::cuda(world.rank())));
  });
}

}  // namespace

TEST_CASE("windows: GPUs of one host copy every byte to its place", "[cuda][dist]") {
  require_two_gpus();
  check_windows(gpu_ranks(), [](int rank) { return Device::cuda(rank); });
}

TEST_CASE("windows: captured verbs bring what each replay sends", "[cuda][dist]") {
  require_two_gpus();
  const std::vector<std::string> errors = run_gpu_ranks([](Communicator& ranks) {
    const Device device = ranks.device();
    const int size = ranks.size();
    const Array received = Array::zeros({size, 1000}, DType::f32, device);
    const Array own = Array::zeros({size, 1000}, DType::f32, device);
    const Array sums = Array::zeros({size, 1000}, DType::f32, device);
    SideQueue queue(device);
    const auto verb = [&](const Communicator::Window& window) {
      std::vector<Block> send, receive;
      for (int peer = 0; peer < size; ++peer) {
        send.push_back({own.select(0, peer).data(), 4000});
        receive.push_back({received.select(0, peer).data(), 4000});
      }
      ranks.all_to_all(send, receive, window, ranks.rank() * 4000);
    };
    // Three verbs beside each other's users, as a step has them: the window is not written before
    // it was read.
    auto window = ranks.open_window(received);
    const auto work = [&] {
      for (int turn = 0; turn < 3; ++turn) {
        BINADE_DISPATCH(device, fill(own.select(0, 0), turn));
        queue.wait(queue.run([&] {
          verb(*window);
          BINADE_DISPATCH(device, axpy(1, received, sums));
        }));
      }
    };
    for (int peer = 0; peer < size; ++peer) own.select(0, peer).fill(10 * ranks.rank() + peer);
    cuda::CapturedGraph graph = cuda::CapturedGraph::capture(work, device);
    window = nullptr;  // the graph holds it
    ranks.open_window(Array::zeros({1}, DType::u8, device));
    constexpr int kReplays = 50;
    for (int i = 0; i < kReplays; ++i) graph.replay();
    const std::vector<float> found = sums.to_vector<float>();
    for (int peer = 0; peer < size; ++peer) {
      // Rank 0 is sent 0, 1 and 2 by everybody.
      const double once = ranks.rank() == 0 ? 3 : 3.0 * (10 * peer + ranks.rank());
      for (size_t i = 0; i < 1000; ++i)
        check(found[static_cast<size_t>(peer) * 1000 + i] == kReplays * once, "element ", i,
              " of rank ", peer, " is ", found[static_cast<size_t>(peer) * 1000 + i], ", not ",
              kReplays * once);
    }
  });
  for (const std::string& error : errors) CHECK(error == "");
}

TEST_CASE("windows: memory goes when no rank uses it", "[cuda][dist]") {
  require_two_gpus();
  const std::vector<std::string> errors = run_gpu_ranks([](Communicator& ranks) {
    std::weak_ptr<Storage> first;
    {
      const Array memory = Array::zeros({ranks.size(), kSlot}, DType::u8, ranks.device());
      first = memory.storage();
      const auto window = ranks.open_window(memory);
      Round(ranks, 1).run(*window);
    }
    check(!first.expired(), "others may still write there");
    const auto second =
        ranks.open_window(Array::zeros({ranks.size(), kSlot}, DType::u8, ranks.device()));
    check(first.expired(), "a window that nobody uses holds its memory");
    const Round round(ranks, 2);
    round.run(*second);
    round.check_received(second->memory());
  });
  for (const std::string& error : errors) CHECK(error == "");
}

TEST_CASE("windows: unequal ones are refused", "[cuda][dist]") {
  require_two_gpus();
  const std::vector<std::string> errors = run_gpu_ranks([](Communicator& ranks) {
    ranks.open_window(Array::zeros({64 + ranks.rank()}, DType::u8, ranks.device()));
  });
  for (const std::string& error : errors) CHECK_THAT(error, Contains("a window has 6"));
}

TEST_CASE("windows: a setting of copies that there is not is refused", "[cuda][dist]") {
  require_two_gpus();
  ::setenv("BINADE_PEER_COPIES", "off", 1);
  const std::vector<std::string> errors =
      run_gpu_ranks([](Communicator& ranks) { ranks.barrier(); });
  ::unsetenv("BINADE_PEER_COPIES");
  for (const std::string& error : errors) CHECK_THAT(error, Contains("is 0 or 1, got \"off\""));
}

TEST_CASE("windows: a rank that never comes does not hold the others up", "[cuda][dist]") {
  require_two_gpus();
  const std::vector<std::string> errors = run_gpu_ranks([](Communicator& ranks) {
    const auto window =
        ranks.open_window(Array::zeros({ranks.size(), kSlot}, DType::u8, ranks.device()));
    check(ranks.rank() != 0, "this one fails");
    const Round round(ranks, 3);
    for (int i = 0; i < 20; ++i) round.run(*window);
    round.check_received(window->memory());  // waits for the device
  });
  for (const std::string& error : errors)
    CHECK_THAT(error, Contains("rank 0") || Contains("this one fails") || Contains("is wrong"));
}

#endif
