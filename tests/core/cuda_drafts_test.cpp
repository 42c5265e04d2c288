// The kernels of speculative decoding on the GPU against those on the CPU.
#include <binade/core/device_errors.h>

#include "core/cuda_compare.h"
#include "core/draft_cases.h"

using namespace binade;
using namespace binade::test;

namespace {

const std::vector<DType> kLogitTypes = {DType::f32, DType::f16, DType::bf16};

}  // namespace

TEST_CASE("the most probable tokens on the GPU are the CPU's", "[decode][cuda]") {
  require_gpu();
  Random random(1);
  for (const DType dtype : kLogitTypes)
    for (const int64_t vocabulary : {1, 31, 4096, 4097, 49152, 300000})
      for (const int64_t count : {1, 10, 16}) {
        if (count > vocabulary) continue;
        INFO(dtype << ", V " << vocabulary << ", k " << count);
        const Array logits = logits_of_all_kinds(5, vocabulary, dtype, random);
        if (vocabulary > 40) write(logits, vocabulary * 2 + 33, NAN);
        compare_devices(
            [&](const std::vector<Array>& a) {
              BINADE_DISPATCH(a[0].device(), top_tokens(a[0], {}, a[1].slice(1, 0, count)));
            },
            {logits, Array::full({5, count + 1}, -9, DType::i32)});
      }
}

TEST_CASE("rows of running slots are kept on the GPU as on the CPU", "[decode][cuda]") {
  require_gpu();
  Random random(8);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::i32, DType::f64})
    for (const int64_t columns : {1, 3, 576, 1001})
      for (const bool picked : {false, true}) {
        INFO(dtype << ", " << columns << " columns, sources " << picked);
        const Array rows =
            random_array({6, columns}, is_floating(dtype) ? dtype : DType::f32, random).to(dtype);
        compare_devices(
            [&](const std::vector<Array>& a) {
              BINADE_DISPATCH(a[0].device(), keep_rows(a[0], picked ? a[1] : Array(), a[2], a[3]));
            },
            {rows, Array::from(std::vector<int32_t>{5, 0, 2, 2}, {4}),
             Array::from(std::vector<double>{1, 0, 1, 1}, {4}).to(DType::boolean),
             Array::full({4, columns}, -9, dtype)});
      }
}

TEST_CASE("drafts are accepted on the GPU as on the CPU", "[decode][cuda]") {
  require_gpu();
  Random random(2);
  for (const DType dtype : kLogitTypes)
    for (const DraftCase& c : kDraftCases) {
      INFO(dtype << ", S " << c.slots << ", N " << c.nodes << ", V " << c.vocabulary);
      const DraftArrays arrays = draft_arrays(c, dtype, random);
      compare_devices(
          [](const std::vector<Array>& all) {
            const DraftArrays a = DraftArrays::of(all);
            BINADE_DISPATCH(a.logits.device(),
                            accept_greedy(most_probable_of(a), a.drafts(), a.status, a.accepted()));
          },
          arrays.all());
      compare_devices(
          [](const std::vector<Array>& all) {
            const DraftArrays a = DraftArrays::of(all);
            const kernels::TypicalRule rule{1.3, 0.09, 0.3};
            BINADE_DISPATCH(a.logits.device(),
                            accept_typical(a.logits, most_probable_of(a), a.drafts(), a.status,
                                           rule, a.accepted()));
          },
          arrays.all());
      for (const kernels::SampleRules& rules : sample_rules(c.vocabulary)) {
        if (rules.temperature == 0) continue;
        compare_devices(
            [&](const std::vector<Array>& all) {
              const DraftArrays a = DraftArrays::of(all);
              BINADE_DISPATCH(a.logits.device(),
                              accept_sampled(a.logits, a.drafts(), rules, a.state(), a.accepted()));
            },
            arrays.all());
      }
    }
}

