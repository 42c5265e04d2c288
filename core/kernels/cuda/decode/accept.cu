// Which drafted paths the target's logits accept. A block takes a slot.
#include <binade/core/kernels/draft_rules.h>
#include <binade/core/kernels/drafts.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/decode/token_search.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kNodes = static_cast<int>(kMostPending);

struct Trees {
  int nodes, parent_row;  // parents of a slot: 0 or N
  const int32_t *tokens, *parents;

  explicit Trees(const DraftNodes& drafts)
      : nodes(static_cast<int>(drafts.tokens.size(1))),
        parent_row(drafts.parents.dims() == 2 ? nodes : 0),
        tokens(device_data<const int32_t>(drafts.tokens)),
        parents(device_data<const int32_t>(drafts.parents)) {}
  __device__ __forceinline__ int token(int slot, int node) const {
    return tokens[slot * nodes + node];
  }
  __device__ __forceinline__ int parent(int slot, int node) const {
    return parents[slot * parent_row + node];
  }
};

struct Paths {
  int most;
  int32_t *nodes, *counts, *next;

  explicit Paths(const AcceptedPaths& accepted)
      : most(static_cast<int>(accepted.nodes.size(1))),
        nodes(device_data<int32_t>(accepted.nodes)),
        counts(device_data<int32_t>(accepted.counts)),
        next(device_data<int32_t>(accepted.next)) {}
  // By one thread: `count` nodes up from `last`, −1 behind them.
  __device__ void write(int slot, const int* parents, int last, int count, int token) const {
    int32_t* path = nodes + slot * most;
    for (int i = count; i < most; ++i) path[i] = -1;
    for (int i = count - 1; i >= 0; --i, last = parents[last]) path[i] = last;
    counts[slot] = count;
    next[slot] = token;
  }
};

// What typical acceptance knows of a row: log Σ exp, and what a probability must exceed.
struct RowRule {
  float log_sum, enough;
};

struct Sums {
  double all, weighted;
};
struct SumsFold {
  __device__ Sums operator()(const Sums& a, const Sums& b) const {
    return {a.all + b.all, a.weighted + b.weighted};
  }
};

// A row a block; best: its most probable token.
template <class T>
__global__ void __launch_bounds__(kBlock)
    typical_rows_kernel(const T* logits, int64_t row_stride, int vocabulary, const int32_t* best,
                        const TypicalRule rule, RowRule* rules) {
  const int64_t row = blockIdx.x;
  const T* x = logits + row * row_stride;
  if (best[row] < 0) return;
  const float largest = widen(x[best[row]]);
  const auto factor = static_cast<float>(1 / rule.temperature);
  Sums sums{0, 0};
  for (int i = threadIdx.x; i < vocabulary; i += kBlock) {
    const float y = (widen(x[i]) - largest) * factor, e = expf(y);
    sums.all += static_cast<double>(e);
    if (e > 0) sums.weighted += static_cast<double>(e) * static_cast<double>(y);
  }
  sums = block_reduce<kBlock>(sums, SumsFold(), Sums{0, 0});
  if (threadIdx.x != 0) return;
  const double log_sum = log(sums.all), entropy = log_sum - sums.weighted / sums.all;
  rules[row] = {static_cast<float>(log_sum),
                static_cast<float>(min(rule.epsilon, rule.delta * exp(-entropy)))};
}

// Whether a node is accepted behind its parent, and what that adds to its path's score.
struct ByBest {
  __device__ bool operator()(int, int token, int, int best_above, float&) const {
    return token == best_above;
  }
};
template <class T>
struct ByTypical {
  const T* logits;
  int64_t row_stride;
  float factor;
  const RowRule* rules;
  __device__ bool operator()(int row, int token, int, int best_above, float& gain) const {
    const T* x = logits + row * row_stride;
    gain = (widen(x[token]) - widen(x[best_above])) * factor - rules[row].log_sum;
    return expf(gain) > rules[row].enough;
  }
};

