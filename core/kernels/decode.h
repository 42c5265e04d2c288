// Kernels of generation: a key-value cache of fixed capacity, attention against it, the choice of
// tokens. What changes from step to step (lengths, tokens, flags) is read from the device, so that
// a step can be captured as a graph and replayed.
//
// A cache has S slots, one a sequence. A pass has B rows; row b works on slot slots[b], or on slot
// b where `slots` is undefined. No slot may come twice. A slot holds lengths[slot] tokens, and
// behind them up to kMostPending pending ones: the nodes of a tree (or chain) that passes brought
// and nobody accepted yet.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

inline constexpr int64_t kMostPending = 64;

// Which tokens a pass brings. Arrays are contiguous i32. Tokens that do not count are left out:
// they are not written, and attend to nothing.
struct PassRows {
  Array lengths;      // (S); undefined: 0, for a pass over whole prompts
  Array slots;        // (B), or undefined
  Array counts;       // (B) tokens of each row that count, none if negative; undefined: all
  Array running;      // (S) of slots where it is not positive no token counts; or undefined
  int64_t first = 0;  // pending tokens that earlier passes brought
};

// positions (B, T) i32 of a pass: lengths[slot] + depths, which is (T) or (B, T) i32; undefined:
// first + t. Tokens that do not count stand at 0, and none stands behind capacity − 1. A row that
// needs room for more than capacity + spare tokens is a fault: Error on the CPU,
// DeviceFault::cache_full on the GPU.
BINADE_KERNEL(cache_positions, const PassRows& rows, const Array& depths, int64_t capacity,
              int64_t spare, const Array& positions)

// Keys and values (B, H, T, D), views with a contiguous last dimension, go to places lengths[slot]
// + first + t of cached_keys and cached_values (S, H, capacity, D) of the same dtype. What lies
// beyond the capacity is not written.
BINADE_KERNEL(cache_write, const Array& keys, const Array& values, const PassRows& rows,
              const Array& cached_keys, const Array& cached_values)

// out (B, Hq, T, D) = softmax(scale · q·kᵀ) · v in f32 (f64 for f64) over the slot's lengths[slot]
// tokens and those pending ones that the query may see, its own among them: cache_write comes
// before. `visible` is contiguous i64 (T) or (B, T): bit j of a query's word says whether it sees
// pending token j; undefined: query t sees the pending tokens j ≤ first + t. With a window > 0 a
// query sees only the last `window` of these tokens: where its word marks itself and its ancestors,
// those that stand less than `window` positions in front of it. Needs first + T ≤ kMostPending. q
// and out are views with a contiguous last dimension; q has the cache's dtype. Grouped heads as in
// attention.h. On the GPU D ≤ 256, and f64 is refused.
BINADE_KERNEL(cached_attention, const Array& q, const Array& cached_keys,
              const Array& cached_values, const PassRows& rows, const Array& visible, float scale,
              int64_t window, const Array& out)

// Of the pending tokens nodes (B, M) i32, the first counts[b] of row b move to places lengths[slot]
// + 0, 1, … They must ascend; one that does not, or lies outside of [0, kMostPending), is a fault:
// Error on the CPU, DeviceFault::bad_tree_node on the GPU, where it is left out. keys and values
// (layers, S, H, capacity, D) contiguous: all layers at once. Lengths stay as they are.
BINADE_KERNEL(cache_compact, const Array& nodes, const PassRows& rows, const Array& keys,
              const Array& values)

// lengths[slot] += counts[b], or = counts[b] without `add`; negative counts change nothing.
BINADE_KERNEL(cache_set_lengths, const PassRows& rows, bool add)

// How tokens are chosen: temperature, then top-k, then top-p (Holtzman et al. 2020), of equals the
// smaller id first.
struct SampleRules {
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;
  uint64_t seed = 0;
  Array forbidden;            // (F) i32, never chosen while a slot has drawn fewer than …
  int64_t forbidden_for = 0;  // … so many tokens
  Array stop_ids;             // (F) i32, end a slot; undefined: none
};

// What is known of the slots that tokens are chosen for; contiguous i32 (S) each.
struct SampleState {
  Array tokens;  // the newest token
  Array status;  // kRunning, kDone, kInvalidLogits
  Array drawn;   // tokens drawn so far: the step of the next draw
  Array limits;  // a slot is done when it has drawn so many
  Array places;  // of its draws, below 2^24
};
enum SlotStatus : int32_t { kInvalidLogits = -1, kDone = 0, kRunning = 1 };

// Chooses a token for each row of logits (B, V), views with a contiguous last dimension, whose slot
// is running, and notes it in the state. The uniform is that of Philox at (seed, drawn, place). A
// NaN among the logits, or nothing but −∞, makes the status kInvalidLogits and leaves the token. V
// < 2^22. Probabilities are taken in units of 2^-40 of the largest, so that their sums do not
// depend on an order.
BINADE_KERNEL(sample, const Array& logits, const SampleRules& rules, const Array& slots,
              const SampleState& state)

}  // namespace binade::kernels
