// The choice of tokens, one block a row. Greedy is one pass. To draw, the block searches the place
// where a running sum over the tokens, most probable first, passes a target.
#include <binade/core/random.h>
#include <binade/core/kernels/cuda/decode/token_search.cuh>

namespace binade::kernels::cuda {

namespace {

struct Rules {
  double temperature, top_p;
  int64_t top_k;
  uint64_t seed;
  const int32_t *forbidden, *stop_ids;
  int forbidden_count, stop_count, forbidden_for;
};

struct State {
  int32_t *tokens, *status, *drawn, *limits, *places;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const T* logits, int64_t row_stride, int vocabulary, const Rules rules,
                  const int32_t* slots, const State state) {
  __shared__ Shared shared;
  const int slot = slots ? slots[blockIdx.x] : blockIdx.x;
  if (state.status[slot] != kRunning) return;
  const int drawn = state.drawn[slot];
  const Row<T> row{logits + blockIdx.x * row_stride, vocabulary, rules.forbidden,
                   drawn < rules.forbidden_for ? rules.forbidden_count : 0};

  const Range range = range_of(row, rules.temperature > 0);
  if (!range.valid()) {
    if (threadIdx.x == 0) state.status[slot] = kInvalidLogits;
    return;
  }
  int token = range.token();
  if (rules.temperature > 0) {
    const float largest = logit_of(range.key()), smallest = logit_of(range.smallest);
    Kept kept = kept_tokens(row, range, rules.temperature, rules.top_k, rules.top_p, shared);
    const ByWeight weight{largest, rules.temperature};
    const PhiloxBlock block = philox(rules.seed, static_cast<uint64_t>(drawn),
                                     static_cast<uint64_t>(state.places[slot]), 0);
    const double uniform = uniform_of(block.word[0]);
    kept = find(
        row, kept, largest, smallest, weight,
        [&](uint64_t total) { return draw_target(uniform, total); }, shared);
    token = kept.token;
  }
  if (threadIdx.x != 0) return;
  state.tokens[slot] = token;
  state.drawn[slot] = drawn + 1;
  bool done = drawn + 1 >= state.limits[slot];
  for (int i = 0; i < rules.stop_count; ++i) done = done || rules.stop_ids[i] == token;
  if (done) state.status[slot] = kDone;
}

int count_of(const Array& ids) {
  return ids.defined() ? static_cast<int>(ids.numel()) : 0;
}

}  // namespace

void sample(const Array& logits, const SampleRules& rules, const Array& slots,
            const SampleState& state) {
  const Rules given{rules.temperature,
                    rules.top_p,
                    rules.top_k,
                    rules.seed,
                    i32_or_null(rules.forbidden),
                    i32_or_null(rules.stop_ids),
                    count_of(rules.forbidden),
                    count_of(rules.stop_ids),
                    static_cast<int>(std::min<int64_t>(rules.forbidden_for, INT32_MAX))};
  const State on_device{device_data<int32_t>(state.tokens), device_data<int32_t>(state.status),
                        device_data<int32_t>(state.drawn), device_data<int32_t>(state.limits),
                        device_data<int32_t>(state.places)};
  visit_floating(logits.dtype(), "sample", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    if constexpr (std::is_same_v<T, double>)
      fail("sampling on the GPU takes f32, f16 and bf16 logits, got f64");
    else
      launch("sample", sample_kernel<T>, one_block_each(logits.size(0)), kThreads, 0,
             device_data<const T>(logits), logits.stride(0), static_cast<int>(logits.size(1)),
             given, i32_or_null(slots), on_device);
  });
}

}  // namespace binade::kernels::cuda
