// Random trees and logits for the kernels of speculative decoding, for the tests of both devices.
#pragma once

#include <binade/core/kernels/drafts.h>

#include "core/sample_cases.h"

namespace binade::test {

struct DraftCase {
  int64_t slots, nodes, vocabulary;
  bool own_trees, sampled;  // a tree a slot; guesses at random, not likely ones
};

inline const std::vector<DraftCase> kDraftCases = {
    {1, 1, 7, false, false},  {3, 4, 5, false, true},   {2, 12, 40, true, false},
    {5, 33, 9, true, true},   {2, 64, 6, false, false}, {1, 64, 5000, false, false},
    {4, 10, 300, true, false}};

// Arrays of a pass, on the CPU. Slot 1 is not running.
struct DraftArrays {
  Array logits, tokens, parents, status, drawn, places, limits, newest, nodes, counts, next;

  std::vector<Array> all() const {
    return {logits, tokens, parents, status, drawn, places, limits, newest, nodes, counts, next};
  }
  static DraftArrays of(const std::vector<Array>& a) {
    return {a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10]};
  }
  kernels::DraftNodes drafts() const { return {tokens, parents}; }
  kernels::AcceptedPaths accepted() const { return {nodes, counts, next}; }
  kernels::SampleState state() const { return {newest, status, drawn, limits, places}; }
};

inline DraftArrays draft_arrays(const DraftCase& c, DType dtype, Random& random) {
  DraftArrays a;
  const int64_t rows = c.slots * c.nodes;
  a.logits = logits_of_all_kinds(rows, c.vocabulary, dtype, random);
  std::vector<int32_t> parents, tokens;
  const int64_t trees = c.own_trees ? c.slots : 1;
  for (int64_t tree = 0; tree < trees; ++tree)
    for (int64_t n = 0; n < c.nodes; ++n)
      parents.push_back(
          n == 0 ? -1
                 : static_cast<int32_t>(random() % static_cast<uint64_t>(std::min<int64_t>(n, 6))));
  const auto parent = [&](int64_t slot, int64_t node) {
    return parents[static_cast<size_t>((c.own_trees ? slot * c.nodes : 0) + node)];
  };
  for (int64_t slot = 0; slot < c.slots; ++slot)
    for (int64_t n = 0; n < c.nodes; ++n) {
      const auto any = static_cast<int32_t>(random() % static_cast<uint64_t>(c.vocabulary));
      int32_t token = any;
      if (n > 0 && !c.sampled && random() % 2 == 0) {  // the likeliest one
        const int64_t row = slot * c.nodes + parent(slot, n);
        token = 0;
        for (int64_t i = 1; i < c.vocabulary; ++i)
          if (read(a.logits, row * c.vocabulary + i) > read(a.logits, row * c.vocabulary + token))
            token = static_cast<int32_t>(i);
      }
      tokens.push_back(n > 0 && random() % 9 == 0 ? -1 : token);
    }
  a.tokens = Array::from(tokens, {c.slots, c.nodes});
  a.parents = Array::from(parents, c.own_trees ? Shape{c.slots, c.nodes} : Shape{c.nodes});
  a.status = Array::full({c.slots}, kernels::kRunning, DType::i32);
  if (c.slots > 1) write(a.status, 1, kernels::kDone);
  a.drawn = Array::arange(c.slots, DType::i32);
  a.places = Array::arange(c.slots, DType::i32);
  a.limits = Array::full({c.slots}, 1 << 20, DType::i32);
  a.newest = Array::zeros({c.slots}, DType::i32);
  a.nodes = Array::full({c.slots, c.nodes}, -9, DType::i32);
  a.counts = Array::full({c.slots}, -9, DType::i32);
  a.next = Array::full({c.slots}, -9, DType::i32);
  return a;
}

inline Array most_probable_of(const DraftArrays& a) {
  const Array best = Array::empty(a.tokens.shape(), DType::i32, a.tokens.device());
  BINADE_DISPATCH(best.device(), top_tokens(a.logits, {}, best.view({a.logits.size(0), 1})));
  return best;
}

}  // namespace binade::test
