// Several GPUs: each call works on the device of its arrays, whichever is current. The rest of the
// suite runs on the second one with BINADE_TEST_DEVICE=cuda:1.
#include <binade/core/device.h>

#if BINADE_HAVE_CUDA

#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/device_scope.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/cuda/libraries.h>
#include <binade/core/device_errors.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/matmul.h>
#include <binade/core/random.h>
#include <binade/core/transfer.h>

#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using binade::cuda::CapturedGraph;
using binade::cuda::current_device;
using binade::cuda::DeviceScope;
using Catch::Contains;
using kernels::BinaryOp;

namespace {

const Device kFirst = Device::cuda(0), kSecond = Device::cuda(1);

// (x·w + x)·2 by a library and two kernels.
Array compute(const Array& x, const Array& w) {
  const Array out = Array::empty({x.size(0), w.size(1)}, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), matmul(x, w, out, {}));
  BINADE_DISPATCH(x.device(), binary(BinaryOp::add, out, x, out));
  BINADE_DISPATCH(x.device(), binary(BinaryOp::add, out, out, out));
  return out;
}

}  // namespace

TEST_CASE("a kernel refuses arrays of another device", "[cuda][devices]") {
  require_gpu();
  const Array here = Array::full({4, 4}, 1, DType::f32, test_gpu()), out = here.clone();
  std::vector<Array> elsewhere = {Array::full({4, 4}, 1, DType::f32)};
  if (cuda_device_count() > 1)
    elsewhere.push_back(elsewhere[0].to(test_gpu() == kFirst ? kSecond : kFirst));
  for (const Array& other : elsewhere) {
    INFO(other.device());
    const auto check_refused = [&](const auto& call) {
      CHECK_THROWS_WITH(call(), Contains("one device") && Contains(concat(other.device())) &&
                                    Contains(concat(test_gpu())));
    };
    const auto add = [&](const Array& a, const Array& b, const Array& to) {
      BINADE_DISPATCH(test_gpu(), binary(BinaryOp::add, a, b, to));
    };
    check_refused([&] { add(here, other, out); });
    check_refused([&] { add(other, here, out); });
    check_refused([&] { add(here, here, other); });
    const auto multiply = [&](const Array& a, const Array& b, const Array& to) {
      BINADE_DISPATCH(test_gpu(), matmul(a, b, to, {}));
    };
    check_refused([&] { multiply(here, other, out); });
    check_refused([&] { multiply(other, here, out); });
    check_refused([&] { multiply(here, here, other); });
  }
  CHECK(out.to_vector<float>() == std::vector<float>(16, 1));
}

TEST_CASE("a device scope makes a device current and the last one again", "[cuda][devices]") {
  require_two_gpus();
  CHECK(current_device() == 0);
  {
    const DeviceScope outer(kSecond);
    CHECK(current_device() == 1);
    {
      const DeviceScope same(kSecond);
      const DeviceScope inner(kFirst);
      CHECK(current_device() == 0);
    }
    CHECK(current_device() == 1);
  }
  CHECK(current_device() == 0);
  CHECK_THROWS_WITH(DeviceScope(Device::cuda(cuda_device_count())), Contains("there is no device"));
  CHECK_THROWS_WITH(DeviceScope(Device::cpu()), Contains("cpu"));
  CHECK(current_device() == 0);
}

