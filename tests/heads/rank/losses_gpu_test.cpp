// The ranking losses on a GPU: what the CPU computes, the same bits every time, and nothing that
// waits for the device.
#include <binade/heads/rank/losses.h>

#include <binade/core/cuda/copy.h>
#include <binade/core/device_errors.h>

#include "core/cuda_repeat.h"
#include "heads/rank/loss_cases.h"

using namespace binade;
using namespace binade::heads::rank;
using namespace binade::test;

namespace {

bool is_slow(const std::string& text) {
  return text.rfind("neural", 0) == 0;
}

// The sizes at which another kernel takes a list, and beyond what one block sorts in its memory.
std::vector<BatchKind> gpu_batches(const std::string& text) {
  std::vector<BatchKind> kinds = kLossBatches;
  kinds.push_back({.sizes = {}, .padding = 4});
  kinds.push_back({.sizes = {0, 0}});
  kinds.push_back({.sizes = {31, 32, 33, 255, 256, 257, 1025}, .weighted = true, .padding = 70});
  // So many lists that blocks take those of up to 2048.
  std::vector<int64_t> many(300, 3);
  many.insert(many.end(), {257, 1025});
  kinds.push_back({.sizes = std::move(many), .padding = 3});
  if (!is_slow(text)) {
    kinds.push_back({.sizes = {2047, 2048, 2049, 20, 4097}, .weighted = true, .padding = 3000});
    kinds.push_back({.sizes = {3000, 40}, .scores = Values::tied});
    kinds.push_back({.sizes = {16384}});
  } else {
    kinds.push_back({.sizes = {2100}});
  }
  return kinds;
}

}  // namespace

TEST_CASE("ranking losses on a GPU are those of the CPU", "[rank][losses][cuda]") {
  require_gpu();
  for (const std::string& text : kLossSpecs) {
    const LossSpec spec = LossSpec::parse(text);
    const std::vector<BatchKind> kinds = gpu_batches(text);
    for (size_t b = 0; b < kinds.size(); ++b) {
      INFO(text << ", batch " << b);
      const RankBatchValues batch = random_batch(kinds[b], spec, 300 + b);
      // Sums of 16,384 terms of both signs, added up in f32 in two orders.
      const double tolerance = batch.labels.size() > 10000 ? 5e-4 : 5e-5;
      check_close(run_loss(batch, spec, DType::f32, test_gpu(), 3),
                  run_loss(batch, spec, DType::f32, {}, 3), tolerance);
    }
  }
  check_device_faults(test_gpu());
}

TEST_CASE("ranking losses on a GPU give the same bits every time", "[rank][losses][cuda]") {
  require_gpu();
  for (const std::string& text : kLossSpecs) {
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    const RankBatchValues batch =
        random_batch({.sizes = {5, 32, 200, is_slow(text) ? 300 : 3000}, .padding = 9}, spec, 3);
    const LossResult first = run_loss(batch, spec, DType::f32, test_gpu());
    for (int i = 0; i < 10; ++i) {
      const LossResult again = run_loss(batch, spec, DType::f32, test_gpu());
      CHECK(again.loss == first.loss);
      CHECK((again.gradient == first.gradient));
    }
    // Eagerly and from a graph.
    start_step();
    const Tensor scores = batch.score_tensor(DType::f16, spec, test_gpu());
    const Lists lists = batch.arrays(test_gpu());
    (void)RandomState::current().step_on(test_gpu());
    const Array loss = gpu_empty({}, DType::f32), gradient = gpu_empty(scores.shape(), DType::f16);
    check_same_bits(
        [&] {
          RandomState::current().set_place(0);
          scores.zero_grad();
          const Tensor value = rank_loss(scores, lists, spec);
          value.backward();
          loss.copy_from(value.array());
          gradient.copy_from(scores.grad());
        },
        {loss, gradient});
  }
}

TEST_CASE("a captured ranking loss follows lists that change on the device",
          "[rank][losses][cuda]") {
  require_gpu();
  if constexpr (kCudaBuilt) {
    const Device device = test_gpu();
    for (const char* text : {"lambdarank:truncation=10", "listmle", "hinge", "mse", "softrank"}) {
      INFO(text);
      const LossSpec spec = LossSpec::parse(text);
      // Three shapes of one bucket: 4 lists in 3000 rows.
      std::vector<RankBatchValues> batches;
      for (const BatchKind& kind :
           {BatchKind{.sizes = {10, 40, 2500}, .padding = 450, .empty_lists = 1},
            BatchKind{.sizes = {1, 3, 900, 2096}},
            BatchKind{.sizes = {33}, .padding = 2967, .empty_lists = 3}})
        batches.push_back(random_batch(kind, spec, 71 + batches.size()));
      const Tensor scores = batches[0].score_tensor(DType::f32, spec, device);
      const Lists lists = batches[0].arrays(device);
      const Array loss = gpu_empty({}, DType::f32), gradient = gpu_empty({3000}, DType::f32);
      const auto work = [&] {
        scores.zero_grad();
        const Tensor value = rank_loss(scores, lists, spec);
        value.backward();
        loss.copy_from(value.array());
        gradient.copy_from(scores.grad());
      };
      work();
      const int64_t waits = cuda::host_synchronisations();
      cuda::CapturedGraph graph = cuda::CapturedGraph::capture(work, device);
      CHECK(cuda::host_synchronisations() == waits);
      for (const RankBatchValues& batch : batches) {
        const Lists other = batch.arrays(device);
        lists.offsets.copy_from(other.offsets);
        lists.labels.copy_from(other.labels);
        scores.array().copy_from(batch.score_tensor(DType::f32, spec).array().to(device));
        graph.replay();
        const LossResult eager = run_loss(batch, spec, DType::f32, device);
        CHECK(loss.item() == eager.loss);
        CHECK((gradient.to_vector<double>() == eager.gradient));
      }
    }
  }
}

TEST_CASE("what a ranking loss cannot take on a GPU is said", "[rank][losses][cuda]") {
  require_gpu();
  const LossSpec spec = LossSpec::parse("mcrank");
  RankBatchValues batch = random_batch({.sizes = {5, 40}}, spec, 1);
  CHECK_THROWS_WITH(run_loss(batch, spec, DType::f64, test_gpu()), Catch::Contains("in f32"));
  batch.labels[7] = 9;
  (void)run_loss(batch, spec, DType::f32, test_gpu());
  CHECK_THROWS_AS(check_device_faults(test_gpu()), Error);
}
