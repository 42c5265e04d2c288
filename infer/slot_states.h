// SlotStates: what generation knows of each slot beside its cache: the newest token, whether it
// goes on, how many tokens it drew. All of it is on the device; the host reads copies when it
// likes.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/infer/sampling.h>

namespace binade::kernels {
struct AcceptedPaths;
struct DraftNodes;
struct NotedPaths;
}  // namespace binade::kernels

namespace binade::infer {

struct ChoiceRules {
  SamplingOptions sampling;
  std::vector<int32_t> stop_ids;   // end a slot
  std::vector<int32_t> forbidden;  // never chosen …
  int64_t forbidden_for = 0;       // … before a slot has drawn so many tokens
};

class SlotStates {
 public:
  // What a slot starts with.
  struct Start {
    int32_t limit = INT32_MAX;  // tokens that it draws at most
    int32_t place = -1;         // of its draws in Philox, below 2^24; −1: its number
    int32_t drawn = 0;          // the number of its first draw
  };
  // A slot as the host sees it.
  struct Seen {
    int32_t token;
    bool running;  // false: `token` was the last one
  };

  // All slots are done until they are started. Throws Error for sampling options out of range.
  SlotStates(int64_t slots, const ChoiceRules& rules, Device device);
  ~SlotStates();
  SlotStates(const SlotStates&) = delete;
  SlotStates& operator=(const SlotStates&) = delete;

  // Sets slots going; the others keep their state.
  void start(const std::vector<int32_t>& slots, const std::vector<Start>& starts);
  void start_all(const Start& start);
  // Ends them.
  void stop(const std::vector<int32_t>& slots);

  // Chooses from logits (B, V) for those slots that are running: row b is slot slots[b] (i32 (B) on
  // the device), or slot b.
  void sample(const Array& logits, const Array& slots = {});

  // Speculation (core/kernels/drafts.h). Which guesses sampling by the slots' own rules accepts,
  // and what it draws behind them; at temperature 0 accept_greedy() does that. Notes nothing.
  void accept_sampled(const Array& logits, const kernels::DraftNodes& drafts,
                      const kernels::AcceptedPaths& accepted) const;
  // Notes several tokens of each running slot. Stop ids and limits hold as in sample(), forbidden
  // ids do not.
  void note(const kernels::DraftNodes& drafts, const kernels::AcceptedPaths& accepted,
            const kernels::NotedPaths& noted);

  int64_t slots() const { return all_.size(1); }
  Array tokens() const { return all_.select(0, 0); }  // (slots) i32, the newest of each
  // (slots) i32: 1 where the slot goes on, otherwise not positive.
  Array running() const { return all_.select(0, 1); }
  // Of the draws, (slots) i32: tokens drawn so far, and places.
  Array drawn() const;
  Array places() const;
  // Tokens and running side by side, (2, slots) i32, to be copied to the host.
  const Array& packed() const { return packed_; }
  // What a copy of packed() says. Throws Error if a slot's logits had a NaN.
  static std::vector<Seen> read(const Array& packed);

 private:
  struct Kernel;                    // what the kernels take
  Array all_;                       // (5, slots) i32: tokens, status and what only draws read
  Array packed_;                    // its first two rows
  std::unique_ptr<Kernel> kernel_;  // views of `all_`, and the rules
};

}  // namespace binade::infer
