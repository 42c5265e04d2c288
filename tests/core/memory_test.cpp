#include <binade/core/memory.h>

#include <sys/resource.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include <unistd.h>

#include <catch2/catch.hpp>

#include <binade/core/array.h>
#include <binade/core/host_memory.h>
#include <binade/core/text.h>
#include <binade/core/transfer.h>

#include "skip.h"

using namespace binade;
using Catch::Contains;

namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

MemoryStats stats() {
  return memory_stats(Device::cpu());
}

}  // namespace

TEST_CASE("CPU blocks are aligned for vectors, empty ones included", "[memory]") {
  std::vector<Array> arrays;
  for (const int64_t bytes : {0, 1, 63, 64, 65, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1}) {
    arrays.push_back(Array::empty({bytes}, DType::u8));
    const void* data = arrays.back().data();
    REQUIRE(data != nullptr);
    CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0);
    std::memset(arrays.back().data(), 1, static_cast<size_t>(bytes));
  }
}

TEST_CASE("large CPU blocks begin at a huge page", "[memory]") {
  for (const int64_t bytes : {2 * kMiB, 5 * kMiB + 123}) {
    const Array array = Array::full({bytes}, 7, DType::u8);
    CHECK(reinterpret_cast<uintptr_t>(array.data()) % (2 * kMiB) == 0);
    CHECK(array.select(0, bytes - 1).item() == 7);
  }
}

TEST_CASE("a freed CPU block is handed out again", "[memory]") {
  void* first = allocate_bytes(3 * kMiB, Device::cpu());
  free_bytes(first, 3 * kMiB, Device::cpu());
  const int64_t reserved = stats().reserved;
  void* second = allocate_bytes(3 * kMiB - 100, Device::cpu());  // rounds to the same size
  CHECK(second == first);
  CHECK(stats().reserved == reserved);
  void* third = allocate_bytes(3 * kMiB, Device::cpu());
  CHECK(third != second);
  free_bytes(second, 3 * kMiB - 100, Device::cpu());
  free_bytes(third, 3 * kMiB, Device::cpu());
}

TEST_CASE("the CPU pool counts what is in use, and its peak", "[memory]") {
  reset_peak_memory(Device::cpu());
  const MemoryStats before = stats();
  CHECK(before.peak_in_use == before.in_use);
  CHECK(before.peak_reserved == before.reserved);
  {
    const Array a = Array::empty({5 * kMiB}, DType::u8);
    {
      const Array b = Array::empty({7 * kMiB}, DType::u8);
      CHECK(stats().in_use == before.in_use + 12 * kMiB);
    }
    CHECK(stats().in_use == before.in_use + 5 * kMiB);
  }
  CHECK(stats().in_use == before.in_use);
  CHECK(stats().peak_in_use == before.in_use + 12 * kMiB);
  CHECK(stats().peak_reserved >= stats().peak_in_use);
  reset_peak_memory(Device::cpu());
  CHECK(stats().peak_in_use == before.in_use);
}

TEST_CASE("views and handles hold memory once", "[memory]") {
  const int64_t before = stats().in_use;
  Array view;
  {
    const Array array = Array::empty({kMiB}, DType::f32);
    view = array.slice(0, 5, 6);
  }
  CHECK(stats().in_use == before + 4 * kMiB);
  view = {};
  CHECK(stats().in_use == before);
}

TEST_CASE("releasing the cache keeps what is in use", "[memory]") {
  release_cached_memory(Device::cpu());  // at its bound, it would let go of everything by itself
  const Array kept = Array::full({kMiB}, 3, DType::u8);
  { const Array freed = Array::empty({9 * kMiB}, DType::u8); }
  CHECK(stats().reserved >= stats().in_use + 9 * kMiB);
  release_cached_memory(Device::cpu());
  CHECK(stats().reserved == stats().in_use);
  CHECK(kept.select(0, kMiB - 1).item() == 3);
}

TEST_CASE("the cache of freed CPU blocks is bounded by what was in use", "[memory]") {
  release_cached_memory(Device::cpu());
  reset_peak_memory(Device::cpu());
  // Sizes that never come back, as in generation token by token; nothing is touched.
  const int64_t in_use = stats().in_use;
  int64_t most = 0;
  for (int64_t i = 1; i <= 64; ++i) {
    { const Array array = Array::empty({16 * kMiB + i * (1 << 16)}, DType::u8); }
    most = std::max(most, stats().reserved);
  }
  CHECK(most <= 2 * in_use + 256 * kMiB + 64 * kMiB);
  release_cached_memory(Device::cpu());
}

TEST_CASE("nearly equal sizes share freed CPU blocks", "[memory]") {
  release_cached_memory(Device::cpu());
  const MemoryStats before = stats();
  const auto reserved = [&] { return stats().reserved - before.reserved; };
  const auto in_use = [&] { return stats().in_use - before.in_use; };
  { const Array first = Array::empty({9 * kMiB}, DType::u8); }
  for (const int64_t bytes : {9 * kMiB, 8 * kMiB, 9 * kMiB - (1 << 16), 8 * kMiB + (1 << 16)}) {
    const Array array = Array::empty({bytes}, DType::u8);
    INFO(bytes);
    CHECK(in_use() == bytes);
    CHECK(reserved() == 9 * kMiB);
  }
  // Further away, larger or two at a time: blocks of their own, all of which come back.
  {
    const Array smaller = Array::empty({8 * kMiB - (1 << 16)}, DType::u8);
    CHECK(reserved() == 17 * kMiB - (1 << 16));
    const Array shared = Array::empty({8 * kMiB}, DType::u8);
    CHECK(reserved() == 17 * kMiB - (1 << 16));
    const Array larger = Array::empty({9 * kMiB + (1 << 16)}, DType::u8);
    CHECK(reserved() == 26 * kMiB);
  }
  CHECK(in_use() == 0);
  CHECK(reserved() == 26 * kMiB);
  release_cached_memory(Device::cpu());
  CHECK(stats().reserved == before.reserved);
}

