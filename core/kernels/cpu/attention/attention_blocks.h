// What the forward and the backward pass of attention share on the CPU: views of heads, and one
// block of scaled and masked scores.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/cpu/common/vector_math.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>
#include <binade/core/kernels/random.h>
#include <binade/core/kernels/split_rules.h>

namespace binade::kernels::cpu {

// Rows of queries and of keys taken at a time: their scores stay in the L2 cache. Of a causal block
// on the diagonal half is computed for nothing, so the blocks of queries are low.
inline constexpr int64_t kQueryBlock = 32, kKeyBlock = 256;

// (B, H, T, D) as one matrix per head.
struct Heads {
  Heads() = default;
  explicit Heads(const Array& array)
      : rows{static_cast<std::byte*>(array.data()), array.dtype(), array.stride(2),
             array.stride(3)},
        batch_stride(array.stride(0)),
        head_stride(array.stride(1)) {}

  MatrixView at(int64_t batch, int64_t head) const {
    MatrixView view = rows;
    view.data += (batch * batch_stride + head * head_stride) * size_of(rows.dtype);
    return view;
  }

  MatrixView rows;
  int64_t batch_stride = 0, head_stride = 0;
};

// Which samples the slots of each block belong to, spare ones left out: first ≤ last unless all are
// spare.
class SampleRanges {
 public:
  SampleRanges() = default;
  SampleRanges(const SlotTable& slots, int64_t batches, int64_t count, int64_t block);
  struct Range {
    int32_t first, last;
  };
  Range at(int64_t batch, int64_t place) const {
    return ranges_[static_cast<size_t>(batch * blocks_ + place / block_)];
  }

 private:
  int64_t blocks_ = 0, block_ = 1;
  std::vector<Range> ranges_;
};

struct AttentionProblem {
  AttentionProblem(const Array& q_array, const Array& k_array, const Array& v_array,
                   const AttentionParams& attention_params);

  // A single query per head (decoding): the query heads of a key head become its queries, so that
  // keys and values are read once for all of them. `out` is seen the same way.
  void fold_single_queries(Heads& out);

  // Number of leading keys that query `i` may look at.
  int64_t visible(int64_t i) const {
    return causal ? std::clamp<int64_t>(i + 1 + keys - queries, 0, keys) : keys;
  }
  // The first key that query `i` may look at, behind what its window leaves out.
  int64_t first_visible(int64_t i) const {
    return window > 0 ? std::max<int64_t>(visible(i) - window, 0) : 0;
  }
  // False only where no query of the block that begins at `query` sees a key of that at `key`.
  bool blocks_meet(int64_t batch, int64_t query, int64_t key) const {
    if (!query_slots.data) return true;
    const SampleRanges::Range q = query_samples.at(batch, query), k = key_samples.at(batch, key);
    return q.first <= k.last && k.first <= q.last;
  }
  // The samples of a row's slots, or null: there are none.
  const int32_t* samples_of(const SlotTable& slots, int64_t batch) const {
    return slots.data ? slots.field(batch, 0) : nullptr;
  }
  // Row of the (B·Hq·Tq) rows of logsumexp (and of the dropout mask).
  int64_t row(int64_t batch, int64_t head, int64_t i) const {
    return (batch * heads + head) * queries + i;
  }

