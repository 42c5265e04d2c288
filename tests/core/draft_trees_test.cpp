// The kernels of draft trees whose form follows the text: on both devices against what the paper's
// steps give, node by node.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include <binade/core/kernels/draft_trees.h>

#include "core/cuda_compare.h"
#include "core/sample_cases.h"

using namespace binade;
using namespace binade::test;
using kernels::DraftPool;
using kernels::TreeBeams;
using kernels::TreeLevel;

namespace {

Array ints(const std::vector<int32_t>& values, const Shape& shape, Device device) {
  return on_device(Array::from(values, shape), device);
}

int64_t pick(Random& random, int64_t least, int64_t most) {
  return std::uniform_int_distribution<int64_t>(least, most)(random);
}

struct Node {
  float score;
  int32_t token, parent;
  uint64_t visible;
};
bool better(const std::vector<Node>& all, size_t a, size_t b) {
  return all[a].score > all[b].score;
}

// Scores are multiples of a quarter, so that many are equal; some guesses are none.
void check_trees(Device device) {
  const float never = -std::numeric_limits<float>::infinity();
  Random random(4);
  for (const auto& [slots, depth, width, nodes] :
       std::vector<std::array<int64_t, 4>>{{1, 1, 1, 2},
                                           {2, 3, 2, 8},
                                           {3, 5, 4, 24},
                                           {2, 7, 10, 60},
                                           {1, 5, 16, 64},
                                           {2, 2, 16, 2}})
    for (const bool named : {false, true}) {
      INFO(slots << " slots, " << depth << " levels of " << width << ", " << nodes << " nodes");
      const int64_t all = width + (depth - 1) * width * width;
      std::vector<int32_t> names;
      for (int32_t i = 0; i < 40; ++i) names.push_back(3 * i + 1);
      const Array name_array = named ? ints(names, {40}, device) : Array();
      const DraftPool pool{
          on_device(Array::full({slots, all}, 7, DType::f32), device),
          ints(std::vector<int32_t>(static_cast<size_t>(slots * all), -7), {slots, all}, device),
          ints(std::vector<int32_t>(static_cast<size_t>(slots * all), -7), {slots, all}, device)};
      std::vector<std::vector<Node>> made(static_cast<size_t>(slots));
      std::vector<std::vector<size_t>> beams(static_cast<size_t>(slots));  // numbers of guesses
      TreeBeams behind;
      for (int64_t level = 1; level <= depth; ++level) {
        const int64_t parents = level == 1 ? 1 : width;
        std::vector<int32_t> columns;
        std::vector<float> scores;
        for (int64_t i = 0; i < slots * parents * width; ++i) {
          const bool none = pick(random, 0, 20) == 0;
          columns.push_back(none ? -1 : static_cast<int32_t>(pick(random, 0, 39)));
          scores.push_back(none ? never : -0.25f * static_cast<float>(pick(random, 0, 8)));
        }
        const TreeLevel now{ints(columns, {slots * parents, width}, device),
                            on_device(Array::from(scores, {slots * parents, width}), device),
                            name_array, level == 1 ? 0 : width + (level - 2) * width * width,
                            (level - 1) * width};
        const auto empty = [&](DType dtype) { return Array::empty({slots, width}, dtype, device); };
        TreeBeams next;
        if (level < depth)
          next = {empty(DType::i32), empty(DType::f32), empty(DType::i32), empty(DType::i64),
                  empty(DType::i32)};
        BINADE_DISPATCH(device, grow_tree(now, behind, pool, next));
        for (size_t s = 0; s < made.size(); ++s) {
          std::vector<Node>& nodes_of = made[s];
          std::vector<size_t> order;
          for (int64_t i = 0; i < parents * width; ++i) {
            const auto at = static_cast<size_t>(static_cast<int64_t>(s) * parents * width + i);
            const int32_t column = columns[at];
            Node node{scores[at],
                      column < 0 || !named ? column : names[static_cast<size_t>(column)], 0, 0};
            if (level > 1) {
              const size_t parent = beams[s][static_cast<size_t>(i / width)];
              node.score += nodes_of[parent].score;
              node.parent = static_cast<int32_t>(parent) + 1;
              node.visible = nodes_of[parent].visible;
            }
            order.push_back(nodes_of.size());
            nodes_of.push_back(node);
          }
          std::stable_sort(order.begin(), order.end(),
                           [&](size_t a, size_t b) { return better(nodes_of, a, b); });
          order.resize(static_cast<size_t>(width));
          for (size_t w = 0; level < depth && w < order.size(); ++w) {
            Node& node = nodes_of[order[w]];
            node.visible |= uint64_t{1} << ((level - 1) * width + static_cast<int64_t>(w));
            const auto at = static_cast<size_t>(static_cast<int64_t>(s) * width) + w;
            CHECK(next.ids.to_vector<int32_t>()[at] == std::max(node.token, 0));
            CHECK(next.scores.to_vector<float>()[at] == node.score);
            CHECK(next.nodes.to_vector<int32_t>()[at] == static_cast<int32_t>(order[w]) + 1);
            CHECK(static_cast<uint64_t>(next.visible.to_vector<int64_t>()[at]) == node.visible);
            const auto source = next.sources.to_vector<int32_t>()[at];
            const size_t parent = level == 1 ? 0 : beams[s][static_cast<size_t>(source % width)];
            CHECK(source / static_cast<int32_t>(parents) == static_cast<int32_t>(s));
            if (level > 1) CHECK(static_cast<size_t>(node.parent) == parent + 1);
          }
          beams[s] = order;
        }
        behind = next;
      }
      std::vector<int32_t> roots;
      for (int64_t s = 0; s < slots; ++s) roots.push_back(static_cast<int32_t>(100 + s));
      const kernels::DraftNodes drafts{Array::empty({slots, nodes}, DType::i32, device),
                                       Array::empty({slots, nodes}, DType::i32, device)};
      BINADE_DISPATCH(device, best_nodes(pool, ints(roots, {slots}, device), drafts));
      const auto tokens = drafts.tokens.to_vector<int32_t>(),
                 parents = drafts.parents.to_vector<int32_t>();
      for (size_t s = 0; s < made.size(); ++s) {
        std::vector<size_t> order(made[s].size());
        std::iota(order.begin(), order.end(), size_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&](size_t a, size_t b) { return better(made[s], a, b); });
        order.resize(static_cast<size_t>(nodes - 1));
        std::sort(order.begin(), order.end());
        const size_t at = s * static_cast<size_t>(nodes);
        CHECK(tokens[at] == roots[s]);
        CHECK(parents[at] == -1);
        for (size_t n = 0; n < order.size(); ++n) {
          const Node& node = made[s][order[n]];
          CHECK(tokens[at + n + 1] == node.token);
          const auto parent = std::find(order.begin(), order.end(),
                                        static_cast<size_t>(std::max(node.parent - 1, 0)));
          CHECK(parents[at + n + 1] ==
                (node.parent == 0 ? 0 : static_cast<int32_t>(parent - order.begin()) + 1));
          CHECK(parents[at + n + 1] <= static_cast<int32_t>(n));
        }
      }
    }
}

