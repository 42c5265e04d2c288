// What drafted trees are made of, and what becomes of the accepted paths.
#include <algorithm>

#include <binade/core/kernels/drafts.h>

namespace binade::kernels::cpu {

namespace {

// A word with its first `count` bits set.
uint64_t low_bits(int64_t count) {
  return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

}  // namespace

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

void learnt_tokens(const Array& accepted, const Array& counts, const Array& next,
                   const LearntTokens& learnt) {
  const int64_t slots = accepted.size(0), length = accepted.size(1);
  for (int64_t s = 0; s < slots; ++s) {
    const int32_t count = counts.data<int32_t>()[s];
    const auto* given = accepted.data<int32_t>() + s * length;
    auto* tokens = learnt.tokens.data<int32_t>() + s * length;
    for (int64_t j = 0; j < length; ++j)
      tokens[j] = j + 1 < count ? given[j + 1] : next.data<int32_t>()[s];
    learnt.counts.data<int32_t>()[s] = count;
    learnt.running.data<bool>()[s] = count > 0;
    learnt.newest.data<int32_t>()[s] = static_cast<int32_t>(s * length) + std::max(count - 1, 0);
  }
}

void keep_rows(const Array& rows, const Array& sources, const Array& running, const Array& kept) {
  const int64_t bytes = kept.size(1) * size_of(kept.dtype());
  const auto* from = static_cast<const char*>(rows.data());
  auto* to = static_cast<char*>(kept.data());
  for (int64_t s = 0; s < kept.size(0); ++s) {
    if (!running.data<bool>()[s]) continue;
    const int64_t source = sources.defined() ? sources.data<int32_t>()[s] : s;
    std::copy_n(from + source * bytes, bytes, to + s * bytes);
  }
}

void module_pass_rows(const ModulePass& pass, const ModulePassRows& rows) {
  const int64_t slots = pass.counts.size(0), nodes = pass.parents.numel(), columns = pass.columns;
  const int64_t all = columns + nodes;
  const auto* counts = pass.counts.data<int32_t>();
  const auto* parents = pass.parents.data<int32_t>();
  const auto* node_depths = pass.depths.data<int32_t>();
  const auto* node_words = pass.visible.data<int64_t>();
  for (int64_t s = 0; s < slots; ++s) {
    const int32_t count = counts[s];
    const auto first = static_cast<int32_t>(s * (1 + pass.rows_above));
    auto* depth = rows.depths.data<int32_t>() + s * all;
    auto* word = rows.visible.data<int64_t>() + s * all;
    auto* source = rows.sources.data<int32_t>() + s * all;
    for (int64_t c = 0; c < columns; ++c) {
      depth[c] = static_cast<int32_t>(c);
      word[c] = static_cast<int64_t>(low_bits(c + 1));
      source[c] = first + static_cast<int32_t>(c);
    }
    for (int64_t g = 0; g < nodes; ++g) {
      depth[columns + g] = count + node_depths[g];
      word[columns + g] =
          static_cast<int64_t>(low_bits(count) | static_cast<uint64_t>(node_words[g]) << columns);
      source[columns + g] =
          first + (parents[g] == 0 ? count : static_cast<int32_t>(columns) + parents[g]);
    }
    rows.newest.data<int32_t>()[s] =
        static_cast<int32_t>(s * pass.rows_above) + std::max(count - 1, 0);
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
