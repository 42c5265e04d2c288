// The GPU's memory pool, captured graphs and host synchronisations.
#include <binade/core/device.h>

#if BINADE_HAVE_CUDA

#include <array>
#include <map>

#include <binade/core/cuda/block_allocator.h>
#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/cuda/pool.h>
#include <binade/core/kernels/cuda/common/layout.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/random.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/softmax.h>
#include <binade/core/kernels/sort.h>
#include <binade/core/memory.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;
using binade::cuda::BlockAllocator;
using binade::cuda::CapturedGraph;
using binade::kernels::cuda::FastDivisor;
using binade::kernels::cuda::Layout;
using binade::kernels::cuda::make_layout;
using binade::kernels::cuda::Order;

namespace {

const Device kGpu = test_gpu();
constexpr int64_t kMiB = 1 << 20;

// An allocator over addresses that nobody touches.
struct FakeDevice {
  int64_t capacity;
  int64_t mapped = 0;
  uintptr_t next = uintptr_t{1} << 40;
  MemoryStats stats;
  BlockAllocator allocator{stats,
                           [this](int64_t bytes) -> void* {
                             if (mapped + bytes > capacity) return nullptr;
                             mapped += bytes;
                             const uintptr_t data = next;
                             next += static_cast<uintptr_t>(bytes);
                             return reinterpret_cast<void*>(data);
                           },
                           [this](void*, int64_t bytes) { mapped -= bytes; }};
};

std::vector<char> bytes_of(const Array& array) {
  const Array host = array.contiguous().to(Device::cpu());
  const char* data = static_cast<const char*>(host.data());
  return {data, data + host.bytes()};
}

// Work that goes through sorts, chunked sums, scratch memory and random draws.
struct Work {
  Array x, index, step;
  Array table, total, probabilities, order, values, dropped, running;

  Work() {
    Random random(61);
    const auto put = [](const Array& array) { return on_device(array, kGpu); };
    x = put(random_array({600, 40}, DType::f16, random));
    index = Array::zeros({600}, DType::i64);
    for (int64_t i = 0; i < 600; ++i) write(index, i, static_cast<double>(random() % 30));
    index = put(index);
    step = Array::full({}, 1, DType::i64, kGpu);
    table = Array::zeros({50, 40}, DType::f16, kGpu);
    total = Array::zeros({1, 40}, DType::f32, kGpu);
    probabilities = Array::zeros({600, 40}, DType::bf16, kGpu);
    values = Array::zeros({600, 40}, DType::f16, kGpu);
    order = Array::zeros({600, 40}, DType::i64, kGpu);
    dropped = Array::zeros({600, 40}, DType::f16, kGpu);
    running = Array::zeros({600, 40}, DType::f16, kGpu);
  }
  void operator()() const {
    const Array doubled = Array::empty(x.shape(), x.dtype(), kGpu);
    BINADE_DISPATCH(kGpu, binary(BinaryOp::add, x, x, doubled));
    BINADE_DISPATCH(kGpu, embedding_backward(doubled, index, table, 1));
    BINADE_DISPATCH(kGpu, reduce(ReduceOp::sum, doubled, total, 0));
    BINADE_DISPATCH(kGpu, softmax(x, probabilities));
    BINADE_DISPATCH(kGpu, sort(doubled, 1, true, values, order));
    BINADE_DISPATCH(kGpu, dropout(x, {.seed = 3, .step = step, .place = 0}, 0.5f, dropped, 0));
    BINADE_DISPATCH(kGpu, cumsum(dropped, 0, false, running));
  }
  std::array<Array, 7> outputs() const {
    return {table, total, probabilities, values, order, dropped, running};
  }
};

}  // namespace

// ---- what runs without a GPU --------------------------------------------------------------------

