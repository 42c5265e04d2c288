// Draft trees whose form follows the text. A block takes a slot: its guesses lie in shared memory,
// and a thread finds a guess's rank by counting those that are better.
#include <binade/core/kernels/draft_trees.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kRowThreads = 512, kTreeThreads = 256, kNodeThreads = 512;

// The largest of some logits, and Σ exp(x − largest).
struct SoftmaxSum {
  float largest, sum;
};
struct SoftmaxFold {
  __device__ SoftmaxSum operator()(const SoftmaxSum& a, const SoftmaxSum& b) const {
    const float largest = fmaxf(a.largest, b.largest);
    if (largest == -INFINITY) return {largest, 0};
    // Not contracted, so that the order of a and b does not matter.
    return {largest, __fadd_rn(__fmul_rn(a.sum, expf(a.largest - largest)),
                               __fmul_rn(b.sum, expf(b.largest - largest)))};
  }
};

// Block r: a row of logits.
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    log_probabilities_kernel(int vocabulary, int64_t row_stride, const T* logits, int count,
                             const int32_t* columns, float* scores) {
  wait_for_previous();
  const T* row = logits + blockIdx.x * row_stride;
  SoftmaxSum own{-INFINITY, 0};
  for (int i = threadIdx.x; i < vocabulary; i += kRowThreads) {
    const float x = widen(row[i]);
    if (x > own.largest) {
      own.sum = own.sum * expf(own.largest - x) + 1;
      own.largest = x;
    } else if (x > -INFINITY) {
      own.sum += expf(x - own.largest);
    }
  }
  const SoftmaxSum all = block_reduce<kRowThreads>(own, SoftmaxFold(), SoftmaxSum{-INFINITY, 0});
  const int place = threadIdx.x;
  if (place >= count) return;
  const int64_t at = int64_t{blockIdx.x} * count + place;
  const int column = columns[at];
  const float logit = column < 0 ? -INFINITY : widen(row[column]);
  scores[at] = logit == -INFINITY ? logit : fminf(logit - all.largest - logf(all.sum), 0.0f);
}

// How many of `count` guesses are better than guess i.
__device__ __forceinline__ int rank_of(const float* scores, int count, int i) {
  const float own = scores[i];
  int better = 0;
  for (int j = 0; j < count; ++j) better += scores[j] > own || (scores[j] == own && j < i);
  return better;
}

struct Level {
  int parents, width, first, pending, most;
  const int32_t *columns, *names;
  const float* scores;
  // Of the nodes behind which these are; null: the root.
  const float* behind_scores;
  const int32_t* behind_nodes;
  const int64_t* behind_visible;
  float* pool_scores;
  int32_t *pool_tokens, *pool_parents;
  // Of the next level; null: there is none.
  int32_t *ids, *nodes, *sources;
  float* next_scores;
  int64_t* visible;
};

// Block s: a thread a guess, kMostTreeWidth² at the most.
__global__ void __launch_bounds__(kTreeThreads) grow_kernel(const Level p) {
  wait_for_previous();
  __shared__ float scores[kTreeThreads];
  const int s = blockIdx.x, i = threadIdx.x, made = p.parents * p.width;
  const int parent = s * p.parents + i / p.width, to = s * p.most + p.first + i;
  int token = 0;
  if (i < made) {
    const int column = p.columns[s * made + i];
    token = column >= 0 && p.names ? p.names[column] : column;
    scores[i] = p.scores[s * made + i] + (p.behind_scores ? p.behind_scores[parent] : 0.0f);
    p.pool_scores[to] = scores[i];
    p.pool_tokens[to] = token;
    p.pool_parents[to] = p.behind_nodes ? p.behind_nodes[parent] : 0;
  }
  __syncthreads();
  if (i >= made || !p.ids) return;
  const int rank = rank_of(scores, made, i);
  if (rank >= p.width) return;
  const int beam = s * p.width + rank;
  p.ids[beam] = max(token, 0);
  p.next_scores[beam] = scores[i];
  p.nodes[beam] = p.first + i + 1;
  p.sources[beam] = parent;
  const uint64_t seen = p.behind_visible ? static_cast<uint64_t>(p.behind_visible[parent]) : 0;
  p.visible[beam] = static_cast<int64_t>(seen | uint64_t{1} << (p.pending + rank));
}

