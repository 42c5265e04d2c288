// The kernels of speculative decoding on the CPU against plain definitions. (Acceptance against
// its rules: tests/heads/decoding/judge_test.cpp.)
#include <catch2/catch.hpp>

#include "core/draft_cases.h"

using namespace binade;
using namespace binade::test;

TEST_CASE("the most probable tokens of a row are its first ones when it is sorted", "[decode]") {
  Random random(1);
  for (const DType dtype : kFloatingTypes)
    for (const int64_t vocabulary : {1, 2, 9, 500, 5000})
      for (const int64_t count : {1, 3, 10, 16}) {
        if (count > vocabulary) continue;
        INFO(dtype << ", V " << vocabulary << ", k " << count);
        const Array logits = logits_of_all_kinds(6, vocabulary, dtype, random);
        const Array wide = Array::full({6, count + 2}, -9, DType::i32);
        const Array tokens = wide.slice(1, 0, count);
        kernels::cpu::top_tokens(logits, {}, tokens);
        for (int64_t row = 0; row < 6; ++row) {
          std::vector<int32_t> order(static_cast<size_t>(vocabulary));
          std::iota(order.begin(), order.end(), 0);
          const auto logit = [&](int32_t token) { return read(logits, row * vocabulary + token); };
          std::stable_sort(order.begin(), order.end(),
                           [&](int32_t x, int32_t y) { return logit(x) > logit(y); });
          const bool valid = logit(order[0]) > -INFINITY;
          for (int64_t i = 0; i < count; ++i)
            CHECK(read(tokens, row * count + i) == (valid ? order[static_cast<size_t>(i)] : -1));
          CHECK(read(wide, row * (count + 2) + count) == -9);
        }
      }
}

TEST_CASE("a row with a NaN or nothing but minus infinity has no most probable tokens",
          "[decode]") {
  Random random(2);
  const Array logits = random_array({3, 20}, DType::f32, random);
  write(logits, 7, NAN);
  for (int64_t i = 0; i < 20; ++i) write(logits, 20 + i, -INFINITY);
  const Array tokens = Array::zeros({3, 2}, DType::i32);
  kernels::cpu::top_tokens(logits, {}, tokens);
  const std::vector<int32_t> found = tokens.to_vector<int32_t>();
  CHECK(std::vector<int32_t>(found.begin(), found.begin() + 4) ==
        std::vector<int32_t>{-1, -1, -1, -1});
  CHECK(found[4] >= 0);
}

TEST_CASE("a tree's tokens are picked from the guesses, and fed as ids", "[decode]") {
  const Array root = Array::from(std::vector<int32_t>{50, 60}, {2});
  const Array guesses = Array::from(std::vector<int32_t>{1, 2, 3, 4, 5, 6, -1, 8}, {2, 4});
  const Array candidates = Array::from(std::vector<int32_t>{0, 1, 3, 4}, {4});
  const Array tokens = Array::empty({2, 4}, DType::i32), ids = Array::empty({2, 4}, DType::i32);
  kernels::cpu::draft_tokens(root, guesses, candidates, tokens);
  CHECK(tokens.to_vector<int32_t>() == std::vector<int32_t>{50, 1, 3, 4, 60, 5, -1, 8});
  kernels::cpu::feedable_tokens(tokens, ids);
  CHECK(ids.to_vector<int32_t>() == std::vector<int32_t>{50, 1, 3, 4, 60, 5, 0, 8});
}

TEST_CASE("rows of slots that are running are kept", "[decode]") {
  const Array rows = Array::from(std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {5, 2});
  const Array running = Array::from(std::vector<double>{1, 0, 1}, {3}).to(DType::boolean);
  const Array kept = Array::full({3, 2}, -1, DType::f32);
  kernels::cpu::keep_rows(rows, Array::from(std::vector<int32_t>{4, 1, 0}, {3}), running, kept);
  CHECK(kept.to_vector<float>() == std::vector<float>{8, 9, -1, -1, 0, 1});
  kernels::cpu::keep_rows(rows, {}, running, kept);
  CHECK(kept.to_vector<float>() == std::vector<float>{0, 1, -1, -1, 4, 5});
}