TEST_CASE("blocks never overlap, and free neighbours become one", "[cuda][pool]") {
  FakeDevice device{.capacity = int64_t{1} << 30};
  Random random(51);
  std::map<char*, int64_t> live;
  for (int round = 0; round < 20000; ++round) {
    if (live.size() < 60 && random() % 2 == 0) {
      const auto bytes = static_cast<int64_t>(random() % (random() % 3 == 0 ? 40 * kMiB : 90000));
      auto* data = static_cast<char*>(device.allocator.allocate(bytes));
      if (data == nullptr) {
        device.allocator.release_unused();
        continue;
      }
      const auto after = live.lower_bound(data);
      REQUIRE((after == live.end() || data + bytes <= after->first));
      REQUIRE(
          (after == live.begin() || std::prev(after)->first + std::prev(after)->second <= data));
      live[data] = bytes;
    } else if (!live.empty()) {
      const auto victim = std::next(live.begin(), static_cast<int64_t>(random() % live.size()));
      REQUIRE(device.allocator.free(victim->first));
      live.erase(victim);
    }
    REQUIRE(device.mapped == device.stats.reserved);
    REQUIRE(device.stats.in_use <= device.stats.reserved);
  }
  for (const auto& [data, bytes] : live) device.allocator.free(data);
  CHECK(device.stats.in_use == 0);
  device.allocator.release_unused();  // works only if all neighbours were merged
  CHECK(device.mapped == 0);
}

TEST_CASE("the best fitting block is taken and the rest stays free", "[cuda][pool]") {
  FakeDevice device{.capacity = int64_t{1} << 30};
  BlockAllocator& pool = device.allocator;
  void* large = pool.allocate(30 * kMiB);
  void* wall = pool.allocate(2 * kMiB);
  void* tight = pool.allocate(10 * kMiB);
  void* end = pool.allocate(2 * kMiB);
  CHECK(device.mapped == BlockAllocator::kLargeSegment);
  pool.free(large);
  pool.free(tight);
  CHECK(pool.allocate(9 * kMiB) == tight);
  CHECK(pool.allocate(25 * kMiB) == large);
  void* const rest = static_cast<char*>(large) + 25 * kMiB;
  CHECK(pool.allocate(5 * kMiB) == rest);
  CHECK(device.mapped == BlockAllocator::kLargeSegment);
  CHECK_FALSE(pool.free(static_cast<char*>(wall) + 512));
  CHECK(pool.free(end));
  CHECK(pool.allocate(int64_t{2} << 30) == nullptr);
}

TEST_CASE("the fast division is exact", "[cuda][elementwise]") {
  Random random(52);
  const auto check_pair = [](int64_t n, int64_t d) {
    const FastDivisor divisor = FastDivisor::of(d);
    const auto high = static_cast<uint64_t>(n) * divisor.multiplier >> 32;
    const auto quotient = static_cast<uint32_t>(high + static_cast<uint64_t>(n)) >> divisor.shift;
    REQUIRE(quotient == n / d);
  };
  for (int64_t d = 1; d < 300; ++d)
    for (const int64_t n : {int64_t{0}, d - 1, d, 7 * d - 1, 7 * d, int64_t{INT32_MAX}})
      check_pair(n, d);
  for (int i = 0; i < 100000; ++i)
    check_pair(static_cast<int64_t>(random() >> 33),
               1 + static_cast<int64_t>(random() >> (33 + random() % 30)));
}

TEST_CASE("layouts collapse what they can and cut rows into items", "[cuda][elementwise]") {
  const Array dense = Array::empty({4, 6, 16}, DType::f16);
  CHECK(make_layout({&dense, &dense}, 8).dims == 1);
  CHECK(make_layout({&dense, &dense}, 8).items == 48);

  const Array bias = Array::empty({16}, DType::f16).expand({4, 6, 16});
  const Layout biased = make_layout({&dense, &bias}, 8);
  CHECK(biased.dims == 2);
  CHECK(biased.vec == 8);
  CHECK(biased.sizes[0] == 2);
  CHECK(biased.strides[1][1] == 0);

  const Array exchanged = dense.transpose(0, 2);  // both laid out alike: dense after all
  CHECK(make_layout({&exchanged, &exchanged}, 8).dims == 1);
  CHECK(make_layout({&exchanged, &exchanged}, 8).vec == 8);
  CHECK(make_layout({&exchanged, &exchanged}, 8, Order::row_major).vec == 1);

  const Array shifted = Array::empty({385}, DType::f16).slice(0, 1).view({4, 6, 16});
  CHECK(make_layout({&dense, &shifted}, 8).vec == 1);
  const Array column = Array::empty({4, 6, 1}, DType::f16).expand({4, 6, 16});
  CHECK(make_layout({&dense, &column}, 8).splat[1]);
  const Array odd = Array::empty({3, 7}, DType::f16);  // 21 elements: the last item is partial
  CHECK(make_layout({&odd, &odd}, 8).items == 3);
}

