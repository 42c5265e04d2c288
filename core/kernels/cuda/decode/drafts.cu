// What drafted trees are made of, and what becomes of the accepted paths.
#include <binade/core/kernels/drafts.h>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kNodes = static_cast<int>(kMostPending);

__global__ void __launch_bounds__(kBlock)
    draft_kernel(int slots, int nodes, int guess_count, const int32_t* root, const int32_t* guesses,
                 const int32_t* candidates, int32_t* tokens) {
  const int i = blockIdx.x * kBlock + threadIdx.x;
  if (i >= slots * nodes) return;
  const int s = i / nodes, n = i % nodes;
  tokens[i] = n == 0 ? root[s] : guesses[s * guess_count + candidates[n] - 1];
}

__global__ void __launch_bounds__(kBlock)
    feedable_kernel(int count, const int32_t* tokens, int32_t* ids) {
  const int i = blockIdx.x * kBlock + threadIdx.x;
  if (i < count) ids[i] = max(tokens[i], 0);
}

// Block s: a thread a node, which goes up to the root.
__global__ void __launch_bounds__(kNodes)
    shapes_kernel(int nodes, const int32_t* parents, int32_t* depths, int64_t* visible) {
  __shared__ int above[kNodes];
  const int n = threadIdx.x;
  if (n < nodes) {
    const int parent = parents[blockIdx.x * nodes + n];
    above[n] = parent >= 0 && parent < n ? parent : n - 1;
  }
  __syncthreads();
  if (n >= nodes) return;
  int depth = 0;
  uint64_t word = uint64_t{1} << n;
  for (int node = n; node > 0; ++depth) {
    node = above[node];
    word |= uint64_t{1} << node;
  }
  depths[blockIdx.x * nodes + n] = depth;
  visible[blockIdx.x * nodes + n] = static_cast<int64_t>(word);
}

// Block s: a thread a token.
__global__ void __launch_bounds__(kNodes)
    learnt_kernel(int length, const int32_t* accepted, const int32_t* counts, const int32_t* next,
                  int32_t* tokens, int32_t* counts_copy, bool* running, int32_t* newest) {
  const int s = blockIdx.x, j = threadIdx.x, count = counts[s];
  if (j < length) tokens[s * length + j] = j + 1 < count ? accepted[s * length + j + 1] : next[s];
  if (j > 0) return;
  counts_copy[s] = count;
  running[s] = count > 0;
  newest[s] = s * length + max(count - 1, 0);
}

// Block (words of a row, slot).
template <class Word>
__global__ void keep_kernel(int words, const Word* rows, const int32_t* sources,
                            const bool* running, Word* kept) {
  const int s = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= words || !running[s]) return;
  kept[int64_t{s} * words + i] = rows[int64_t{sources ? sources[s] : s} * words + i];
}

__device__ __forceinline__ uint64_t low_bits(int count) {
  return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

struct ModuleRows {
  int columns, nodes, rows_above;
  const int32_t *counts, *node_depths, *parents;
  const int64_t* node_words;
  int32_t *depths, *sources, *newest;
  int64_t* words;
};

// Block s: a thread a row.
__global__ void __launch_bounds__(kNodes) module_rows_kernel(const ModuleRows p) {
  const int s = blockIdx.x, r = threadIdx.x, all = p.columns + p.nodes;
  const int count = p.counts[s], first = s * (1 + p.rows_above);
  if (r == 0) p.newest[s] = s * p.rows_above + max(count - 1, 0);
  if (r >= all) return;
  int depth = r, source = r;
  uint64_t word = low_bits(r + 1);
  if (r >= p.columns) {
    const int node = r - p.columns, parent = p.parents[node];
    depth = count + p.node_depths[node];
    word = low_bits(count) | static_cast<uint64_t>(p.node_words[node]) << p.columns;
    source = parent == 0 ? count : p.columns + parent;
  }
  p.depths[s * all + r] = depth;
  p.words[s * all + r] = static_cast<int64_t>(word);
  p.sources[s * all + r] = first + source;
}

struct Noting {
  int nodes, most, stops;
  const int32_t *tokens, *paths, *counts, *next, *stop_ids;
  int32_t *newest, *status, *drawn, *limits;        // of the state
  int32_t *kept, *status_copy, *fed, *rows, *last;  // outcome
};

// Block s: its threads read the path, one of them goes along it, all write.
__global__ void __launch_bounds__(kNodes) note_kernel(const Noting p) {
  __shared__ int path[kNodes], token[kNodes], shared_kept;
  const int s = blockIdx.x, m = threadIdx.x;
  const int count = min(p.counts[s], p.most);
  if (m < p.most) {
    path[m] = m < count ? p.paths[s * p.most + m] : 0;
    token[m] = p.tokens[s * p.nodes + path[m]];
  }
  __syncthreads();
  if (m == 0) {
    const int next = p.next[s], limit = p.limits[s];
    int status = p.status[s], drawn = p.drawn[s], kept = 0, newest = p.newest[s];
    if (status == kRunning && next < 0) status = kInvalidLogits;
    while (kept < count && status == kRunning) {
      ++kept;
      newest = kept < count ? token[kept] : next;
      ++drawn;
      bool done = drawn >= limit;
      for (int i = 0; i < p.stops; ++i) done = done || p.stop_ids[i] == newest;
      if (done) status = kDone;
    }
    p.newest[s] = newest;
    p.status[s] = p.status_copy[s] = status;
    p.drawn[s] = drawn;
    p.kept[s] = kept;
    p.last[s] = s * p.nodes + path[max(kept - 1, 0)];
    shared_kept = kept;
  }
  __syncthreads();
  if (m >= p.most) return;
  const bool real = m < shared_kept;
  p.fed[s * p.most + m] = real ? token[m] : 0;
  p.rows[s * p.most + m] = s * p.nodes + (real ? path[m] : 0);
}

}  // namespace

