// Which drafted paths the target's logits accept.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/cpu/decode/token_order.h>
#include <binade/core/kernels/draft_rules.h>
#include <binade/core/kernels/drafts.h>
#include <binade/core/kernels/sample_rules.h>

namespace binade::kernels::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// One slot's tree.
struct Tree {
  Tree(const DraftNodes& drafts, int64_t slot)
      : nodes(static_cast<int32_t>(drafts.tokens.size(1))),
        tokens(drafts.tokens.data<int32_t>() + slot * nodes),
        parents(drafts.parents.data<int32_t>() +
                (drafts.parents.dims() == 2 ? slot * nodes : int64_t{0})) {}
  int32_t nodes;
  const int32_t* tokens;
  const int32_t* parents;
};

// Writes the path from the root to `last`, −1 for none.
void write_path(const Tree& tree, int64_t slot, int32_t last, int32_t next,
                const AcceptedPaths& accepted) {
  const int64_t most = accepted.nodes.size(1);
  auto* path = accepted.nodes.data<int32_t>() + slot * most;
  std::fill_n(path, most, -1);
  int32_t count = 0;
  for (int32_t node = last; node >= 0; node = tree.parents[node]) path[count++] = node;
  std::reverse(path, path + count);
  accepted.counts.data<int32_t>()[slot] = count;
  accepted.next.data<int32_t>()[slot] = next;
}

// The longest path of nodes that accepts(node, score so far, its score) takes behind an accepted
// parent.
template <class Accepts>
void accept_longest(const Array& best, const DraftNodes& drafts, const Array& running,
                    const AcceptedPaths& accepted, const Accepts& accepts) {
  const int64_t slots = drafts.tokens.size(0);
  parallel_tasks(slots, [&](int64_t slot) {
    const Tree tree(drafts, slot);
    if (running.data<int32_t>()[slot] <= 0) return write_path(tree, slot, -1, 0, accepted);
    const auto* most_probable = best.data<int32_t>() + slot * tree.nodes;
    std::vector<int32_t> depth(static_cast<size_t>(tree.nodes), -1);  // −1: not accepted
    std::vector<double> score(static_cast<size_t>(tree.nodes));
    depth[0] = 0;
    int32_t last = 0;
    bool valid = most_probable[0] >= 0;
    for (int32_t node = 1; node < tree.nodes; ++node) {
      const auto at = static_cast<size_t>(node);
      const auto above = static_cast<size_t>(tree.parents[node]);
      if (depth[above] < 0 || tree.tokens[node] < 0 || most_probable[above] < 0) continue;
      double gain = 0;
      if (!accepts(slot, tree, node, most_probable, gain)) continue;
      depth[at] = depth[above] + 1;
      score[at] = score[above] + gain;
      valid = valid && most_probable[node] >= 0;
      const auto so_far = static_cast<size_t>(last);
      if (depth[at] > depth[so_far] || (depth[at] == depth[so_far] && score[at] > score[so_far]))
        last = node;
    }
    write_path(tree, slot, last, valid ? most_probable[last] : -1, accepted);
  });
}

// p at a node: weights in units of 2^-40 of the largest, those that top-k and top-p leave.
struct Weights {
  std::vector<uint64_t> of;  // (V)
  uint64_t total = 0;
};

// false for logits that no token can be chosen from.
bool weigh(const std::vector<float>& logits, const SampleRules& rules, Weights& weights) {
  const auto vocabulary = static_cast<int64_t>(logits.size());
  const float largest = max_of(logits.data(), vocabulary);
  if (has_nan(logits.data(), vocabulary) || largest == kNever) return false;
  const auto weight_of = [&](size_t token) {
    return sample_weight(logits[token], largest, rules.temperature);
  };
  const bool by_rank = rules.top_k > 0 && rules.top_k < vocabulary;
  weights.of.assign(logits.size(), 0);
  weights.total = 0;
  if (!by_rank) {
    for (size_t i = 0; i < logits.size(); ++i) weights.total += weights.of[i] = weight_of(i);
    if (rules.top_p == 1) return true;
  }
  Descending tokens(logits);
  std::vector<int32_t> taken;
  if (by_rank) {
    for (int64_t k = 0; k < rules.top_k; ++k) {
      taken.push_back(tokens.next());
      weights.total += weight_of(static_cast<size_t>(taken.back()));
    }
  }
  const uint64_t target =
      rules.top_p < 1 ? top_p_target(rules.top_p, weights.total) : weights.total;
  weights.of.assign(logits.size(), 0);
  weights.total = 0;
  for (size_t place = 0; weights.total < target; ++place) {
    const auto token = static_cast<size_t>(place < taken.size() ? taken[place] : tokens.next());
    weights.total += weights.of[token] = weight_of(token);
  }
  return true;
}