TEST_CASE("out of CPU memory: the message has what was asked, what is in use, what to lower",
          "[memory][bad-input]") {
  const Array held = Array::empty({kMiB}, DType::u8);
  const MemoryStats before = stats();
  const int64_t asked = int64_t{1} << 50;
  try {
    Array::empty({asked}, DType::u8);
    FAIL("a petabyte was given");
  } catch (const OutOfMemory& error) {
    CHECK_THAT(error.what(), Contains(std::to_string(asked)) &&
                                 Contains(std::to_string(before.in_use)) && Contains("lower"));
  }
  CHECK_THROWS_AS(Array::empty({INT64_MAX}, DType::u8), OutOfMemory);
  CHECK_THROWS_AS(Array::empty({INT64_MAX / 8}, DType::f64), OutOfMemory);
  // A request that failed leaves no trace, in the peak least of all.
  CHECK(stats().in_use == before.in_use);
  CHECK(stats().peak_in_use == before.peak_in_use);
  CHECK(stats().peak_reserved == before.peak_reserved);
}

TEST_CASE("more memory than the machine has left is refused, not promised", "[memory][bad-input]") {
  const std::optional<HostMemory> machine = host_memory();
  if (!machine) test::skip("the system does not say how much memory it has");
  // Freed pages of other processes may be had, too: twice what there is in all.
  const int64_t asked = 2 * (machine->total + machine->available);
  CHECK_THROWS_WITH(Array::empty({asked}, DType::u8),
                    Contains(gib(asked)) && Contains(gib(machine->total)) &&
                        Contains("are available") && Contains("lower the batch size"));
  const Array small = Array::empty({kMiB}, DType::u8);  // nothing is wrong with these
  CHECK(small.defined());
}

TEST_CASE("a negative number of bytes is refused", "[memory][bad-input]") {
  CHECK_THROWS_AS(allocate_bytes(-1, Device::cpu()), Error);
}

TEST_CASE("cached blocks are given up before memory is refused", "[memory]") {
#ifdef __SANITIZE_ADDRESS__
  test::skip("AddressSanitizer ends the process where the system refuses memory");
#endif
  release_cached_memory(Device::cpu());
  { const Array cached = Array::empty({96 * kMiB}, DType::u8); }
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_AS, &before) == 0);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(pages * ::sysconf(_SC_PAGESIZE) + 32 * kMiB);
  REQUIRE(::setrlimit(RLIMIT_AS, &tight) == 0);
  bool given = false, refused = false;
  try {
    const Array other = Array::empty({112 * kMiB}, DType::u8);  // fits where the cached block was
    given = true;
  } catch (const OutOfMemory&) {
  }
  try {
    const Array large = Array::empty({512 * kMiB}, DType::u8);
  } catch (const OutOfMemory&) {
    refused = true;
  }
  REQUIRE(::setrlimit(RLIMIT_AS, &before) == 0);
  CHECK(given);
  CHECK(refused);
}

TEST_CASE("threads share the CPU pool", "[memory]") {
  const int64_t before = stats().in_use;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([t] {
        for (int64_t i = 1; i <= 200; ++i) {
          const Array array = Array::empty({i * 1000}, DType::u8);
          std::memset(array.data(), t, static_cast<size_t>(array.bytes()));
        }
      });
  }
  CHECK(stats().in_use == before);
}

TEST_CASE("page-locked memory is plain memory where there is no GPU", "[memory]") {
  const Array pinned = pinned_array({2, 3}, DType::f32);
  pinned.fill(2);
  CHECK(pinned.to_vector<float>() == std::vector<float>(6, 2.0f));
  CHECK(is_pinned(pinned.data()) == (cuda_device_count() > 0));
  CHECK_FALSE(is_pinned(&pinned));
}

TEST_CASE("on the CPU queued copies are done at once", "[transfer]") {
  const Array source = Array::arange(6, DType::f32).view({2, 3});
  const Array target = Array::zeros({2, 3}, DType::f32);
  copy_queued(source, target);
  const Fence fence = Fence::after_queued_work(Device::cpu());
  CHECK(fence.passed());
  fence.wait();
  CHECK(target.to_vector<float>() == source.to_vector<float>());
  CHECK_THROWS_AS(copy_queued(source, Array::zeros({3, 2}, DType::f32)), Error);
  CHECK_THROWS_AS(copy_queued(source.transpose(0, 1), Array::zeros({3, 2}, DType::f32)), Error);
  CHECK_THROWS_AS(copy_queued(source, Array::zeros({2, 3}, DType::f16)), Error);
}

TEST_CASE("an uploader converts and a downloader hands out copies in order", "[transfer]") {
  Uploader uploader(Array::zeros({2}, DType::f16));
  Downloader downloader;
  for (const float value : {1.0f, 2.0f, 3.0f}) {
    uploader.upload(Array::full({2}, value, DType::f32));
    downloader.download(uploader.destination());
  }
  const std::vector<Array> arrived = downloader.take(true);
  REQUIRE(arrived.size() == 3);
  for (size_t i = 0; i < 3; ++i)
    CHECK(arrived[i].to_vector<float>() == std::vector<float>(2, static_cast<float>(i + 1)));
  CHECK(downloader.take().empty());
}
