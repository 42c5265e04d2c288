// What drafted trees are made of, and what becomes of the accepted paths.
#include <algorithm>

#include <binade/core/kernels/drafts.h>

namespace binade::kernels::cpu {

void draft_tokens(const Array& root, const Array& guesses, const Array& candidates,
                  const Array& tokens) {
  const int64_t slots = tokens.size(0), nodes = tokens.size(1), count = guesses.size(1);
  const auto* roots = root.data<int32_t>();
  const auto* guess = guesses.data<int32_t>();
  const auto* candidate = candidates.data<int32_t>();
  auto* out = tokens.data<int32_t>();
  for (int64_t s = 0; s < slots; ++s) {
    out[s * nodes] = roots[s];
    for (int64_t n = 1; n < nodes; ++n) out[s * nodes + n] = guess[s * count + candidate[n] - 1];
  }
}

void feedable_tokens(const Array& tokens, const Array& ids) {
  const auto* from = tokens.data<int32_t>();
  auto* to = ids.data<int32_t>();
  for (int64_t i = 0; i < tokens.numel(); ++i) to[i] = std::max(from[i], 0);
}

void tree_shapes(const Array& parents, const Array& depths, const Array& visible) {
  const int64_t slots = parents.size(0), nodes = parents.size(1);
  for (int64_t s = 0; s < slots; ++s) {
    const auto* parent = parents.data<int32_t>() + s * nodes;
    auto* depth = depths.data<int32_t>() + s * nodes;
    auto* word = visible.data<int64_t>() + s * nodes;
    for (int64_t n = 0; n < nodes; ++n) {
      const bool root = n == 0;
      const int64_t above = parent[n] >= 0 && parent[n] < n ? parent[n] : n - 1;
      depth[n] = root ? 0 : depth[above] + 1;
      const uint64_t seen = root ? 0 : static_cast<uint64_t>(word[above]);
      word[n] = static_cast<int64_t>(seen | uint64_t{1} << n);
    }
  }
}

void note_accepted(const DraftNodes& drafts, const AcceptedPaths& accepted,
                   const SampleRules& rules, const SampleState& state, const NotedPaths& noted) {
  const int64_t slots = drafts.tokens.size(0), nodes = drafts.tokens.size(1);
  const int64_t most = accepted.nodes.size(1);
  const auto* stop = rules.stop_ids.defined() ? rules.stop_ids.data<int32_t>() : nullptr;
  const int64_t stops = rules.stop_ids.defined() ? rules.stop_ids.numel() : 0;
  for (int64_t s = 0; s < slots; ++s) {
    const auto* tokens = drafts.tokens.data<int32_t>() + s * nodes;
    const auto* path = accepted.nodes.data<int32_t>() + s * most;
    const int32_t next = accepted.next.data<int32_t>()[s];
    int32_t& status = state.status.data<int32_t>()[s];
    int32_t& drawn = state.drawn.data<int32_t>()[s];
    const int32_t limit = state.limits.data<int32_t>()[s];
    int32_t kept = 0;
    if (status == kRunning && next < 0) status = kInvalidLogits;
    if (status == kRunning) {
      const int32_t count = accepted.counts.data<int32_t>()[s];
      while (kept < count && status == kRunning) {
        ++kept;
        const int32_t token = kept < count ? tokens[path[kept]] : next;
        state.tokens.data<int32_t>()[s] = token;
        ++drawn;
        if (drawn >= limit || std::find(stop, stop + stops, token) != stop + stops) status = kDone;
      }
    }
    noted.kept.data<int32_t>()[s] = kept;
    noted.status.data<int32_t>()[s] = status;
    auto* fed = noted.fed.data<int32_t>() + s * most;
    auto* rows = noted.rows.data<int32_t>() + s * most;
    for (int64_t m = 0; m < most; ++m) {
      const bool real = m < kept;
      fed[m] = real ? tokens[path[m]] : 0;
      rows[m] = static_cast<int32_t>(s * nodes + (real ? path[m] : 0));
    }
    noted.last.data<int32_t>()[s] = rows[std::max(kept - 1, 0)];
  }
}

}  // namespace binade::kernels::cpu
