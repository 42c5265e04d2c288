#include <binade/infer/sampling.h>

#include <cmath>

#include <binade/infer/slot_states.h>

namespace binade::infer {

void SamplingOptions::validate() const {
  check(temperature >= 0 && std::isfinite(temperature), "the temperature must be 0 or more, got ",
        temperature);
  check(top_k >= 0, "top_k must be 0 or more, got ", top_k);
  check(top_p > 0 && top_p <= 1, "top_p lies in (0, 1], got ", top_p);
}

std::vector<int32_t> sample(const Array& logits, const SamplingOptions& options, uint64_t step,
                            const std::vector<int32_t>& forbidden) {
  check(logits.dims() == 2 && logits.numel() > 0, "sampling needs logits (B, V), got ",
        logits.shape());
  check(step < INT32_MAX, "sampling counts steps below 2^31, got ", step);
  SlotStates states(logits.size(0),
                    {.sampling = options, .forbidden = forbidden, .forbidden_for = INT32_MAX},
                    logits.device());
  states.start_all({.drawn = static_cast<int32_t>(step)});
  states.sample(logits);
  const std::vector<SlotStates::Seen> seen = SlotStates::read(states.packed());
  std::vector<int32_t> tokens;
  for (const SlotStates::Seen& row : seen) tokens.push_back(row.token);
  return tokens;
}

}  // namespace binade::infer
