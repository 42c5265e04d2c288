// Attention over splits beside attention with the mask that says the same: the mask's own tests
// have the formula in f64.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/split_rules.h>

#include "../gpu.h"
#include "cuda_compare.h"
#include "kernel_arrays.h"
#include "split_rows.h"

using namespace binade;
using namespace binade::test;
using kernels::AttentionParams;

namespace {

constexpr int64_t kBatch = 2, kHeads = 4, kKeyHeads = 2, kDim = 16;

struct Result {
  Array out, logsumexp, dq, dk, dv;
};

struct Inputs {
  Array q, k, v, dout;
};

Inputs random_inputs(int64_t tokens, DType dtype, int64_t dim = kDim) {
  Random random(7);
  Inputs in{Array::empty({kBatch, kHeads, tokens, dim}, dtype),
            Array::empty({kBatch, kKeyHeads, tokens, dim}, dtype),
            Array::empty({kBatch, kKeyHeads, tokens, dim}, dtype),
            Array::empty({kBatch, kHeads, tokens, dim}, dtype)};
  for (const Array* array : {&in.q, &in.k, &in.v, &in.dout}) fill_random(*array, random);
  return in;
}

Result run(const Inputs& in, const AttentionParams& params) {
  const auto like = [](const Array& x) { return Array::empty(x.shape(), x.dtype(), x.device()); };
  const DType statistics = in.q.dtype() == DType::f64 ? DType::f64 : DType::f32;
  Result r{like(in.q), Array::empty({kBatch, kHeads, in.q.size(2)}, statistics, in.q.device()),
           like(in.q), like(in.k), like(in.v)};
  BINADE_DISPATCH(in.q.device(), attention(in.q, in.k, in.v, params, r.out, r.logsumexp));
  BINADE_DISPATCH(in.q.device(), attention_backward(in.q, in.k, in.v, r.out, r.logsumexp, in.dout,
                                                    params, r.dq, r.dk, r.dv));
  return r;
}

void check_close(const Result& a, const Result& b, double tolerance) {
  const std::pair<const Array*, const Array*> pairs[] = {{&a.out, &b.out},
                                                         {&a.logsumexp, &b.logsumexp},
                                                         {&a.dq, &b.dq},
                                                         {&a.dk, &b.dk},
                                                         {&a.dv, &b.dv}};
  for (const auto& [x, y] : pairs) {
    double worst = 0;
    for (int64_t i = 0; i < x->numel(); ++i) {
      const double left = read(*x, i), right = read(*y, i);
      if (left == right) continue;  // −∞, too
      REQUIRE_FALSE(std::isnan(left - right));
      worst = std::max(worst, std::abs(left - right) / (1 + std::abs(left)));
    }
    CHECK(worst <= tolerance);
  }
}

AttentionParams with_mask(const SplitRows& problem, const Array& q) {
  AttentionParams params{.scale = 0.3};
  params.mask = problem.mask.expand({kBatch, kHeads, q.size(2), q.size(2)});
  return params;
}
AttentionParams with_splits(const Array& slots) {
  AttentionParams params{.scale = 0.3};
  params.splits = {slots, slots};
  return params;
}

}  // namespace

TEST_CASE("attention over splits is attention with their mask", "[attention][splits]") {
  std::mt19937 random(3);
  for (const int64_t tokens : {33, 300, 700})
    for (const DType dtype : {DType::f64, DType::f32}) {
      const SplitRows problem = random_split_rows(kBatch, tokens, random);
      const Inputs in = random_inputs(tokens, dtype);
      check_close(run(in, with_splits(problem.slots)), run(in, with_mask(problem, in.q)),
                  dtype == DType::f64 ? 1e-13 : 2e-6);
    }
}

TEST_CASE("three comparisons say who sees whom", "[attention][splits]") {
  std::vector<kernels::Slot> slots;
  for (const int32_t sample : {-1, 0, 1})
    for (const int32_t order : {0, 1, 2, 3})
      for (const int32_t split : {0, 1, 2})
        for (const int32_t shift : {0, 1, 2})
          slots.push_back({sample, order, split, (split + shift) % 3});
  int seen = 0;
  for (const kernels::Slot& q : slots)
    for (const kernels::Slot& k : slots) {
      if (q.sample == k.sample && q.split == k.split && q.mode != k.mode) continue;
      seen += kernels::sees(q, k);
      CHECK(kernels::meets(kernels::asking(q), kernels::asked(k)) == kernels::sees(q, k));
    }
  CHECK(seen > 500);
}

