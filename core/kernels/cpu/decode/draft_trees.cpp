// Draft trees whose form follows the text.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/draft_trees.h>

namespace binade::kernels::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// The numbers of the `count` best of `scores`, best first.
std::vector<int32_t> best_of(const float* scores, int64_t all, int64_t count) {
  std::vector<int32_t> order(static_cast<size_t>(all));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [scores](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(count));
  return order;
}

}  // namespace

void log_probabilities(const Array& logits, const Array& columns, const Array& scores) {
  const int64_t vocabulary = logits.size(1), count = columns.size(1);
  const Rows rows(logits);
  const auto* at = columns.data<int32_t>();
  auto* out = scores.data<float>();
  parallel_for(logits.size(0), row_grain(vocabulary), [&](int64_t begin, int64_t end) {
    RowReader<float> reader;
    for (int64_t r = begin; r < end; ++r) {
      const float* row = reader.read(rows[r], rows.dtype, vocabulary);
      const float largest = *std::max_element(row, row + vocabulary);
      double sum = 0;
      for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(row[i] - largest);
      const auto shift = static_cast<float>(std::log(sum));
      for (int64_t k = r * count; k < (r + 1) * count; ++k) {
        const float logit = at[k] < 0 ? kNever : row[at[k]];
        out[k] = logit == kNever ? kNever : std::min(logit - largest - shift, 0.0f);
      }
    }
  });
}

void grow_tree(const TreeLevel& level, const TreeBeams& behind, const DraftPool& pool,
               const TreeBeams& next) {
  const int64_t slots = pool.scores.size(0), most = pool.scores.size(1);
  const int64_t width = level.columns.size(1), parents = level.columns.size(0) / slots;
  const int64_t made = parents * width;
  const bool root = !behind.scores.defined();
  const auto* names = level.names.defined() ? level.names.data<int32_t>() : nullptr;
  for (int64_t s = 0; s < slots; ++s) {
    const auto* column = level.columns.data<int32_t>() + s * made;
    const auto* own = level.scores.data<float>() + s * made;
    auto* score = pool.scores.data<float>() + s * most + level.first;
    auto* token = pool.tokens.data<int32_t>() + s * most + level.first;
    auto* parent = pool.parents.data<int32_t>() + s * most + level.first;
    for (int64_t i = 0; i < made; ++i) {
      const int64_t p = s * parents + i / width;
      score[i] = own[i] + (root ? 0 : behind.scores.data<float>()[p]);
      token[i] = column[i] < 0 || !names ? column[i] : names[column[i]];
      parent[i] = root ? 0 : behind.nodes.data<int32_t>()[p];
    }
    if (!next.scores.defined()) continue;
    const std::vector<int32_t> best = best_of(score, made, width);
    for (int64_t w = 0; w < width; ++w) {
      const int32_t i = best[static_cast<size_t>(w)];
      const int64_t p = s * parents + i / width, to = s * width + w;
      next.ids.data<int32_t>()[to] = std::max(token[i], 0);
      next.scores.data<float>()[to] = score[i];
      next.nodes.data<int32_t>()[to] = static_cast<int32_t>(level.first) + i + 1;
      const uint64_t seen = root ? 0 : static_cast<uint64_t>(behind.visible.data<int64_t>()[p]);
      next.visible.data<int64_t>()[to] =
          static_cast<int64_t>(seen | uint64_t{1} << (level.pending + w));
      next.sources.data<int32_t>()[to] = static_cast<int32_t>(p);
    }
  }
}

void best_nodes(const DraftPool& pool, const Array& root, const DraftNodes& drafts) {
  const int64_t slots = pool.scores.size(0), most = pool.scores.size(1);
  const int64_t nodes = drafts.tokens.size(1);
  for (int64_t s = 0; s < slots; ++s) {
    std::vector<int32_t> best = best_of(pool.scores.data<float>() + s * most, most, nodes - 1);
    std::sort(best.begin(), best.end());
    auto* token = drafts.tokens.data<int32_t>() + s * nodes;
    auto* parent = drafts.parents.data<int32_t>() + s * nodes;
    token[0] = root.data<int32_t>()[s];
    parent[0] = -1;
    for (int64_t n = 1; n < nodes; ++n) {
      const int32_t guess = best[static_cast<size_t>(n - 1)];
      token[n] = pool.tokens.data<int32_t>()[s * most + guess];
      const int32_t above = pool.parents.data<int32_t>()[s * most + guess];  // 0: the root
      const auto at = std::lower_bound(best.begin(), best.end(), above - 1);
      parent[n] = above == 0 ? 0 : static_cast<int32_t>(at - best.begin()) + 1;
    }
  }
}

}  // namespace binade::kernels::cpu