  const AttentionParams& params;
  int64_t batches, heads, key_heads, queries, keys, dim;
  bool causal;
  int64_t window;
  Heads q, k, v;
  Heads mask;  // strides 0 where it is broadcast; no data if there is none
  SlotTable query_slots{}, key_slots{};  // of splits; no data if there are none
  SampleRanges query_samples, key_samples;
  uint64_t step = 0;
};

// Rows [first, first + count) of a head as block_of gives them, but zeros in spare slots: what lies
// there need not be a number, and a weight of 0 would not hide it. `samples` as samples_of has
// them.
template <class T>
Block<const T> rows_of_slots(const MatrixView& rows, const int32_t* samples, int64_t first,
                             int64_t count, int64_t dim, Workspace<T>& buffer) {
  const auto is_spare = [](int32_t sample) { return sample < 0; };
  const bool spare = samples && std::any_of(samples + first, samples + first + count, is_spare);
  if (!spare && usable_in_place<T>(rows, count, dim))
    return block_of<T>(rows, first, 0, count, dim, nullptr);
  T* const numbers = buffer.reserve(count * dim);
  if (!spare) return block_of(rows, first, 0, count, dim, numbers);
  for (int64_t i = 0; i < count; ++i) {
    T* const row = numbers + i * dim;
    if (is_spare(samples[first + i]))
      std::fill_n(row, dim, T(0));
    else
      load_row(rows.at(first + i, 0), rows.dtype, rows.column_stride, dim, row);
  }
  return {numbers, dim, false};
}

// scores[j] = −∞ where query `i` does not see key first_key + j, in splits.
template <class T>
void hide_other_splits(const AttentionProblem& problem, int64_t batch, int64_t i, int64_t first_key,
                       int64_t count, T* scores) {
  const Slot query = problem.query_slots.at(batch, i);
  const SlotTable& keys = problem.key_slots;
  const int32_t* const sample = keys.field(batch, 0) + first_key;
  const int32_t* const order = keys.field(batch, 1) + first_key;
  const int32_t* const split = keys.field(batch, 2) + first_key;
  const int32_t* const mode = keys.field(batch, 3) + first_key;
#pragma omp simd
  for (int64_t j = 0; j < count; ++j)
    scores[j] = sees(query, {sample[j], order[j], split[j], mode[j]})
                    ? scores[j]
                    : -std::numeric_limits<T>::infinity();
}

// scores[j] = scores[j]·scale + mask for j in [0, count), keys `first_key`… of query `i`; −∞ in
// front of its window.
template <class T>
void scale_and_mask(const AttentionProblem& problem, int64_t batch, int64_t head, int64_t i,
                    int64_t first_key, int64_t count, T* scores) {
  const MatrixView mask = problem.mask.at(batch, head);
  constexpr T kNever = -std::numeric_limits<T>::infinity();
  const T scale = static_cast<T>(problem.params.scale);
  const int64_t hidden = std::clamp<int64_t>(problem.first_visible(i) - first_key, 0, count);
  std::fill_n(scores, hidden, kNever);
  scores += hidden;
  first_key += hidden;
  count -= hidden;
  if (!mask.data) {
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) scores[j] *= scale;
    if (problem.query_slots.data) hide_other_splits(problem, batch, i, first_key, count, scores);
    return;
  }
  const std::byte* row = mask.at(i, first_key);
  if (mask.dtype == DType::boolean) {
    const auto* may_attend = reinterpret_cast<const bool*>(row);
    for (int64_t j = 0; j < count; ++j)
      scores[j] = may_attend[j * mask.column_stride] ? scores[j] * scale : kNever;
    return;
  }
  T added[kKeyBlock];
  load_row(row, mask.dtype, mask.column_stride, count, added);
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) scores[j] = scores[j] * scale + added[j];
}

// Dropout's factors of elements [first, first + count) of the (B, Hq, Tq, Tk) mask, count ≤
// kKeyBlock: 0 where dropped, 1/(1−p) where kept.
template <class T>
void dropout_factors(const AttentionProblem& problem, int64_t first, int64_t count, T* factors) {
  const T kept = kept_factor<T>(problem.params.dropout);
  const float threshold = static_cast<float>(problem.params.dropout);
  const auto& key = problem.params.key;
  uint32_t words[kKeyBlock + 8];  // a row may begin and end inside a block of four words
  const int64_t skipped = first % 4, blocks = (skipped + count + 3) / 4;
#pragma omp simd
  for (int64_t i = 0; i < blocks; ++i) {
    const PhiloxBlock block =
        philox(key.seed, problem.step, key.place, static_cast<uint64_t>(first / 4 + i));
    for (int word = 0; word < 4; ++word) words[4 * i + word] = block.word[word];
  }
#pragma omp simd
  for (int64_t j = 0; j < count; ++j)
    factors[j] = uniform_of(words[skipped + j]) >= threshold ? kept : T(0);
}

// Documents as splits, which say the same in memory that grows with T.
AttentionParams with_documents_as_splits(const AttentionParams& params);

}  // namespace binade::kernels::cpu