TEST_CASE("what lies in spare slots is not seen, and spare slots get zeros",
          "[attention][splits]") {
  std::mt19937 random(4);
  const int64_t tokens = 300;
  const SplitRows problem = random_split_rows(kBatch, tokens, random);
  const auto is_spare = [&](const Array& rows, int64_t i) {
    const int64_t row = i / (rows.size(1) * tokens * kDim), token = i / kDim % tokens;
    return problem.slots.data<int32_t>()[row * kernels::kSlotFields * tokens + token] < 0;
  };
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    const Inputs in = random_inputs(tokens, dtype);
    const Result before = run(in, with_splits(problem.slots));
    for (const Array* array : {&in.q, &in.k, &in.v, &in.dout})
      for (int64_t i = 0; i < array->numel(); ++i)
        if (is_spare(*array, i)) write(*array, i, i % 2 == 0 ? INFINITY : NAN);
    const Result after = run(in, with_splits(problem.slots));
    check_close(before, after, 0);
    for (const Array* array : {&after.out, &after.dq, &after.dk, &after.dv})
      for (int64_t i = 0; i < array->numel(); ++i)
        if (is_spare(*array, i)) REQUIRE(read(*array, i) == 0);
  }
}

TEST_CASE("what lies in spare slots reaches no gradient of a gradient", "[attention][splits]") {
  std::mt19937 random(6);
  const int64_t tokens = 9;
  const SplitRows problem = random_split_rows(kBatch, tokens, random);
  AttentionOptions options;
  options.query_slots = options.key_slots = Tensor(problem.slots);
  const auto second_gradients = [&](double in_spare) {
    const Inputs in = random_inputs(tokens, DType::f64);
    for (const Array* array : {&in.q, &in.k, &in.v, &in.dout})
      for (int64_t i = 0; i < array->numel(); ++i) {
        const int64_t row = i / (array->size(1) * tokens * kDim), token = i / kDim % tokens;
        if (problem.slots.data<int32_t>()[row * kernels::kSlotFields * tokens + token] < 0)
          write(*array, i, in_spare);
      }
    const TensorList inputs{Tensor(in.q, true), Tensor(in.k, true), Tensor(in.v, true)};
    const Tensor y = scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], options);
    const TensorList first = grad({y}, inputs, {Tensor(in.dout)}, {.create_graph = true});
    return grad({sum(first[0] * first[0]) + sum(first[1] * first[1]) + sum(first[2] * first[2])},
                inputs);
  };
  const TensorList wanted = second_gradients(1), got = second_gradients(NAN);
  for (size_t i = 0; i < wanted.size(); ++i)
    CHECK(got[i].to_vector<double>() == wanted[i].to_vector<double>());
}

TEST_CASE("queries see the splits of other keys than their own", "[attention][splits]") {
  // Of a row of 64 tokens the last 10 ask: what a cache of the first 54 is for.
  std::mt19937 random(5);
  const int64_t tokens = 64, last = 54;
  const SplitRows problem = random_split_rows(kBatch, tokens, random);
  const Inputs all = random_inputs(tokens, DType::f32);
  Inputs some = all;
  some.q = all.q.slice(2, last);
  AttentionParams params = with_splits(problem.slots);
  const Result whole = run(all, params);
  params.splits.queries = problem.slots.slice(2, last);
  const Array out = Array::empty(some.q.shape(), DType::f32),
              logsumexp = Array::empty({kBatch, kHeads, tokens - last}, DType::f32);
  kernels::cpu::attention(some.q, all.k, all.v, params, out, logsumexp);
  for (int64_t i = 0; i < out.numel(); ++i)
    CHECK(read(out, i) == Approx(read(whole.out.slice(2, last), i)).margin(5e-6));  // another order
}