TEST_CASE("work on two GPUs may be interleaved while either is current", "[cuda][devices]") {
  require_two_gpus();
  Random random(81);
  const Array x = random_array({96, 64}, DType::f32, random),
              w = random_array({64, 64}, DType::f32, random);
  for (const Device current : {kFirst, kSecond}) {
    const DeviceScope scope(current);
    Array at_first = x.to(kFirst), at_second = x.to(kSecond);
    const Array w_first = w.to(kFirst), w_second = w.to(kSecond);
    for (int round = 0; round < 20; ++round) {
      at_first = compute(at_first, w_first);
      at_second = compute(at_second, w_second);
      at_first.copy_from(at_second);  // both directions, in the order of the streams
      at_second = at_first.to(kSecond);
      BINADE_DISPATCH(kSecond, binary_scalar(BinaryOp::mul, at_second, 0.01, false, at_second));
      BINADE_DISPATCH(kFirst, binary_scalar(BinaryOp::mul, at_first, 0.01, false, at_first));
    }
    CHECK(current_device() == current.index());
    CHECK(at_second.device() == kSecond);
    const bool same = at_first.to_vector<float>() == at_second.to_vector<float>();
    CHECK(same);
    // The same on one device.
    Array alone = x.to(kFirst);
    for (int round = 0; round < 20; ++round) {
      alone = compute(alone, w_first);
      BINADE_DISPATCH(kFirst, binary_scalar(BinaryOp::mul, alone, 0.01, false, alone));
    }
    const std::vector<float> got = at_first.to_vector<float>(), expected = alone.to_vector<float>();
    double largest = 0, worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max<double>(worst, std::abs(got[i] - expected[i]));
      largest = std::max<double>(largest, std::abs(expected[i]));
    }
    CHECK(std::isfinite(largest));
    CHECK(worst <= 1e-4 * largest);
  }
}

TEST_CASE("copies between GPUs keep the order of both streams and never wait", "[cuda][devices]") {
  require_two_gpus();
  constexpr int64_t kCount = int64_t{32} << 20;
  const Array source = Array::zeros({kCount}, DType::f32, kFirst);
  std::vector<Array> copies;
  for (int i = 0; i < 4; ++i) copies.push_back(Array::zeros({kCount}, DType::f32, kSecond));
  const int64_t waits = binade::cuda::host_synchronisations();
  for (int i = 0; i < 4; ++i) {
    source.fill(i + 1);                          // is written before it is read
    copies[i].copy_from(source);                 // and read before it is written again
    const Array temporary = source.to(kSecond);  // its source may be used again, too
    BINADE_DISPATCH(kSecond, binary(BinaryOp::add, copies[i], temporary, copies[i]));
  }
  source.fill(-1);
  CHECK(binade::cuda::host_synchronisations() == waits);
  for (int i = 0; i < 4; ++i) {
    const std::vector<float> values = copies[i].to_vector<float>();
    CHECK(std::all_of(values.begin(), values.end(),
                      [&](float value) { return value == static_cast<float>(2 * (i + 1)); }));
  }
}

TEST_CASE("arrays of any layout and dtype travel between GPUs", "[cuda][devices]") {
  require_two_gpus();
  Random random(82);
  for (const DType dtype : kAllDTypes) {
    for (const Array& x : layouts({5, 7}, dtype, random, true)) {
      INFO(dtype << ", strides " << x.strides());
      const Array far = on_device(x, kFirst).to(kSecond);
      CHECK(far.device() == kSecond);
      CHECK((far.to_vector<double>() == x.to_vector<double>()));
    }
    const Array wide = Array::zeros({5, 14}, DType::f32, kSecond);
    const Array ones = Array::full({5, 7}, 1, dtype, kFirst);
    wide.slice(1, 0, 14, 2).copy_from(ones);
    CHECK(wide.to_vector<float>()[2] == 1);
    CHECK(wide.to_vector<float>()[3] == 0);
  }
}

TEST_CASE("uploads, downloads and fences belong to their device", "[cuda][devices]") {
  require_two_gpus();
  Uploader up(Array::zeros({1000}, DType::f32, kSecond));
  Downloader down;
  for (int i = 0; i < 10; ++i) {
    up.upload(Array::full({1000}, i, DType::f32));
    down.download(up.destination());
  }
  const std::vector<Array> got = down.take(true);
  REQUIRE(got.size() == 10);
  for (int i = 0; i < 10; ++i) CHECK(got[i].to_vector<float>()[999] == static_cast<float>(i));
  const Fence fence = Fence::after_queued_work(kSecond);
  fence.wait();
  CHECK(fence.passed());
}

