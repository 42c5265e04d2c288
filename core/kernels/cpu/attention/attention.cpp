// Attention's forward pass block by block with a running softmax (Milakov & Gimelshein 2018; Dao et
// al. 2022): the (Tq, Tk) matrix of scores never exists.
#include <binade/core/kernels/cpu/attention/attention_blocks.h>
#include <binade/core/kernels/cpu/common/line_functions.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>

namespace binade::kernels::cpu {

SampleRanges::SampleRanges(const SlotTable& slots, int64_t batches, int64_t count, int64_t block)
    : blocks_((count + block - 1) / block), block_(block) {
  for (int64_t batch = 0; batch < batches; ++batch) {
    const int32_t* const sample = slots.field(batch, 0);
    for (int64_t begin = 0; begin < count; begin += block) {
      Range range{std::numeric_limits<int32_t>::max(), -1};
      for (int64_t i = begin; i < std::min(begin + block, count); ++i) {
        if (sample[i] < 0) continue;
        range = {std::min(range.first, sample[i]), std::max(range.last, sample[i])};
      }
      ranges_.push_back(range);
    }
  }
}

AttentionProblem::AttentionProblem(const Array& q_array, const Array& k_array, const Array& v_array,
                                   const AttentionParams& attention_params)
    : params(attention_params),
      batches(q_array.size(0)),
      heads(q_array.size(1)),
      key_heads(k_array.size(1)),
      queries(q_array.size(2)),
      keys(k_array.size(2)),
      dim(q_array.size(3)),
      causal(params.causal),
      window(params.window),
      q(q_array),
      k(k_array),
      v(v_array) {
  check(is_floating(q_array.dtype()), "attention needs a floating-point dtype, got ",
        name_of(q_array.dtype()));
  if (params.mask.defined()) {
    check(params.mask.dtype() == DType::boolean || is_floating(params.mask.dtype()),
          "attention's mask is bool or floating-point, got ", name_of(params.mask.dtype()));
    mask = Heads(params.mask.expand({batches, heads, queries, keys}));
  }
  if (params.splits.defined()) {
    const auto table = [](const Array& slots) {
      return SlotTable{slots.data<int32_t>(), slots.stride(0), slots.stride(1)};
    };
    query_slots = table(params.splits.queries);
    key_slots = table(params.splits.keys);
    query_samples = SampleRanges(query_slots, batches, queries, kQueryBlock);
    key_samples = SampleRanges(key_slots, batches, keys, kKeyBlock);
  }
  if (params.dropout > 0) step = static_cast<uint64_t>(*params.key.step.data<int64_t>());
}

void AttentionProblem::fold_single_queries(Heads& out) {
  if (queries != 1 || heads == key_heads || query_slots.data) return;
  const int64_t group = heads / key_heads;
  for (Heads* view : {&q, &mask, &out}) {
    view->rows.row_stride = view->head_stride;
    view->head_stride *= group;
  }
  heads = key_heads;
  queries = group;
  causal = false;  // a last query sees every key, or those of its window
}

namespace {

template <class T>
class Forward {
 public:
  Forward(const AttentionProblem& problem, const Heads& out, const Array& logsumexp)
      : problem_(problem), out_(out), logsumexp_(logsumexp) {}

  void run() const {
    // A task takes many queries, as it packs keys and values for all of them; but there is work for
    // several threads.
    constexpr int64_t kEnoughTasks = 16;
    const int64_t heads = problem_.batches * problem_.heads;
    const int64_t blocks = (problem_.queries + kQueryBlock - 1) / kQueryBlock;
    const int64_t wanted = std::clamp<int64_t>((kEnoughTasks + heads - 1) / heads, 1, blocks);
    const EvenParts pieces(blocks, (blocks + wanted - 1) / wanted);
    // The last queries of a causal head have the most work: they start first.
    parallel_tasks(heads * pieces.count, [&](int64_t task) {
      const int64_t head = task % heads, piece = pieces.count - 1 - task / heads;
      attend(head / problem_.heads, head % problem_.heads, pieces.begin(piece) * kQueryBlock,
             std::min(pieces.begin(piece + 1) * kQueryBlock, problem_.queries));
    });
  }

 private:
  // What is known of each query of a task so far.
  struct State {
    T* sums;             // (queries, D): Σ exp(score − largest) · value …
    T *largest, *total;  // … and Σ exp(score − largest)
  };
  // Keys and values [first, first + count) of a head.
  struct KeySide {
    RightOperand<T> k_transposed, v;
    int64_t first, count;
  };