// A thread a node; then one goes through them.
template <class Accepts>
__global__ void __launch_bounds__(kNodes)
    longest_kernel(const Trees trees, const int32_t* best, const int32_t* running,
                   const Accepts accepts, const Paths paths) {
  __shared__ int parents[kNodes], most_probable[kNodes], depth[kNodes];
  __shared__ bool matches[kNodes];
  __shared__ float gains[kNodes], score[kNodes];
  const int slot = blockIdx.x, n = threadIdx.x;
  if (running[slot] <= 0) {
    if (n == 0) paths.write(slot, parents, -1, 0, 0);
    return;
  }
  if (n < trees.nodes) {
    parents[n] = trees.parent(slot, n);
    most_probable[n] = best[slot * trees.nodes + n];
  }
  __syncthreads();
  if (n > 0 && n < trees.nodes) {
    const int above = parents[n], token = trees.token(slot, n);
    float gain = 0;
    matches[n] = token >= 0 && most_probable[above] >= 0 &&
                 accepts(slot * trees.nodes + above, token, n, most_probable[above], gain);
    gains[n] = gain;
  }
  __syncthreads();
  if (n > 0) return;
  depth[0] = 0;
  score[0] = 0;
  int last = 0;
  bool valid = most_probable[0] >= 0;
  for (int node = 1; node < trees.nodes; ++node) {
    const int above = parents[node];
    depth[node] = -1;
    if (!matches[node] || depth[above] < 0) continue;
    depth[node] = depth[above] + 1;
    score[node] = score[above] + gains[node];
    valid = valid && most_probable[node] >= 0;
    if (depth[node] > depth[last] || (depth[node] == depth[last] && score[node] > score[last]))
      last = node;
  }
  paths.write(slot, parents, last, depth[last] + 1, valid ? most_probable[last] : -1);
}

struct Sum {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};

// p at a node: the tokens that are left of a row, less the guesses that were rejected.
template <class T>
struct Weights {
  Row<T> row;
  Kept kept;
  float largest;
  double temperature;
  const int* rejected;  // shared memory
  int rejected_count;

  __device__ __forceinline__ uint64_t at(int token) const {
    const float x = row.at(token);
    if (!kept.has(key_of(x), token)) return 0;
    const uint64_t weight = sample_weight(x, largest, temperature);
    for (int i = 0; i < rejected_count && weight > 0; ++i)
      if (rejected[i] == token) return 0;
    return weight;
  }
};

// The first token, by ascending ids, at which the running sum of weights exceeds the target. All
// threads get it.
template <class T>
__device__ int draw_by_id(const Weights<T>& weights, uint64_t target) {
  __shared__ unsigned long long of_warps[kThreads / kWarp];
  __shared__ int token;
  const int vocabulary = weights.row.vocabulary;
  const int share = static_cast<int>(ceil_div(vocabulary, kThreads));
  const int begin = min(static_cast<int>(threadIdx.x) * share, vocabulary);
  const int end = min(begin + share, vocabulary);
  uint64_t mine = 0;
  for (int i = begin; i < end; ++i) mine += weights.at(i);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint64_t sum = mine;
  for (int step = 1; step < kWarp; step *= 2) {
    const uint64_t other = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();
  if (lane == kWarp - 1) of_warps[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) sum += of_warps[w];
  uint64_t before = sum - mine;
  if (before <= target && target < sum) {
    for (int i = begin; i < end; ++i) {
      before += weights.at(i);
      if (before <= target) continue;
      token = i;
      break;
    }
  }
  __syncthreads();
  return token;
}

struct SampledRules {
  double temperature, top_p;
  int64_t top_k;
  uint64_t seed;
};

// All threads go the same way.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sampled_kernel(const T* logits, int64_t row_stride, int vocabulary, const Trees trees,
                   const SampledRules rules, const int32_t* status, const int32_t* drawn,
                   const int32_t* places, const Paths paths) {
  __shared__ Shared shared;
  __shared__ int parents[kNodes], tokens[kNodes], rejected[kNodes];
  const int slot = blockIdx.x;
  if (status[slot] != kRunning) {
    if (threadIdx.x == 0) paths.write(slot, parents, -1, 0, 0);
    return;
  }
  for (int n = threadIdx.x; n < trees.nodes; n += kThreads) {
    parents[n] = trees.parent(slot, n);
    tokens[n] = trees.token(slot, n);
  }
  __syncthreads();
  const auto uniform = [&](uint64_t use, int node) {
    return draft_uniform(rules.seed, drawn[slot], places[slot], use, node);
  };
  int node = 0, count = 1, next = -1;
  while (true) {
    const Row<T> row{logits + (int64_t{slot} * trees.nodes + node) * row_stride, vocabulary,
                     nullptr, 0};
    const Range range = range_of(row);
    if (!range.valid()) break;
    Weights<T> weights{row,
                       kept_tokens(row, range, rules.temperature, rules.top_k, rules.top_p, shared),
                       logit_of(range.key()),
                       rules.temperature,
                       rejected,
                       0};
    uint64_t total = 0;
    for (int i = threadIdx.x; i < vocabulary; i += kThreads) total += weights.at(i);
    total = block_reduce<kThreads>(total, Sum(), uint64_t{0});
    int chosen = -1;
    for (int child = node + 1; child < trees.nodes && chosen < 0; ++child) {
      if (parents[child] != node || tokens[child] < 0) continue;
      const uint64_t weight = weights.at(tokens[child]);
      if (uniform(kAcceptanceUse, child) * static_cast<double>(total) <
          static_cast<double>(weight)) {
        chosen = child;
      } else if (weight < total) {
        total -= weight;
        __syncthreads();  // the others have read what is rejected so far
        if (threadIdx.x == 0) rejected[weights.rejected_count] = tokens[child];
        __syncthreads();
        ++weights.rejected_count;
      }
    }
    if (chosen < 0) {
      next = draw_by_id(weights, draw_target(uniform(kNextUse, node), total));
      break;
    }
    node = chosen;
    ++count;
    __syncthreads();
  }
  if (threadIdx.x == 0) paths.write(slot, parents, node, count, next);
}