int32_t draw(const Weights& weights, double uniform) {
  const uint64_t target = draw_target(uniform, weights.total);
  uint64_t sum = 0;
  size_t token = 0;
  for (; sum <= target; ++token) sum += weights.of[token];
  return static_cast<int32_t>(token) - 1;
}

}  // namespace

void accept_greedy(const Array& best, const DraftNodes& drafts, const Array& running,
                   const AcceptedPaths& accepted) {
  accept_longest(best, drafts, running, accepted,
                 [](int64_t, const Tree& tree, int32_t node, const int32_t* most_probable,
                    double&) { return tree.tokens[node] == most_probable[tree.parents[node]]; });
}

void accept_typical(const Array& logits, const Array& best, const DraftNodes& drafts,
                    const Array& running, const TypicalRule& rule, const AcceptedPaths& accepted) {
  const int64_t nodes = drafts.tokens.size(1), vocabulary = logits.size(1);
  const Rows rows(logits);
  // Of a node's row, found once it has a child: log Σ exp, and what a probability must exceed.
  struct Row {
    double log_sum, enough;
    bool known = false;
  };
  std::vector<Row> known(static_cast<size_t>(logits.size(0)));
  accept_longest(
      best, drafts, running, accepted,
      [&](int64_t slot, const Tree& tree, int32_t node, const int32_t* most_probable,
          double& gain) {
        const int32_t above = tree.parents[node];
        const int64_t at = slot * nodes + above;
        RowReader<float> reader;
        const float* x = reader.read(rows[at], rows.dtype, vocabulary);
        const auto scaled = [&](int64_t token) {
          return (static_cast<double>(x[token]) - static_cast<double>(x[most_probable[above]])) /
                 rule.temperature;
        };
        Row& row = known[static_cast<size_t>(at)];
        if (!row.known) {
          double sum = 0, weighted = 0;
          for (int64_t i = 0; i < vocabulary; ++i) {
            const double e = std::exp(scaled(i));
            sum += e;
            if (e > 0) weighted += e * scaled(i);
          }
          const double log_sum = std::log(sum), entropy = log_sum - weighted / sum;
          row = {log_sum, std::min(rule.epsilon, rule.delta * std::exp(-entropy)), true};
        }
        gain = scaled(tree.tokens[node]) - row.log_sum;
        return std::exp(gain) > row.enough;
      });
}

void accept_sampled(const Array& logits, const DraftNodes& drafts, const SampleRules& rules,
                    const SampleState& state, const AcceptedPaths& accepted) {
  const int64_t slots = drafts.tokens.size(0), nodes = drafts.tokens.size(1);
  const int64_t vocabulary = logits.size(1);
  const Rows rows(logits);
  parallel_tasks(slots, [&](int64_t slot) {
    const Tree tree(drafts, slot);
    if (state.status.data<int32_t>()[slot] != kRunning)
      return write_path(tree, slot, -1, 0, accepted);
    const auto uniform = [&](uint64_t use, int32_t node) {
      return draft_uniform(rules.seed, state.drawn.data<int32_t>()[slot],
                           state.places.data<int32_t>()[slot], use, node);
    };
    RowReader<float> reader;
    Weights weights;
    for (int32_t node = 0;;) {
      const float* read = reader.read(rows[slot * nodes + node], rows.dtype, vocabulary);
      if (!weigh({read, read + vocabulary}, rules, weights))
        return write_path(tree, slot, node, -1, accepted);
      int32_t chosen = -1;
      for (int32_t child = node + 1; child < tree.nodes && chosen < 0; ++child) {
        if (tree.parents[child] != node || tree.tokens[child] < 0) continue;
        uint64_t& weight = weights.of[static_cast<size_t>(tree.tokens[child])];
        if (uniform(kAcceptanceUse, child) * static_cast<double>(weights.total) <
            static_cast<double>(weight)) {
          chosen = child;
        } else if (weight < weights.total) {
          weights.total -= weight;
          weight = 0;
        }
      }
      if (chosen < 0)
        return write_path(tree, slot, node, draw(weights, uniform(kNextUse, node)), accepted);
      node = chosen;
    }
  });
}

}  // namespace binade::kernels::cpu