TEST_CASE("trees given by parents have depths, and words of what their nodes see", "[decode]") {
  const Array parents = Array::from(std::vector<int32_t>{-1, 0, 0, 1, 3, -1, 0, 1, 9, -5}, {2, 5});
  const Array depths = Array::empty({2, 5}, DType::i32), words = Array::empty({2, 5}, DType::i64);
  kernels::cpu::tree_shapes(parents, depths, words);
  // Parents that cannot be count as the node before.
  CHECK(depths.to_vector<int32_t>() == std::vector<int32_t>{0, 1, 1, 2, 3, 0, 1, 2, 3, 4});
  CHECK(words.to_vector<int64_t>() ==
        std::vector<int64_t>{1, 0b11, 0b101, 0b1011, 0b11011, 1, 0b11, 0b111, 0b1111, 0b11111});
}

TEST_CASE("modules learn of each accepted token what follows it", "[decode]") {
  const Array accepted = Array::from(std::vector<int32_t>{10, 11, 12, 20, 0, 0, 30, 31, 0}, {3, 3});
  const Array counts = Array::from(std::vector<int32_t>{3, 0, 2}, {3});
  const kernels::LearntTokens learnt{
      Array::empty({3, 3}, DType::i32), Array::empty({3}, DType::i32),
      Array::empty({3}, DType::boolean), Array::empty({3}, DType::i32)};
  kernels::cpu::learnt_tokens(accepted, counts, Array::from(std::vector<int32_t>{13, 7, 32}, {3}),
                              learnt);
  CHECK(learnt.tokens.to_vector<int32_t>() ==
        std::vector<int32_t>{11, 12, 13, 7, 7, 7, 31, 32, 32});
  CHECK(learnt.counts.to_vector<int32_t>() == std::vector<int32_t>{3, 0, 2});
  CHECK(learnt.running.to_vector<double>() == std::vector<double>{1, 0, 1});
  CHECK(learnt.newest.to_vector<int32_t>() == std::vector<int32_t>{2, 3, 7});
}

TEST_CASE("a module's pass has columns of the text and, behind them, nodes of a tree", "[decode]") {
  // Two guesses behind the newest token, one behind the second; of three columns 2, 0 and 3 count.
  const auto i32 = [](const std::vector<int32_t>& values) {
    return Array::from(values, {static_cast<int64_t>(values.size())});
  };
  const kernels::ModulePass pass{i32({2, 0, 3}),
                                 i32({0, 0, 1}),
                                 Array::from(std::vector<int64_t>{0b001, 0b010, 0b110}, {3}),
                                 i32({0, 0, 2}),
                                 3,
                                 5};
  const kernels::ModulePassRows rows{
      Array::empty({3, 6}, DType::i32), Array::empty({3, 6}, DType::i64),
      Array::empty({3, 6}, DType::i32), Array::empty({3}, DType::i32)};
  kernels::cpu::module_pass_rows(pass, rows);
  CHECK(rows.depths.to_vector<int32_t>() ==
        std::vector<int32_t>{0, 1, 2, 2, 2, 3, 0, 1, 2, 0, 0, 1, 0, 1, 2, 3, 3, 4});
  CHECK(rows.visible.to_vector<int64_t>() ==
        std::vector<int64_t>{1, 0b11, 0b111, 0b001011, 0b010011, 0b110011,  //
                             1, 0b11, 0b111, 0b001000, 0b010000, 0b110000,  //
                             1, 0b11, 0b111, 0b001111, 0b010111, 0b110111});
  // Each slot has 6 rows to read from; a child of the newest token reads behind its column.
  CHECK(rows.sources.to_vector<int32_t>() ==
        std::vector<int32_t>{0, 1, 2, 2, 2, 5, 6, 7, 8, 6, 6, 11, 12, 13, 14, 15, 15, 17});
  CHECK(rows.newest.to_vector<int32_t>() == std::vector<int32_t>{1, 5, 12});
}