// ---- memory -------------------------------------------------------------------------------------

TEST_CASE("freed device memory is used again and peaks are counted", "[cuda][pool]") {
  require_gpu();
  reset_peak_memory(kGpu);
  const MemoryStats before = memory_stats(kGpu);
  void* first = allocate_bytes(10 * kMiB, kGpu);
  CHECK(reinterpret_cast<uintptr_t>(first) % 256 == 0);
  CHECK(memory_stats(kGpu).in_use == before.in_use + 10 * kMiB);
  free_bytes(first, 10 * kMiB, kGpu);
  void* second = allocate_bytes(10 * kMiB, kGpu);
  CHECK(second == first);
  free_bytes(second, 10 * kMiB, kGpu);
  const MemoryStats after = memory_stats(kGpu);
  CHECK(after.in_use == before.in_use);
  CHECK(after.peak_in_use == before.in_use + 10 * kMiB);
  CHECK(after.reserved >= after.in_use);
  CHECK(after.device_total > 0);

  void* nothing = allocate_bytes(0, kGpu);
  CHECK(nothing != nullptr);
  free_bytes(nothing, 0, kGpu);

  void* big = allocate_bytes(100 * kMiB, kGpu);
  const int64_t reserved = memory_stats(kGpu).reserved;
  free_bytes(big, 100 * kMiB, kGpu);
  release_cached_memory(kGpu);
  CHECK(memory_stats(kGpu).reserved <= reserved - 100 * kMiB);
}

TEST_CASE("out of GPU memory says what was asked, what is in use and what to lower",
          "[cuda][pool]") {
  require_gpu();
  const int64_t bytes = 2 * memory_stats(kGpu).device_total;
  try {
    allocate_bytes(bytes, kGpu);
    FAIL("twice the card's memory was given out");
  } catch (const OutOfMemory& error) {
    const std::string text = error.what();
    CHECK_THAT(text, Catch::Contains(std::to_string(bytes)));
    CHECK_THAT(text, Catch::Contains("in use by arrays"));
    CHECK_THAT(text, Catch::Contains("batch size"));
  }
  CHECK_NOTHROW(Array::zeros({1000}, DType::f32, kGpu).to_vector<float>());
}

TEST_CASE("page-locked memory travels both ways", "[cuda][pool]") {
  require_gpu();
  const std::shared_ptr<void> pinned = allocate_pinned(4000);
  const Array host = Array::from_blob(pinned.get(), {1000}, DType::f32, Device::cpu(), pinned);
  for (int64_t i = 0; i < 1000; ++i) write(host, i, static_cast<double>(i));
  const Array there = Array::zeros({1000}, DType::f32, kGpu);
  binade::cuda::copy_async(there.data(), kGpu, host.data(), Device::cpu(), 4000);
  synchronize(kGpu);
  set_all(host, 0);
  binade::cuda::copy_and_wait(host.data(), Device::cpu(), there.data(), kGpu, 4000);
  CHECK(read(host, 999) == 999);
}

// ---- graphs -------------------------------------------------------------------------------------

TEST_CASE("a replayed graph gives the same bits as running its work", "[cuda][graph]") {
  require_gpu();
  const Work work;
  const auto run_twice = [&](const auto& run) {
    std::vector<std::vector<char>> seen;
    for (int64_t step = 1; step <= 2; ++step) {
      for (const Array& output : work.outputs()) output.fill(1);
      work.step.fill(static_cast<double>(step));
      run();
      for (const Array& output : work.outputs()) seen.push_back(bytes_of(output));
    }
    return seen;
  };
  const auto eager = run_twice(work);
  CHECK((eager[5] != eager[12]));  // dropout drew anew in the second step

  CapturedGraph graph = CapturedGraph::capture(work, kGpu);
  CHECK(graph.node_count() >= 10);
  const int64_t waits = binade::cuda::host_synchronisations();
  graph.replay();
  CHECK(binade::cuda::host_synchronisations() == waits);
  CHECK((run_twice([&] { graph.replay(); }) == eager));
}