// Heads of 12 elements are none that the fused kernels take: attention_splits_cuda_test.cpp has
// those.
TEST_CASE("attention over splits without fusion agrees on both devices",
          "[cuda][attention][splits]") {
  require_gpu();
  std::mt19937 random(6);
  for (const DType dtype : kFloatingDTypes) {
    const SplitRows problem = random_split_rows(kBatch, 300, random);
    const Inputs in = random_inputs(300, dtype, 12);
    const Device gpu = test_gpu();
    const Inputs there{in.q.to(gpu), in.k.to(gpu), in.v.to(gpu), in.dout.to(gpu)};
    const Result on_gpu = run(there, with_splits(problem.slots.to(gpu)));
    const Device cpu = Device::cpu();
    check_close(run(in, with_splits(problem.slots)),
                {on_gpu.out.to(cpu), on_gpu.logsumexp.to(cpu), on_gpu.dq.to(cpu), on_gpu.dk.to(cpu),
                 on_gpu.dv.to(cpu)},
                dtype == DType::f64   ? 1e-12
                : dtype == DType::f32 ? 2e-5
                : dtype == DType::f16 ? 0.005
                                      : 0.035);  // a few roundings of 2^-8
  }
}

namespace {

// Documents of any lengths and numbers, negative ones too, and of the same number again.
Array random_documents(int64_t tokens, std::mt19937& random) {
  const Array documents = Array::empty({kBatch, tokens}, DType::i32);
  for (int64_t b = 0; b < kBatch; ++b)
    for (int64_t i = 0, left = 0, document = 0; i < tokens; ++i, --left) {
      if (left == 0) {
        left = 1 + static_cast<int64_t>(random() % 130);
        document = static_cast<int64_t>(random() % 9) - 2;
        if (document == -2) document = std::numeric_limits<int32_t>::min();
      }
      write(documents, b * tokens + i, static_cast<double>(document));
    }
  return documents;
}

Array mask_of(const Array& documents) {
  const int64_t tokens = documents.size(1);
  const Array mask = Array::empty({kBatch, 1, tokens, tokens}, DType::boolean);
  for (int64_t i = 0; i < mask.numel(); ++i) {
    const int64_t query = i / tokens, row = query / tokens;
    write(mask, i, read(documents, query) == read(documents, row * tokens + i % tokens) ? 1 : 0);
  }
  return mask.expand({kBatch, kHeads, tokens, tokens});
}

}  // namespace

TEST_CASE("attention within documents is attention with their mask",
          "[attention][splits][documents]") {
  std::mt19937 random(13);
  for (const int64_t tokens : {1, 33, 700})
    for (const DType dtype : {DType::f64, DType::f32, DType::f16})
      for (const int64_t window : {-1, 0, 40}) {  // −1: not causal
        INFO(tokens << " tokens, " << dtype << ", window " << window);
        const Inputs in = random_inputs(tokens, dtype);
        AttentionParams within{.scale = 0.3, .causal = window >= 0};
        within.window = std::max<int64_t>(window, 0);
        AttentionParams masked = within;
        within.documents = random_documents(tokens, random);
        masked.mask = mask_of(within.documents);
        // To the bit; with a mask a single query takes all heads of a key at once, in another
        // order.
        check_close(run(in, within), run(in, masked), tokens == 1 ? 4 * epsilon_of(dtype) : 0);
      }
}

TEST_CASE("attention within documents holds no mask", "[attention][splits][documents]") {
  const int64_t tokens = 4096;
  const Device cpu = Device::cpu();
  const Inputs in = random_inputs(tokens, DType::f32);
  AttentionParams params{.scale = 0.3, .causal = true};
  params.documents = Array::zeros({kBatch, tokens}, DType::i32);
  for (int64_t i = 0; i < params.documents.numel(); ++i)
    write(params.documents, i, static_cast<double>(i / 32));
  const int64_t before = memory_stats(cpu).in_use;
  reset_peak_memory(cpu);
  const Result result = run(in, params);
  int64_t results = 0;
  for (const Array* array : {&result.out, &result.logsumexp, &result.dq, &result.dk, &result.dv})
    results += array->bytes();
  CHECK(memory_stats(cpu).peak_in_use - before - results < kBatch * tokens * 64);  // not · tokens
}
