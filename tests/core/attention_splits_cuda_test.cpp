// The fused kernels of attention over splits beside attention with the mask that says the same, in
// f64 on the CPU.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <random>

#include <binade/core/cuda/graph.h>
#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/elementwise.h>

#include "../gpu.h"
#include "cuda_compare.h"
#include "kernel_arrays.h"
#include "split_rows.h"

using namespace binade;
using namespace binade::test;
using kernels::AttentionParams;

namespace {

constexpr int64_t kBatch = 2, kHeads = 4, kKeyHeads = 2;

// Packed projections and what attention makes of them: views of heads, as the layers' are.
struct Packed {
  Array qkv, dqkv;  // (B, T, (Hq + 2·Hkv)·D)
  Array out, dout;  // (B, T, Hq, D)
  Array logsumexp;  // (B, Hq, T)

  Packed(Array given_qkv, Array given_dout)
      : qkv(std::move(given_qkv)),
        dqkv(Array::zeros(qkv.shape(), qkv.dtype(), qkv.device())),
        out(Array::zeros(given_dout.shape(), qkv.dtype(), qkv.device())),
        dout(std::move(given_dout)),
        logsumexp(Array::zeros({kBatch, kHeads, qkv.size(1)},
                               qkv.dtype() == DType::f64 ? DType::f64 : DType::f32, qkv.device())) {
  }

  Array heads(const Array& packed, int64_t begin, int64_t end) const {
    return packed.view({kBatch, packed.size(1), kHeads + 2 * kKeyHeads, out.size(3)})
        .slice(2, begin, end)
        .transpose(1, 2);
  }
  Array q(const Array& packed) const { return heads(packed, 0, kHeads); }
  Array k(const Array& packed) const { return heads(packed, kHeads, kHeads + kKeyHeads); }
  Array v(const Array& packed) const {
    return heads(packed, kHeads + kKeyHeads, kHeads + 2 * kKeyHeads);
  }

  // Of the queries from `first` on alone, whose splits are in params.
  void run(const AttentionParams& params, int64_t first = 0) const {
    const auto asking = [&](const Array& x) { return x.slice(2, first); };
    const Array o = asking(out.transpose(1, 2)), d = asking(dout.transpose(1, 2));
    const Array statistics = first == 0 ? logsumexp
                                        : Array::zeros({kBatch, kHeads, qkv.size(1) - first},
                                                       logsumexp.dtype(), qkv.device());
    BINADE_DISPATCH(qkv.device(), attention(asking(q(qkv)), k(qkv), v(qkv), params, o, statistics));
    BINADE_DISPATCH(qkv.device(), attention_backward(asking(q(qkv)), k(qkv), v(qkv), o, statistics,
                                                     d, params, asking(q(dqkv)), k(dqkv), v(dqkv)));
  }
  std::vector<Array> results() const { return {out, logsumexp, q(dqkv), k(dqkv), v(dqkv)}; }
};

Array in_f64(const Array& x) {
  const Array wide = Array::empty(x.shape(), DType::f64);
  kernels::cpu::copy(x, wide);
  return wide;
}

// Random numbers on the CPU.
Packed random_packed(int64_t tokens, int64_t dim, DType dtype) {
  Random random(11);
  const Array qkv = Array::empty({kBatch, tokens, (kHeads + 2 * kKeyHeads) * dim}, dtype),
              dout = Array::empty({kBatch, tokens, kHeads, dim}, dtype);
  for (const Array* array : {&qkv, &dout}) fill_random(*array, random);
  return {qkv, dout};
}
Packed on_gpu(const Packed& packed) {
  return {packed.qkv.to(test_gpu()), packed.dout.to(test_gpu())};
}

AttentionParams over_splits(const Array& slots, int64_t dim, int64_t first = 0) {
  AttentionParams params{.scale = 1 / std::sqrt(static_cast<double>(dim))};
  params.splits = {slots.slice(2, first), slots};
  return params;
}

// The largest difference beside the largest number, of each result.
void check_close(const Packed& found, const Packed& wanted, double tolerance) {
  const std::vector<Array> left = found.results(), right = wanted.results();
  for (size_t n = 0; n < left.size(); ++n) {
    const Array mine = left[n].contiguous().to(Device::cpu());
    double worst = 0, largest = 1;
    for (int64_t i = 0; i < mine.numel(); ++i) {
      const double a = read(mine, i), b = read(right[n], i);
      if (a == b) continue;  // −∞, too
      const double error = std::abs(a - b);
      worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
      if (std::isfinite(b)) largest = std::max(largest, std::abs(b));
    }
    INFO("result " << n << " of out, logsumexp, dq, dk, dv");
    CHECK(worst <= tolerance * largest);
  }
}

void check_same_bits(const Packed& a, const Packed& b) {
  const std::vector<Array> left = a.results(), right = b.results();
  for (size_t n = 0; n < left.size(); ++n) {
    const Array x = left[n].contiguous().to(Device::cpu()),
                y = right[n].contiguous().to(Device::cpu());
    INFO("result " << n << " of out, logsumexp, dq, dk, dv");
    CHECK(std::equal(static_cast<const char*>(x.data()),
                     static_cast<const char*>(x.data()) + x.bytes(),
                     static_cast<const char*>(y.data())));
  }
}

void check_beside_mask(const SplitRows& rows, int64_t dim, DType dtype) {
  const int64_t tokens = rows.slots.size(2);
  const Packed host = random_packed(tokens, dim, dtype), device = on_gpu(host);
  device.run(over_splits(rows.slots.to(test_gpu()), dim));
  const Packed wanted(in_f64(host.qkv), in_f64(host.dout));
  AttentionParams params{.scale = 1 / std::sqrt(static_cast<double>(dim))};
  params.mask = rows.mask.expand({kBatch, kHeads, tokens, tokens});
  wanted.run(params);
  // Probabilities, their gradients and the results are rounded: a few roundings, as long as sums do
  // not cancel.
  check_close(device, wanted, 6 * epsilon_of(dtype));
}

}  // namespace