void check_log_probabilities(Device device) {
  Random random(6);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    for (const int64_t vocabulary : {1, 9, 700, 50000}) {
      INFO(dtype << ", V " << vocabulary);
      const int64_t rows = 5, count = std::min<int64_t>(vocabulary, 3);
      const Array logits = logits_of_all_kinds(rows, vocabulary, dtype, random);
      std::vector<int32_t> columns;
      for (int64_t i = 0; i < rows * count; ++i)
        columns.push_back(i == 1 ? -1 : static_cast<int32_t>(pick(random, 0, vocabulary - 1)));
      const Array scores = Array::empty({rows, count}, DType::f32, device);
      BINADE_DISPATCH(device, log_probabilities(on_device(logits, device),
                                                ints(columns, {rows, count}, device), scores));
      const auto found = scores.to_vector<float>();
      for (int64_t row = 0; row < rows; ++row) {
        double largest = -INFINITY, sum = 0;
        for (int64_t i = 0; i < vocabulary; ++i)
          largest = std::max(largest, read(logits, row * vocabulary + i));
        for (int64_t i = 0; i < vocabulary; ++i)
          sum += std::exp(read(logits, row * vocabulary + i) - largest);
        for (int64_t k = row * count; k < (row + 1) * count; ++k) {
          const auto at = static_cast<size_t>(k);
          CHECK(found[at] <= 0);
          if (columns[at] < 0 || read(logits, row * vocabulary + columns[at]) == -INFINITY) {
            CHECK(found[at] == -INFINITY);
            continue;
          }
          const double expected =
              read(logits, row * vocabulary + columns[at]) - largest - std::log(sum);
          if (largest > -INFINITY && expected > -INFINITY)
            CHECK(found[at] == Approx(expected).epsilon(1e-5).margin(1e-5));
        }
      }
    }
}

}  // namespace

TEST_CASE("draft trees grow by their best nodes", "[decode]") {
  check_trees(Device::cpu());
}

TEST_CASE("draft trees grow by their best nodes on the GPU", "[decode][cuda]") {
  require_gpu();
  check_trees(test_gpu());
}

TEST_CASE("log-probabilities of columns are those of the softmax", "[decode]") {
  check_log_probabilities(Device::cpu());
}

TEST_CASE("log-probabilities of columns on the GPU are those of the softmax", "[decode][cuda]") {
  require_gpu();
  check_log_probabilities(test_gpu());
}