// Block s.
__global__ void __launch_bounds__(kNodeThreads)
    best_nodes_kernel(int most, int nodes, const float* pool_scores, const int32_t* pool_tokens,
                      const int32_t* pool_parents, const int32_t* root, int32_t* tokens,
                      int32_t* parents) {
  wait_for_previous();
  constexpr int kPool = static_cast<int>(kMostPool);
  __shared__ float scores[kPool];
  __shared__ bool taken[kPool];
  __shared__ int guesses[kMostPending];  // those that are taken, in the order of their numbers
  const int s = blockIdx.x;
  for (int i = threadIdx.x; i < most; i += kNodeThreads) scores[i] = pool_scores[s * most + i];
  __syncthreads();
  for (int i = threadIdx.x; i < most; i += kNodeThreads)
    taken[i] = rank_of(scores, most, i) < nodes - 1;
  __syncthreads();
  for (int i = threadIdx.x; i < most; i += kNodeThreads) {
    if (!taken[i]) continue;
    int before = 0;
    for (int j = 0; j < i; ++j) before += taken[j];
    guesses[before] = i;
  }
  __syncthreads();
  const int n = threadIdx.x;
  if (n >= nodes) return;
  if (n == 0) {
    tokens[s * nodes] = root[s];
    parents[s * nodes] = -1;
    return;
  }
  const int guess = guesses[n - 1], above = pool_parents[s * most + guess];
  tokens[s * nodes + n] = pool_tokens[s * most + guess];
  int at = 0;
  if (above > 0)
    for (int m = 0; m < n - 1; ++m)
      if (guesses[m] == above - 1) at = m + 1;
  parents[s * nodes + n] = at;
}

static_assert(kMostTreeWidth * kMostTreeWidth <= kTreeThreads && kMostPending <= kNodeThreads &&
              kMostTopTokens <= kRowThreads);

}  // namespace

void log_probabilities(const Array& logits, const Array& columns, const Array& scores) {
  visit_floating(logits.dtype(), "log_probabilities", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    if constexpr (std::is_same_v<T, double>)
      fail("log_probabilities on the GPU takes f32, f16 and bf16 logits, got f64");
    else
      launch_early("log_probabilities", log_probabilities_kernel<T>,
                   dim3(one_block_each(logits.size(0))), kRowThreads, EarlyOptions{},
                   static_cast<int>(logits.size(1)), logits.stride(0), device_data<const T>(logits),
                   static_cast<int>(columns.size(1)), device_data<const int32_t>(columns),
                   device_data<float>(scores));
  });
}

void grow_tree(const TreeLevel& level, const TreeBeams& behind, const DraftPool& pool,
               const TreeBeams& next) {
  const int64_t slots = pool.scores.size(0);
  Level p{};
  p.width = static_cast<int>(level.columns.size(1));
  p.parents = static_cast<int>(level.columns.size(0) / slots);
  p.first = static_cast<int>(level.first);
  p.pending = static_cast<int>(level.pending);
  p.most = static_cast<int>(pool.scores.size(1));
  p.columns = device_data<const int32_t>(level.columns);
  p.names = i32_or_null(level.names);
  p.scores = device_data<const float>(level.scores);
  if (behind.scores.defined()) {
    p.behind_scores = device_data<const float>(behind.scores);
    p.behind_nodes = device_data<const int32_t>(behind.nodes);
    p.behind_visible = device_data<const int64_t>(behind.visible);
  }
  p.pool_scores = device_data<float>(pool.scores);
  p.pool_tokens = device_data<int32_t>(pool.tokens);
  p.pool_parents = device_data<int32_t>(pool.parents);
  if (next.scores.defined()) {
    p.ids = device_data<int32_t>(next.ids);
    p.nodes = device_data<int32_t>(next.nodes);
    p.sources = device_data<int32_t>(next.sources);
    p.next_scores = device_data<float>(next.scores);
    p.visible = device_data<int64_t>(next.visible);
  }
  launch_early("grow_tree", grow_kernel, dim3(one_block_each(slots)), kTreeThreads, EarlyOptions{},
               p);
}

void best_nodes(const DraftPool& pool, const Array& root, const DraftNodes& drafts) {
  launch_early("best_nodes", best_nodes_kernel, dim3(one_block_each(pool.scores.size(0))),
               kNodeThreads, EarlyOptions{}, static_cast<int>(pool.scores.size(1)),
               static_cast<int>(drafts.tokens.size(1)), device_data<const float>(pool.scores),
               device_data<const int32_t>(pool.tokens), device_data<const int32_t>(pool.parents),
               device_data<const int32_t>(root), device_data<int32_t>(drafts.tokens),
               device_data<int32_t>(drafts.parents));
}

}  // namespace binade::kernels::cuda
