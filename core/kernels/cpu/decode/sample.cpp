// The choice of tokens. The most probable ones are taken from a heap one by one until the draw is
// decided, which is soon.
#include <algorithm>
#include <limits>
#include <vector>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/cpu/decode/pass_rows.h>
#include <binade/core/kernels/cpu/decode/token_order.h>
#include <binade/core/kernels/sample_rules.h>
#include <binade/core/random.h>

namespace binade::kernels::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

int32_t draw(const std::vector<float>& logits, float largest, const SampleRules& rules,
             double uniform) {
  const auto weight_of = [&](int32_t token) {
    return sample_weight(logits[static_cast<size_t>(token)], largest, rules.temperature);
  };
  Descending tokens(logits);
  std::vector<int32_t> taken;
  uint64_t total = 0;
  if (rules.top_k > 0 && rules.top_k < static_cast<int64_t>(logits.size())) {
    for (int64_t k = 0; k < rules.top_k; ++k) {
      taken.push_back(tokens.next());
      total += weight_of(taken.back());
    }
  } else {
    for (const float logit : logits) total += sample_weight(logit, largest, rules.temperature);
  }
  // The tokens in order, those that top-k has taken first.
  size_t place = 0;
  const auto next = [&] {
    if (place == taken.size()) taken.push_back(tokens.next());
    return taken[place++];
  };
  if (rules.top_p < 1) {
    const uint64_t target = top_p_target(rules.top_p, total);
    total = 0;
    while (total < target) total += weight_of(next());
    place = 0;
  }
  const uint64_t target = draw_target(uniform, total);
  for (uint64_t sum = 0;;) {
    const int32_t token = next();
    sum += weight_of(token);
    if (sum > target) return token;
  }
}

void sample_row(const std::byte* row, int64_t stride, DType dtype, int64_t vocabulary,
                const SampleRules& rules, int64_t slot, const SampleState& state) {
  int32_t& status = state.status.data<int32_t>()[slot];
  if (status != kRunning) return;
  int32_t& drawn = state.drawn.data<int32_t>()[slot];
  RowReader<float> reader;
  const float* read = reader.read(row, stride, dtype, vocabulary);
  std::vector<float> logits(read, read + vocabulary);
  if (rules.forbidden.defined() && drawn < rules.forbidden_for) {
    const auto* ids = rules.forbidden.data<int32_t>();
    for (int64_t i = 0; i < rules.forbidden.numel(); ++i)
      if (ids[i] >= 0 && ids[i] < vocabulary) logits[static_cast<size_t>(ids[i])] = kNever;
  }
  const float largest = max_of(logits.data(), vocabulary);
  if (has_nan(logits.data(), vocabulary) || largest == kNever) {
    status = kInvalidLogits;
    return;
  }
  int32_t token = 0;
  if (rules.temperature == 0) {
    token = static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
  } else {
    const auto place = static_cast<uint64_t>(state.places.data<int32_t>()[slot]);
    const PhiloxBlock block = philox(rules.seed, static_cast<uint64_t>(drawn), place, 0);
    token = draw(logits, largest, rules, uniform_of(block.word[0]));
  }
  state.tokens.data<int32_t>()[slot] = token;
  ++drawn;
  bool done = drawn >= state.limits.data<int32_t>()[slot];
  if (rules.stop_ids.defined()) {
    const auto* stop = rules.stop_ids.data<int32_t>();
    done = done ||
           std::find(stop, stop + rules.stop_ids.numel(), token) != stop + rules.stop_ids.numel();
  }
  if (done) status = kDone;
}

}  // namespace

void sample(const Array& logits, const SampleRules& rules, const Array& slots,
            const SampleState& state) {
  const RowReader32 slot(slots);
  const int64_t vocabulary = logits.size(1), item = size_of(logits.dtype());
  parallel_for(logits.size(0), row_grain(4 * vocabulary), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      sample_row(static_cast<const std::byte*>(logits.data()) + b * logits.stride(0) * item, item,
                 logits.dtype(), vocabulary, rules, slot.at(b, b), state);
  });
}

}  // namespace binade::kernels::cpu