TEST_CASE("fused attention over splits is attention with their mask, in f64",
          "[cuda][attention][splits]") {
  require_gpu();
  std::mt19937 random(8);
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const int64_t dim : {16, 32, 40, 64, 128})
      for (const int64_t tokens : {33, 64, 300}) {
        INFO(dtype << ", heads of " << dim << ", " << tokens << " tokens");
        check_beside_mask(random_split_rows(kBatch, tokens, random), dim, dtype);
      }
}

TEST_CASE("fused attention over splits takes rows that are all one, all alone or all spare",
          "[cuda][attention][splits]") {
  require_gpu();
  const int64_t tokens = 200;
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const int32_t mode : {0, 1, 2}) {
      INFO("mode " << mode);
      check_beside_mask(even_split_rows(kBatch, tokens, tokens, true, {mode}), 32, dtype);
      check_beside_mask(even_split_rows(kBatch, tokens, 1, false, {mode}), 32, dtype);
      check_beside_mask(even_split_rows(kBatch, tokens, 1, true, {mode}), 32, dtype);
      check_beside_mask(even_split_rows(kBatch, tokens, 64, false, {mode}), 32, dtype);
    }
    check_beside_mask(even_split_rows(kBatch, 256, 64, true, {0, 1, 2, 1}), 64, dtype);
    check_beside_mask(even_split_rows(kBatch, 257, 37, true, {0, 2, 1}), 64, dtype);
    check_beside_mask(spare_rows(kBatch, tokens), 32, dtype);
    // A row with nothing in it beside a full one.
    const SplitRows mixed = even_split_rows(kBatch, tokens, 50, true, {0, 1});
    std::fill_n(mixed.slots.data<int32_t>(), kernels::kSlotFields * tokens, -1);
    std::fill_n(mixed.mask.data<bool>(), tokens * tokens, false);
    check_beside_mask(mixed, 32, dtype);
  }
}

TEST_CASE("fused attention over splits takes fewer queries than keys",
          "[cuda][attention][splits]") {
  require_gpu();
  std::mt19937 random(9);
  const int64_t tokens = 300, dim = 64;
  const SplitRows rows = random_split_rows(kBatch, tokens, random);
  for (const int64_t first : {1, 130, 299}) {
    const Packed host = random_packed(tokens, dim, DType::f16), device = on_gpu(host);
    device.run(over_splits(rows.slots.to(test_gpu()), dim, first), first);
    const Packed wanted(in_f64(host.qkv), in_f64(host.dout));
    AttentionParams params{.scale = 1 / std::sqrt(static_cast<double>(dim))};
    params.mask = rows.mask.slice(2, first).expand({kBatch, kHeads, tokens - first, tokens});
    wanted.run(params, first);
    check_close(device, wanted, 6 * epsilon_of(DType::f16));
  }
}

TEST_CASE("attention over splits gives the same bits again, whatever spare slots hold",
          "[cuda][attention][splits]") {
  require_gpu();
  std::mt19937 random(10);
  const int64_t tokens = 300;
  // Fused, and with matmuls.
  const auto [dtype, dim] =
      GENERATE(std::pair<DType, int64_t>(DType::f16, 32), std::pair<DType, int64_t>(DType::f16, 20),
               std::pair<DType, int64_t>(DType::f32, 32));
  const SplitRows rows = random_split_rows(kBatch, tokens, random);
  const AttentionParams params = over_splits(rows.slots.to(test_gpu()), dim);
  const Packed host = random_packed(tokens, dim, dtype), first = on_gpu(host), again = on_gpu(host);
  first.run(params);
  again.run(params);
  check_same_bits(first, again);

  const auto spare = [&](int64_t token) {  // of all rows
    return rows.slots
               .data<int32_t>()[token / tokens * kernels::kSlotFields * tokens + token % tokens] <
           0;
  };
  for (const Array* array : {&host.qkv, &host.dout}) {
    const int64_t width = array->numel() / (kBatch * tokens);
    for (int64_t i = 0; i < array->numel(); ++i)
      if (spare(i / width)) write(*array, i, i % 2 == 0 ? INFINITY : NAN);
  }
  const Packed poisoned = on_gpu(host);
  poisoned.run(params);
  check_same_bits(first, poisoned);
}

TEST_CASE("a captured attention over splits serves other splits", "[cuda][attention][splits]") {
  require_gpu();
  std::mt19937 random(12);
  const int64_t tokens = 300, dim = 64;
  const Packed host = random_packed(tokens, dim, DType::bf16), captured = on_gpu(host);
  const Array slots = random_split_rows(kBatch, tokens, random).slots.to(test_gpu());
  captured.run(over_splits(slots, dim));
  if constexpr (kCudaBuilt) {
    auto graph =
        cuda::CapturedGraph::capture([&] { captured.run(over_splits(slots, dim)); }, test_gpu());
    for (const SplitRows& rows :
         {random_split_rows(kBatch, tokens, random), spare_rows(kBatch, tokens),
          even_split_rows(kBatch, tokens, tokens, true, {1}),
          random_split_rows(kBatch, tokens, random)}) {
      slots.copy_from(rows.slots);
      graph.replay();
      const Packed direct = on_gpu(host);
      direct.run(over_splits(rows.slots.to(test_gpu()), dim));
      check_same_bits(captured, direct);
    }
  }
}