template <class Visit>
void visit_logits(const Array& logits, const Visit& visit) {
  visit_floating(logits.dtype(), "acceptance", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    if constexpr (std::is_same_v<T, double>)
      fail("acceptance on the GPU takes f32, f16 and bf16 logits, got f64");
    else
      visit(T{});
  });
}

template <class Accepts>
void accept_longest(const Array& best, const DraftNodes& drafts, const Array& running,
                    const Accepts& accepts, const AcceptedPaths& accepted) {
  launch("accept_longest", longest_kernel<Accepts>, one_block_each(drafts.tokens.size(0)), kNodes,
         0, Trees(drafts), device_data<const int32_t>(best), device_data<const int32_t>(running),
         accepts, Paths(accepted));
}

}  // namespace

void accept_greedy(const Array& best, const DraftNodes& drafts, const Array& running,
                   const AcceptedPaths& accepted) {
  accept_longest(best, drafts, running, ByBest(), accepted);
}

void accept_typical(const Array& logits, const Array& best, const DraftNodes& drafts,
                    const Array& running, const TypicalRule& rule, const AcceptedPaths& accepted) {
  const Workspace<RowRule> rules(logits.size(0));
  visit_logits(logits, [&]<class T>(T) {
    const T* data = device_data<const T>(logits);
    launch("typical_rows", typical_rows_kernel<T>, one_block_each(logits.size(0)), kBlock, 0, data,
           logits.stride(0), static_cast<int>(logits.size(1)), device_data<const int32_t>(best),
           rule, rules.data());
    accept_longest(best, drafts, running,
                   ByTypical<T>{data, logits.stride(0), static_cast<float>(1 / rule.temperature),
                                rules.data()},
                   accepted);
  });
}

void accept_sampled(const Array& logits, const DraftNodes& drafts, const SampleRules& rules,
                    const SampleState& state, const AcceptedPaths& accepted) {
  visit_logits(logits, [&]<class T>(T) {
    launch("accept_sampled", sampled_kernel<T>, one_block_each(drafts.tokens.size(0)), kThreads, 0,
           device_data<const T>(logits), logits.stride(0), static_cast<int>(logits.size(1)),
           Trees(drafts), SampledRules{rules.temperature, rules.top_p, rules.top_k, rules.seed},
           device_data<const int32_t>(state.status), device_data<const int32_t>(state.drawn),
           device_data<const int32_t>(state.places), Paths(accepted));
  });
}

}  // namespace binade::kernels::cuda