TEST_CASE("each GPU counts its own memory", "[cuda][devices]") {
  require_two_gpus();
  reset_peak_memory(kFirst);
  reset_peak_memory(kSecond);
  const MemoryStats first = memory_stats(kFirst), second = memory_stats(kSecond);
  constexpr int64_t kBytes = int64_t{48} << 20;
  {
    const Array x = Array::zeros({kBytes}, DType::u8, kSecond);
    CHECK(memory_stats(kSecond).in_use == second.in_use + kBytes);
    CHECK(memory_stats(kFirst).in_use == first.in_use);
  }
  CHECK(memory_stats(kSecond).in_use == second.in_use);
  CHECK(memory_stats(kSecond).peak_in_use == second.in_use + kBytes);
  CHECK(memory_stats(kFirst).peak_in_use == first.in_use);
  CHECK(memory_stats(kSecond).device_total > 0);
  release_cached_memory(kSecond);
  CHECK(memory_stats(kSecond).reserved <= second.reserved);
}

TEST_CASE("a graph is captured and replayed on the second GPU", "[cuda][devices][graph]") {
  require_two_gpus();
  Random random(83);
  const Array host = random_array({96, 64}, DType::f16, random);
  const Array host_w = random_array({64, 64}, DType::f16, random);
  const Array x = host.to(kSecond), w = host_w.to(kSecond),
              out = Array::zeros({96, 64}, DType::f16, kSecond);
  const Array first = Array::zeros({10}, DType::f32, kFirst);
  const auto work = [&] { out.copy_from(compute(x, w)); };
  work();
  const std::vector<std::byte> eager = bits_of(out);
  CapturedGraph graph = CapturedGraph::capture(work, kSecond);
  CHECK(current_device() == 0);
  for (int replay = 0; replay < 2; ++replay) {
    out.fill(7);
    first.fill(replay);
    graph.replay();
    const bool same = bits_of(out) == eager;
    CHECK(same);
    CHECK(first.to_vector<float>()[9] == static_cast<float>(replay));
  }
  // A kernel for another device would run once, and be missing in the replays.
  CHECK_THROWS_WITH(CapturedGraph::capture([&] { first.fill(1); }, kSecond),
                    Contains("captured as a CUDA graph on cuda:1") && Contains("cuda:0"));
  CHECK_THROWS_WITH(CapturedGraph::capture([&] { x.to(kFirst); }, kSecond), Contains("one device"));
  CHECK_THROWS_WITH(CapturedGraph::capture([&] { first.to(kSecond); }, kSecond),
                    Contains("one device"));
  CHECK_THROWS_AS(CapturedGraph::capture([] {}, Device::cuda(cuda_device_count())), Error);
  CHECK(first.to_vector<float>()[9] == 1);
}

TEST_CASE("a fault is noted on the GPU where it happened", "[cuda][devices]") {
  require_two_gpus();
  const Array table = Array::zeros({4, 8}, DType::f32, kSecond);
  const Array index = Array::full({1}, 9, DType::i64, kSecond);
  const Array out = Array::zeros({1, 8}, DType::f32, kSecond);
  BINADE_DISPATCH(kSecond, embedding(table, index, out));
  CHECK_NOTHROW(check_device_faults(kFirst));
  CHECK_THROWS_WITH(check_device_faults(kSecond), Contains("cuda:1"));
  CHECK_NOTHROW(check_device_faults(kSecond));
}

TEST_CASE("the random step is the same number on each GPU", "[cuda][devices]") {
  require_two_gpus();
  RandomState& state = RandomState::current();
  state.begin_step(5, 77);
  for (const Device device : {kFirst, kSecond, kFirst, Device::cpu(), kSecond}) {
    const Array step = state.step_on(device);
    CHECK(step.device() == device);
    CHECK(step.item() == 77);
  }
  state.set_seed(0);
}

TEST_CASE("GPUs of one kind share the table of matmul algorithms", "[cuda][devices][matmul]") {
  require_two_gpus();
  Random random(84);
  const Array x = random_array({120, 72}, DType::f16, random).to(kSecond);
  compute(x, random_array({72, 72}, DType::f16, random).to(kSecond));
  const std::string second = binade::cuda::export_matmul_algorithms(kSecond);
  if (!binade::cuda::import_matmul_algorithms(second, kFirst))
    skip("the two GPUs are of two kinds");
  CHECK(binade::cuda::export_matmul_algorithms(kFirst) == second);
}

#endif  // BINADE_HAVE_CUDA