TEST_CASE("capturing executes nothing", "[cuda][graph]") {
  require_gpu();
  const Array x = Array::zeros({100}, DType::f32, kGpu);
  CapturedGraph graph = CapturedGraph::capture([&] { x.fill(1); }, kGpu);
  CHECK(x.to_vector<float>()[99] == 0);
  graph.replay();
  CHECK(x.to_vector<float>()[99] == 1);
}

TEST_CASE("a replay counts as a write to what the graph writes", "[cuda][graph]") {
  require_gpu();
  const Array written = Array::zeros({100}, DType::f32, kGpu);
  const Array read = Array::zeros({100}, DType::f32, kGpu);
  std::weak_ptr<Storage> gone;
  CapturedGraph graph = CapturedGraph::capture(
      [&] {
        const Array temporary = Array::full({100}, 1, DType::f32, kGpu);
        gone = temporary.storage();
        written.copy_from(temporary);
      },
      kGpu);
  CHECK(gone.expired());
  const uint64_t writes = written.storage()->version(), reads = read.storage()->version();
  for (uint64_t replay = 1; replay <= 3; ++replay) {
    graph.replay();
    CHECK(written.storage()->version() == writes + replay);
  }
  CHECK(read.storage()->version() == reads);
}

TEST_CASE("a graph has memory of its own until it is gone", "[cuda][graph]") {
  require_gpu();
  const int64_t bytes = 8 * kMiB;
  const int64_t in_use = memory_stats(kGpu).in_use;
  std::vector<void*> inside;
  Array held = Array::empty({bytes}, DType::u8, kGpu);
  void* const held_data = held.data();
  {
    CapturedGraph graph = CapturedGraph::capture(
        [&] {
          for (int i = 0; i < 2; ++i) {
            const Array temporary = Array::empty({bytes}, DType::u8, kGpu);
            temporary.fill(i);
            inside.push_back(temporary.data());
          }
          held.fill(1);
          held = {};  // the graph writes there: nobody else may have it
        },
        kGpu);
    CHECK(inside[0] == inside[1]);
    std::vector<Array> outside;
    for (int i = 0; i < 12; ++i) {
      outside.push_back(Array::empty({bytes}, DType::u8, kGpu));
      CHECK(outside.back().data() != inside[0]);
      CHECK(outside.back().data() != held_data);
    }
    CHECK(memory_stats(kGpu).in_use == in_use + 13 * bytes);
    graph.replay();
  }
  CHECK(memory_stats(kGpu).in_use == in_use);
}

TEST_CASE("an array made inside a capture outlives the graph", "[cuda][graph]") {
  require_gpu();
  const int64_t in_use = memory_stats(kGpu).in_use;
  Array made;
  CapturedGraph graph = CapturedGraph::capture(
      [&] {
        made = Array::empty({1000}, DType::f32, kGpu);
        made.fill(5);
      },
      kGpu);
  graph.replay();
  graph = {};
  const Array other = Array::full({1000}, 9, DType::f32, kGpu);
  CHECK(made.to_vector<float>()[999] == 5);
  made = {};
  CHECK(memory_stats(kGpu).in_use == in_use + 4096);
}

TEST_CASE("waiting for the GPU inside a capture is refused with a sentence", "[cuda][graph]") {
  require_gpu();
  const Array x = Array::full({1}, 4, DType::f32, kGpu);
  CHECK_THROWS_WITH(CapturedGraph::capture([&] { x.item(); }, kGpu),
                    Catch::Contains("captured as a CUDA graph"));
  CHECK_THROWS_AS(CapturedGraph::capture([&] { synchronize(kGpu); }, kGpu), Error);
  CHECK_THROWS_WITH(CapturedGraph::capture([&] { CapturedGraph::capture([] {}, kGpu); }, kGpu),
                    Catch::Contains("inside another"));
  CHECK_FALSE(binade::cuda::is_capturing());
  CHECK(x.item() == 4);
}

TEST_CASE("host synchronisations are counted", "[cuda][graph]") {
  require_gpu();
  const Work work;
  const int64_t before = binade::cuda::host_synchronisations();
  work();
  CHECK(binade::cuda::host_synchronisations() == before);
  synchronize(kGpu);
  CHECK(binade::cuda::host_synchronisations() == before + 1);
}

#endif  // BINADE_HAVE_CUDA