  // Queries [begin, end) of one head.
  void attend(int64_t batch, int64_t head, int64_t begin, int64_t end) const {
    const int64_t dim = problem_.dim, queries = end - begin;
    thread_local Workspace<T> sums, largest, total, key_rows, value_rows;
    const State state{sums.reserve(queries * dim), largest.reserve(queries),
                      total.reserve(queries)};
    std::fill_n(state.sums, queries * dim, T(0));
    std::fill_n(state.largest, queries, -std::numeric_limits<T>::infinity());
    std::fill_n(state.total, queries, T(0));

    const int64_t key_head = head * problem_.key_heads / problem_.heads;
    const int64_t limit = problem_.visible(end - 1);
    thread_local KeySide side;
    // Blocks begin where they do without a window, which so changes no other bits.
    side.first = problem_.first_visible(begin) / kKeyBlock * kKeyBlock;
    for (; side.first < limit; side.first += kKeyBlock) {
      side.count = std::min(kKeyBlock, limit - side.first);
      const Block<const T> k = block_of(problem_.k.at(batch, key_head), side.first, 0, side.count,
                                        dim, key_rows.reserve(kKeyBlock * dim));
      const Block<const T> v = rows_of_slots(problem_.v.at(batch, key_head),
                                             problem_.samples_of(problem_.key_slots, batch),
                                             side.first, side.count, dim, value_rows);
      side.k_transposed.assign(dim, side.count, k.flipped(), queries);
      side.v.assign(side.count, dim, v, queries);
      for (int64_t first = begin; first < end; first += kQueryBlock) {
        const int64_t rows = std::min(kQueryBlock, end - first), from = first - begin;
        if (problem_.visible(first + rows - 1) > side.first &&
            problem_.first_visible(first) < side.first + side.count &&
            problem_.blocks_meet(batch, first, side.first))
          add_keys(batch, head, first, rows, side,
                   {state.sums + from * dim, state.largest + from, state.total + from});
      }
    }
    store(batch, head, begin, end, state);
  }

  // `rows` queries from `first` on look at the keys of `side`.
  void add_keys(int64_t batch, int64_t head, int64_t first, int64_t rows, const KeySide& side,
                const State& state) const {
    const int64_t dim = problem_.dim, j = side.first;
    const int64_t count = std::min(side.count, problem_.visible(first + rows - 1) - j);
    thread_local Workspace<T> query_rows, score_rows;
    const Block<const T> q = block_of(problem_.q.at(batch, head), first, 0, rows, dim,
                                      query_rows.reserve(kQueryBlock * dim));
    T* const scores = score_rows.reserve(kQueryBlock * kKeyBlock);
    side.k_transposed.multiply(rows, count, dim, q, 0, 0, false, scores, kKeyBlock);
    for (int64_t i = 0; i < rows; ++i) {
      T* line = scores + i * kKeyBlock;
      const int64_t seen = std::clamp<int64_t>(problem_.visible(first + i) - j, 0, count);
      scale_and_mask(problem_, batch, head, first + i, j, seen, line);
      const T rescale = functions_.exponentiate(line, seen, state.largest[i], state.total[i]);
      std::fill(line + seen, line + count, T(0));
      if (rescale != T(1)) scale_row(state.sums + i * dim, dim, rescale);
      if (problem_.params.dropout > 0)
        drop(line, seen, problem_.row(batch, head, first + i) * problem_.keys + j);
    }
    side.v.multiply(rows, dim, count, {scores, kKeyBlock, false}, 0, 0, true, state.sums, dim);
  }

  void store(int64_t batch, int64_t head, int64_t begin, int64_t end, const State& state) const {
    const MatrixView out = out_.at(batch, head);
    for (int64_t query = begin; query < end; ++query) {
      const int64_t i = query - begin;
      T* line = state.sums + i * problem_.dim;
      const T total = state.total[i];
      const T logsumexp = state.largest[i] + std::log(total);  // −∞ where nothing was seen
      if (total != T(0)) scale_row(line, problem_.dim, T(1) / total);
      store_row(line, problem_.dim, out.at(query, 0), out.dtype, out.column_stride);
      const int64_t row = problem_.row(batch, head, query);
      store_row(&logsumexp, 1,
                static_cast<std::byte*>(logsumexp_.data()) + row * size_of(logsumexp_.dtype()),
                logsumexp_.dtype(), 1);
    }
  }

  static void scale_row(T* row, int64_t count, T factor) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) row[i] *= factor;
  }

  void drop(T* line, int64_t count, int64_t first_element) const {
    T factors[kKeyBlock];
    dropout_factors(problem_, first_element, count, factors);
    for (int64_t j = 0; j < count; ++j) line[j] *= factors[j];
  }

  const AttentionProblem& problem_;
  const Heads& out_;
  const Array& logsumexp_;
  LineFunctions<T> functions_ = line_functions<T>();
};

}  // namespace

AttentionParams with_documents_as_splits(const AttentionParams& params) {
  if (!params.documents.defined()) return params;
  const int64_t batch = params.documents.size(0), length = params.documents.size(1);
  const Array slots = Array::zeros({batch, kSlotFields, length}, DType::i32);
  const auto* documents = params.documents.data<int32_t>();
  for (int64_t b = 0; b < batch; ++b) {
    int32_t* const sample = slots.data<int32_t>() + b * kSlotFields * length;
    int32_t *const split = sample + 2 * length, *const mode = sample + 3 * length;
    for (int64_t i = 0; i < length; ++i) {
      // A noised split is seen by none but itself. Documents may be negative, which samples may
      // not: their sign tells splits apart.
      const int32_t document = documents[b * length + i];
      sample[i] = document & std::numeric_limits<int32_t>::max();
      split[i] = document < 0 ? 1 : 0;
      mode[i] = kNoiseSplit;
    }
  }
  AttentionParams with = params;
  with.splits = {slots, slots};
  with.documents = {};
  return with;
}

void attention(const Array& q, const Array& k, const Array& v, const AttentionParams& given,
               const Array& out, const Array& logsumexp) {
  const AttentionParams params = with_documents_as_splits(given);
  AttentionProblem problem(q, k, v, params);
  Heads out_heads(out);
  problem.fold_single_queries(out_heads);
  if (q.dtype() == DType::f64)
    Forward<double>(problem, out_heads, logsumexp).run();
  else
    Forward<float>(problem, out_heads, logsumexp).run();
}

}  // namespace binade::kernels::cpu