namespace {

struct Noted {
  std::vector<int32_t> kept, status, fed, rows, last, newest, drawn;
};

// A slot with the path 0, 2, 3 over the tokens 40, 41, 42, 43 and 44 behind it, and a second one
// beside it that is done.
Noted note(int32_t status, int32_t drawn, int32_t limit, const std::vector<int32_t>& stop_ids,
           int32_t next = 44) {
  const auto i32 = [](const std::vector<int32_t>& values, const Shape& shape) {
    return Array::from(values, shape);
  };
  const Array tokens = i32({40, 41, 42, 43, 50, 51, 52, 53}, {2, 4});
  const kernels::DraftNodes drafts{tokens, i32({-1, 0, 0, 2}, {4})};
  const kernels::AcceptedPaths accepted{i32({0, 2, 3, -1, -1, -1}, {2, 3}), i32({3, 0}, {2}),
                                        i32({next, 0}, {2})};
  kernels::SampleRules rules;
  if (!stop_ids.empty()) rules.stop_ids = i32(stop_ids, {static_cast<int64_t>(stop_ids.size())});
  const kernels::SampleState state{i32({40, 9}, {2}), i32({status, kernels::kDone}, {2}),
                                   i32({drawn, 3}, {2}), i32({limit, 3}, {2}), i32({0, 1}, {2})};
  const auto empty = [](const Shape& shape) { return Array::full(shape, -9, DType::i32); };
  const kernels::NotedPaths noted{empty({2}), empty({2}), empty({2, 3}), empty({2, 3}), empty({2})};
  kernels::cpu::note_accepted(drafts, accepted, rules, state, noted);
  const auto read = [](const Array& array) { return array.to_vector<int32_t>(); };
  CHECK(read(noted.status) == read(state.status));
  CHECK(read(state.tokens)[1] == 9);
  CHECK(read(noted.kept)[1] == 0);
  return {read(noted.kept), read(state.status), read(noted.fed),  read(noted.rows),
          read(noted.last), read(state.tokens), read(state.drawn)};
}

}  // namespace

TEST_CASE("accepted tokens are noted one by one: stop ids and limits cut the path", "[decode]") {
  using kernels::kDone;
  using kernels::kInvalidLogits;
  using kernels::kRunning;
  const Noted all = note(kRunning, 5, 100, {7});
  CHECK(all.kept[0] == 3);
  CHECK(all.status[0] == kRunning);
  CHECK(all.newest[0] == 44);
  CHECK(all.drawn[0] == 8);
  CHECK(all.fed == std::vector<int32_t>{40, 42, 43, 0, 0, 0});
  CHECK(all.rows == std::vector<int32_t>{0, 2, 3, 4, 4, 4});
  CHECK(all.last == std::vector<int32_t>{3, 4});
  // A stop id among the guesses: it is the newest token, and has not been fed.
  const Noted stopped = note(kRunning, 5, 100, {43, 7});
  CHECK(stopped.kept[0] == 2);
  CHECK(stopped.status[0] == kDone);
  CHECK(stopped.newest[0] == 43);
  CHECK(stopped.drawn[0] == 7);
  CHECK(stopped.fed == std::vector<int32_t>{40, 42, 0, 0, 0, 0});
  CHECK(stopped.last[0] == 2);
  CHECK(note(kRunning, 5, 100, {44}).kept[0] == 3);
  CHECK(note(kRunning, 5, 100, {44}).status[0] == kDone);
  const Noted limited = note(kRunning, 5, 6, {});
  CHECK(limited.kept[0] == 1);
  CHECK(limited.status[0] == kDone);
  CHECK(limited.newest[0] == 42);
  CHECK(note(kRunning, 5, 8, {}).kept[0] == 3);
  CHECK(note(kRunning, 5, 8, {}).status[0] == kDone);
  const Noted invalid = note(kRunning, 5, 100, {}, -1);
  CHECK(invalid.kept[0] == 0);
  CHECK(invalid.status[0] == kInvalidLogits);
  CHECK(invalid.newest[0] == 40);
  CHECK(invalid.drawn[0] == 5);
  const Noted idle = note(kDone, 5, 100, {});
  CHECK(idle.kept[0] == 0);
  CHECK(idle.status[0] == kDone);
}

TEST_CASE("pending tokens may lie beyond a cache's capacity, but never stand there", "[decode]") {
  kernels::PassRows rows;
  rows.lengths = Array::from(std::vector<int32_t>{8, 10}, {2});
  const Array depths = Array::from(std::vector<int32_t>{0, 1, 1, 2}, {4});
  const Array positions = Array::empty({2, 4}, DType::i32);
  kernels::cpu::cache_positions(rows, depths, 10, 4, positions);
  CHECK(positions.to_vector<int32_t>() == std::vector<int32_t>{8, 9, 9, 9, 9, 9, 9, 9});
  CHECK_THROWS_WITH(kernels::cpu::cache_positions(rows, depths, 10, 3, positions),
                    Catch::Contains("full"));
}