TEST_CASE("trees and notes on the GPU are the CPU's", "[decode][cuda]") {
  require_gpu();
  Random random(3);
  for (const DraftCase& c : kDraftCases) {
    const DraftArrays arrays = draft_arrays(c, DType::f32, random);
    std::vector<Array> all = arrays.all();
    const auto add = [&](const Shape& shape, DType dtype) {
      all.push_back(Array::zeros(shape, dtype));
    };
    add({c.slots}, DType::i32);           // kept
    add({c.slots}, DType::i32);           // status
    add({c.slots, c.nodes}, DType::i32);  // fed
    add({c.slots, c.nodes}, DType::i32);  // rows
    add({c.slots}, DType::i32);           // last
    add({c.slots, c.nodes}, DType::i32);  // ids
    add({c.slots, c.nodes}, DType::i32);  // depths
    add({c.slots, c.nodes}, DType::i64);  // words
    all.push_back(Array::arange(c.nodes, DType::i32));
    for (const int32_t limit : {2, 1000}) {
      set_all(arrays.limits, limit);
      compare_devices(
          [&](const std::vector<Array>& now) {
            const DraftArrays a = DraftArrays::of(now);
            const Device device = a.tokens.device();
            kernels::SampleRules rules;
            rules.stop_ids = Array::from(std::vector<int32_t>{3, 1}, {2}, device);
            BINADE_DISPATCH(device,
                            accept_greedy(most_probable_of(a), a.drafts(), a.status, a.accepted()));
            BINADE_DISPATCH(device, note_accepted(a.drafts(), a.accepted(), rules, a.state(),
                                                  {now[11], now[12], now[13], now[14], now[15]}));
            BINADE_DISPATCH(device, feedable_tokens(a.tokens, now[16]));
            if (c.own_trees) BINADE_DISPATCH(device, tree_shapes(a.parents, now[17], now[18]));
            BINADE_DISPATCH(device, draft_tokens(a.newest, a.tokens, now[19], now[16]));
          },
          all);
    }
  }
}

TEST_CASE("what modules learn of accepted tokens on the GPU is the CPU's", "[decode][cuda]") {
  require_gpu();
  for (const int64_t length : {1, 5, 64})
    compare_devices(
        [](const std::vector<Array>& a) {
          BINADE_DISPATCH(a[0].device(), learnt_tokens(a[0], a[1], a[2], {a[3], a[4], a[5], a[6]}));
        },
        {Array::arange(4 * length, DType::i32).view({4, length}),
         Array::from(std::vector<int32_t>{0, 1, static_cast<int32_t>(length), 1}, {4}),
         Array::from(std::vector<int32_t>{901, 902, 903, 904}, {4}),
         Array::zeros({4, length}, DType::i32), Array::zeros({4}, DType::i32),
         Array::zeros({4}, DType::boolean), Array::zeros({4}, DType::i32)});
}

TEST_CASE("the rows of a module's pass on the GPU are the CPU's", "[decode][cuda]") {
  require_gpu();
  for (const auto& [columns, nodes] : {std::pair{1, 0}, {1, 63}, {4, 3}, {40, 24}, {64, 0}}) {
    std::vector<int32_t> depths, parents;
    std::vector<int64_t> words;
    for (int32_t n = 0; n < nodes; ++n) {
      const int32_t parent = n % 3 == 0 ? 0 : n;  // the node before, numbered from 1
      parents.push_back(parent);
      depths.push_back(parent == 0 ? 0 : depths.back() + 1);
      words.push_back((parent == 0 ? 0 : words.back()) | int64_t{1} << n);
    }
    const std::vector<int32_t> counts = {0, 1, columns};
    const int64_t rows = columns + nodes;
    compare_devices(
        [&, from = columns](const std::vector<Array>& a) {
          BINADE_DISPATCH(a[0].device(), module_pass_rows({a[0], a[1], a[2], a[3], from, from + 2},
                                                          {a[4], a[5], a[6], a[7]}));
        },
        {Array::from(counts, {3}), Array::from(depths, {nodes}), Array::from(words, {nodes}),
         Array::from(parents, {nodes}), Array::zeros({3, rows}, DType::i32),
         Array::zeros({3, rows}, DType::i64), Array::zeros({3, rows}, DType::i32),
         Array::zeros({3}, DType::i32)});
  }
}

TEST_CASE("positions beyond a cache's capacity are the last one on the GPU, too",
          "[decode][cuda]") {
  require_gpu();
  compare_devices(
      [](const std::vector<Array>& a) {
        kernels::PassRows rows;
        rows.lengths = a[0];
        BINADE_DISPATCH(a[0].device(), cache_positions(rows, a[1], 10, 4, a[2]));
      },
      {Array::from(std::vector<int32_t>{8, 10}, {2}),
       Array::from(std::vector<int32_t>{0, 1, 1, 2}, {4}), Array::zeros({2, 4}, DType::i32)});
  check_device_faults(test_gpu());
}
