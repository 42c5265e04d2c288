#include <binade/core/kernels/cuda/attention/attention_softmax.h>

#include <binade/core/kernels/random.h>

#include <binade/core/kernels/cuda/attention/split_tiles.cuh>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kRowBlock = 128;

// What turns a row of products into a row of probabilities, computed in C.
template <class C>
struct RowRules {
  int64_t heads, queries, keys, window;
  C scale;
  bool causal;
  const void* mask;  // null: none
  DType mask_dtype;
  int64_t mask_batch, mask_head, mask_query, mask_key;  // strides
  SlotTable query_slots, key_slots;                     // of splits; no data: none
  float dropout;  // an element is kept iff its uniform is not below it
  C kept;         // dropout's factor of a kept element
  uint64_t seed, place;
  const int64_t* step;
};

template <class C>
RowRules<C> rules_of(const Array& scores, const AttentionParams& params) {
  RowRules<C> rules{.heads = scores.size(1),
                    .queries = scores.size(2),
                    .keys = scores.size(3),
                    .window = params.window,
                    .scale = static_cast<C>(params.scale),
                    .causal = params.causal,
                    .mask = nullptr,
                    .mask_dtype = DType::f32,
                    .mask_batch = 0,
                    .mask_head = 0,
                    .mask_query = 0,
                    .mask_key = 0,
                    .query_slots = {},
                    .key_slots = {},
                    .dropout = static_cast<float>(params.dropout),
                    .kept = kept_factor<C>(params.dropout),
                    .seed = params.key.seed,
                    .place = params.key.place,
                    .step = nullptr};
  if (params.mask.defined()) {
    const Array mask = params.mask.expand(scores.shape());
    rules.mask = device_pointer(mask);
    rules.mask_dtype = mask.dtype();
    rules.mask_batch = mask.stride(0);
    rules.mask_head = mask.stride(1);
    rules.mask_query = mask.stride(2);
    rules.mask_key = mask.stride(3);
  }
  if (params.splits.defined()) {
    rules.query_slots = slot_table(params.splits.queries);
    rules.key_slots = slot_table(params.splits.keys);
  }
  if (params.dropout > 0) rules.step = device_data<const int64_t>(params.key.step);
  return rules;
}

// One row of scores, that of the block.
template <class C>
class Row {
 public:
  __device__ Row(const RowRules<C>& rules, const C* scores) : rules_(rules), row_(blockIdx.x) {
    const int64_t query = row_ % rules.queries;
    const int64_t head = row_ / rules.queries % rules.heads;
    batch_ = row_ / rules.queries / rules.heads;
    if (rules.query_slots.data) slot_ = rules.query_slots.at(batch_, query);
    scores_ = scores + begin();
    mask_ = batch_ * rules.mask_batch + head * rules.mask_head + query * rules.mask_query;
    visible_ = rules.causal ? max(int64_t{0}, query + 1 + rules.keys - rules.queries) : rules.keys;
    if (visible_ > rules.keys) visible_ = rules.keys;
    hidden_ = rules.window > 0 ? max(int64_t{0}, visible_ - rules.window) : 0;
  }

  // The row's place among rows, its first element among elements.
  __device__ int64_t index() const { return row_; }
  __device__ int64_t begin() const { return row_ * rules_.keys; }

  __device__ __forceinline__ C score(int64_t key) const {
    if (key >= visible_ || key < hidden_) return -INFINITY;
    if (rules_.key_slots.data && !sees(slot_, rules_.key_slots.at(batch_, key))) return -INFINITY;
    const C product = scores_[key] * rules_.scale;
    if (!rules_.mask) return product;
    const int64_t place = mask_ + key * rules_.mask_key;
    if (rules_.mask_dtype == DType::boolean)
      return static_cast<const bool*>(rules_.mask)[place] ? product : C(-INFINITY);
    return product + load_as<C>(rules_.mask, place, rules_.mask_dtype);
  }

  // 0 where dropped, 1/(1−p) where kept.
  __device__ __forceinline__ C dropout_factor(int64_t key) const {
    if (rules_.dropout <= 0) return C(1);
    const uint64_t element = static_cast<uint64_t>(begin() + key);
    const PhiloxBlock block =
        philox(rules_.seed, static_cast<uint64_t>(*rules_.step), rules_.place, element / 4);
    const int word = static_cast<int>(element % 4);
    const uint32_t bits = word == 0   ? block.word[0]
                          : word == 1 ? block.word[1]
                          : word == 2 ? block.word[2]
                                      : block.word[3];
    return uniform_of(bits) >= rules_.dropout ? rules_.kept : C(0);
  }