void draft_tokens(const Array& root, const Array& guesses, const Array& candidates,
                  const Array& tokens) {
  launch("draft_tokens", draft_kernel, one_block_each(ceil_div(tokens.numel(), kBlock)), kBlock, 0,
         static_cast<int>(tokens.size(0)), static_cast<int>(tokens.size(1)),
         static_cast<int>(guesses.size(1)), device_data<const int32_t>(root),
         device_data<const int32_t>(guesses), device_data<const int32_t>(candidates),
         device_data<int32_t>(tokens));
}

void feedable_tokens(const Array& tokens, const Array& ids) {
  launch("feedable_tokens", feedable_kernel, one_block_each(ceil_div(tokens.numel(), kBlock)),
         kBlock, 0, static_cast<int>(tokens.numel()), device_data<const int32_t>(tokens),
         device_data<int32_t>(ids));
}

void tree_shapes(const Array& parents, const Array& depths, const Array& visible) {
  launch("tree_shapes", shapes_kernel, one_block_each(parents.size(0)), kNodes, 0,
         static_cast<int>(parents.size(1)), device_data<const int32_t>(parents),
         device_data<int32_t>(depths), device_data<int64_t>(visible));
}

void learnt_tokens(const Array& accepted, const Array& counts, const Array& next,
                   const LearntTokens& learnt) {
  launch("learnt_tokens", learnt_kernel, one_block_each(accepted.size(0)), kNodes, 0,
         static_cast<int>(accepted.size(1)), device_data<const int32_t>(accepted),
         device_data<const int32_t>(counts), device_data<const int32_t>(next),
         device_data<int32_t>(learnt.tokens), device_data<int32_t>(learnt.counts),
         device_data<bool>(learnt.running), device_data<int32_t>(learnt.newest));
}

void keep_rows(const Array& rows, const Array& sources, const Array& running, const Array& kept) {
  constexpr int kThreads = 256;
  const auto run = [&]<class Word>(Word) {
    const int64_t words = kept.size(1) * size_of(kept.dtype()) / static_cast<int64_t>(sizeof(Word));
    launch("keep_rows", keep_kernel<Word>,
           dim3(one_block_each(ceil_div(words, kThreads)), one_block_each(kept.size(0))), kThreads,
           0, static_cast<int>(words), static_cast<const Word*>(rows.data()), i32_or_null(sources),
           device_data<const bool>(running), static_cast<Word*>(kept.data()));
  };
  if (size_of(kept.dtype()) % 4 == 0 || kept.size(1) % 2 == 0)
    run(uint32_t{});
  else
    run(uint16_t{});
}

void module_pass_rows(const ModulePass& pass, const ModulePassRows& rows) {
  const ModuleRows p{
      static_cast<int>(pass.columns),           static_cast<int>(pass.parents.numel()),
      static_cast<int>(pass.rows_above),        device_data<const int32_t>(pass.counts),
      device_data<const int32_t>(pass.depths),  device_data<const int32_t>(pass.parents),
      device_data<const int64_t>(pass.visible), device_data<int32_t>(rows.depths),
      device_data<int32_t>(rows.sources),       device_data<int32_t>(rows.newest),
      device_data<int64_t>(rows.visible)};
  launch("module_pass_rows", module_rows_kernel, one_block_each(pass.counts.size(0)), kNodes, 0, p);
}

void note_accepted(const DraftNodes& drafts, const AcceptedPaths& accepted,
                   const SampleRules& rules, const SampleState& state, const NotedPaths& noted) {
  const Noting p{static_cast<int>(drafts.tokens.size(1)),
                 static_cast<int>(accepted.nodes.size(1)),
                 rules.stop_ids.defined() ? static_cast<int>(rules.stop_ids.numel()) : 0,
                 device_data<const int32_t>(drafts.tokens),
                 device_data<const int32_t>(accepted.nodes),
                 device_data<const int32_t>(accepted.counts),
                 device_data<const int32_t>(accepted.next),
                 i32_or_null(rules.stop_ids),
                 device_data<int32_t>(state.tokens),
                 device_data<int32_t>(state.status),
                 device_data<int32_t>(state.drawn),
                 device_data<int32_t>(state.limits),
                 device_data<int32_t>(noted.kept),
                 device_data<int32_t>(noted.status),
                 device_data<int32_t>(noted.fed),
                 device_data<int32_t>(noted.rows),
                 device_data<int32_t>(noted.last)};
  launch("note_accepted", note_kernel, one_block_each(drafts.tokens.size(0)), kNodes, 0, p);
}

}  // namespace binade::kernels::cuda