 private:
  const RowRules<C>& rules_;
  const C* scores_;
  int64_t row_, batch_, mask_, visible_, hidden_;  // keys [hidden_, visible_) are seen
  Slot slot_{};
};

template <class T>
__global__ void __launch_bounds__(kRowBlock)
    softmax_rows(RowRules<ComputeOf<T>> rules, const ComputeOf<T>* scores, T* probabilities,
                 void* logsumexp, DType logsumexp_dtype) {
  using C = ComputeOf<T>;
  const Row<C> row(rules, scores);
  C largest = -INFINITY;
  for (int64_t j = threadIdx.x; j < rules.keys; j += kRowBlock)
    largest = Max()(largest, row.score(j));
  largest = block_reduce<kRowBlock>(largest, Max(), C(-INFINITY));
  const C shift = largest == -INFINITY ? C(0) : largest;  // −∞ − (−∞) would be NaN
  C sum = 0;
  for (int64_t j = threadIdx.x; j < rules.keys; j += kRowBlock) sum += exp(row.score(j) - shift);
  sum = block_reduce<kRowBlock>(sum, Sum(), C(0));
  const C factor = sum == C(0) ? C(0) : C(1) / sum;
  T* out = probabilities + row.begin();
  for (int64_t j = threadIdx.x; j < rules.keys; j += kRowBlock)
    out[j] = narrow<T>(exp(row.score(j) - shift) * factor * row.dropout_factor(j));
  if (threadIdx.x == 0) store_as(logsumexp, row.index(), logsumexp_dtype, shift + log(sum));
}

template <class T>
__global__ void __launch_bounds__(kRowBlock)
    softmax_rows_backward(RowRules<ComputeOf<T>> rules, const ComputeOf<T>* scores,
                          const void* logsumexp, const void* inner_of_rows, DType row_dtype,
                          const ComputeOf<T>* dprobabilities, T* probabilities, T* dscores) {
  using C = ComputeOf<T>;
  const Row<C> row(rules, scores);
  const C lse = load_as<C>(logsumexp, row.index(), row_dtype);
  const auto probability = [&](int64_t j) {
    return lse == -INFINITY ? C(0) : exp(row.score(j) - lse);
  };
  const C* dp = dprobabilities + row.begin();
  // Divided by Σ p, which large scores round away from 1: where softmax is nearly one-hot, dp − Σ
  // p·dp is a difference of nearly equal numbers.
  C total = 0, inner = 0;  // Σ p, Σ p · dp
  for (int64_t j = threadIdx.x; j < rules.keys; j += kRowBlock) {
    const C p = probability(j);
    total += p;
    inner += p * row.dropout_factor(j) * dp[j];
  }
  total = block_reduce<kRowBlock>(total, Sum(), C(0));
  inner = block_reduce<kRowBlock>(inner, Sum(), C(0));
  C share = total == C(0) ? C(0) : C(1) / total;
  inner *= share;
  if (inner_of_rows != nullptr) {  // these are not all of the row's keys
    share = C(1);
    inner = load_as<C>(inner_of_rows, row.index(), row_dtype);
  }
  for (int64_t j = threadIdx.x; j < rules.keys; j += kRowBlock) {
    const C p = probability(j) * share, factor = row.dropout_factor(j);
    probabilities[row.begin() + j] = narrow<T>(p * factor);
    dscores[row.begin() + j] = narrow<T>(p * (factor * dp[j] - inner) * rules.scale);
  }
}

}  // namespace

void masked_softmax(const Array& scores, const AttentionParams& params, const Array& probabilities,
                    const Array& logsumexp) {
  visit_floating(probabilities.dtype(), "attention", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("masked_softmax", softmax_rows<T>, one_block_each(logsumexp.numel()), kRowBlock, 0,
           rules_of<ComputeOf<T>>(scores, params), device_data<const ComputeOf<T>>(scores),
           device_data<T>(probabilities), logsumexp.data(), logsumexp.dtype());
  });
}

void masked_softmax_backward(const Array& scores, const AttentionParams& params,
                             const Array& logsumexp, const Array& dprobabilities,
                             const Array& probabilities, const Array& dscores) {
  visit_floating(probabilities.dtype(), "attention_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("masked_softmax_backward", softmax_rows_backward<T>, one_block_each(logsumexp.numel()),
           kRowBlock, 0, rules_of<ComputeOf<T>>(scores, params),
           device_data<const ComputeOf<T>>(scores), logsumexp.data(),
           params.inner.defined() ? params.inner.data() : nullptr, logsumexp.dtype(),
           device_data<const ComputeOf<T>>(dprobabilities), device_data<T>(probabilities),
           device_data<T>(dscores));
  });
}

}  // namespace binade::kernels::cuda
