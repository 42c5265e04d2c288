// Acceptance rules: which drafted tokens become part of the text once the target model has seen
// them, and which token follows them.
//
//   auto rule = speculative_sampling({.temperature = 0.8, .top_p = 0.95});
//   Accepted accepted = rule->accept(proposal, {logits, vocabulary}, {.seed = 1, .pass = pass});
//
// These are the rules for one sequence on the host, computed in double; they define what a version
// for batches on a device must give.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <binade/heads/decoding/draft_tree.h>
#include <binade/heads/decoding/draws.h>
#include <binade/infer/sampling.h>
#include <binade/infer/slot_states.h>

namespace binade::heads::decoding {

// Stands for a node without a guess: no rule accepts it, nor what lies below. (The target is fed
// any token there.)
inline constexpr int32_t kNoToken = -1;

// How the children of a node were come by. Exact sampling needs to know. It takes Drawn::best for
// point masses, which keeps the target's distribution however the guesses were come by, but accepts
// fewer of those that were drawn.
enum class Drawn : uint8_t {
  best,                 // the most probable ones, or anything else without chance in it
  with_replacement,     // independent draws from one distribution q
  without_replacement,  // one after the other, q renormalised over the tokens that are left
};

// The distributions q that guesses were drawn from, as they were drawn from: after the draft's own
// temperature and top-p. Over the target's vocabulary.
struct DraftProbabilities {
  std::span<const float> rows;      // (R, V)
  std::span<const int32_t> row_of;  // (N): the row that the node's children were drawn from, or −1
  bool empty() const { return rows.empty(); }
};

// What was drafted in one pass for one sequence. A view: all that it points to outlives it.
struct Proposal {
  const DraftTree& tree;            // of N nodes
  std::span<const int32_t> tokens;  // (N): the root, and a guess a node or kNoToken
  Drawn drawn = Drawn::best;
  DraftProbabilities q = {};  // not needed for Drawn::best
};

// The target's logits at the nodes: row n is for the token that follows node n.
struct TargetRows {
  std::span<const float> logits;  // (N, V)
  int64_t vocabulary = 0;         // V
};

// What a batch drafted, and the keys of its draws: proposer.h.
struct Drafts;
struct BatchDraws;

struct Accepted {
  std::vector<int32_t> nodes;  // the accepted path, the root first
  int32_t next = kNoToken;     // the token behind it: the root of the next pass
};

// Rules throw Error for a proposal whose arrays do not fit its tree or the vocabulary, for logits
// that check_logits() refuses at a node that counts, and as said below.
class AcceptanceRule {
 public:
  virtual ~AcceptanceRule() = default;
  virtual std::string_view name() const = 0;
  // Whether texts have exactly the target's distribution under the rule's sampling options.
  virtual bool exact() const = 0;
  virtual Accepted accept(const Proposal& proposal, const TargetRows& target,
                          const Draws& draws) const = 0;
  // The token that follows the logits (V) where nothing was drafted: behind a prompt, or when the
  // root is the whole tree.
  virtual int32_t choose(std::span<const float> logits, const Draws& draws) const = 0;

  // The sampling under which plain decoding is what the rule stands for.
  virtual infer::SamplingOptions plain() const { return {}; }
  // accept() for the running slots of a batch: logits (S·N, V) on the device. The same in f32 and
  // integer weights on the device where judges_on_device(); otherwise by accept() on the host,
  // which waits for the device and has it wait.
  void judge(const Drafts& drafts, const kernels::DraftNodes& nodes, const Array& logits,
             const infer::SlotStates& states, const BatchDraws& draws,
             const kernels::AcceptedPaths& accepted) const;
  virtual bool judges_on_device(const Drafts& drafts) const;

 private:
  virtual void judge_on_device(const kernels::DraftNodes& nodes, const Array& logits,
                               const infer::SlotStates& states,
                               const kernels::AcceptedPaths& accepted) const;
};

// A guess must be the most probable token at its parent; the longest path counts, of equals the
// one whose last node comes first. The text is that of greedy decoding.
std::unique_ptr<AcceptanceRule> greedy_acceptance();

struct TypicalOptions {
  double temperature = 0.7;  // positive
  double epsilon = 0.09;     // ε in (0, 1)
  double delta = 0.3;        // δ in (0, 1]; √ε
};
// p(x) > min(ε, δ·exp(−H(p))) with p the softmax of logits / temperature at x's parent and H its
// entropy in nats (Cai et al. 2024, section 2.3.2). The longest path counts, of equals the one with
// the highest Σ log p, of equals the one whose last node comes first. The token behind it is the
// most probable one. Does not keep the target's distribution.
std::unique_ptr<AcceptanceRule> typical_acceptance(const TypicalOptions& options);

// Exact sampling (Leviathan et al. 2023, Chen et al. 2023; trees: Miao et al. 2024): a guess x ~ q
// is accepted with probability min(1, p(x)/q(x)); each rejection replaces p by norm(max(0, p − q)),
// or leaves it where that is empty by rounding; behind the last rejection the next token is drawn
// from what p is then. Siblings are tried in order, q is what each was drawn from. Drawn::best:
// point masses. The temperature, then top-k, then top-p of `options` shape p. (options.seed is not
// read.) With temperature 0 it is greedy decoding.
// Throws Error where q is missing, is no distribution, or gives a guess the probability 0; and for
// siblings drawn without replacement whose ranks have gaps, as what lay in the gap is not known.
std::unique_ptr<AcceptanceRule> speculative_sampling(const infer::SamplingOptions& options);

// Draws guesses for speculative_sampling() to judge: `count` tokens of the distribution q (V),
// with the draws DrawUse::draft of elements `first`, first + 1, … (each at most once a pass). Where
// no token is left, the rest are kNoToken. Drawn::best: the most probable ones, of equals the
// smaller first. Throws Error for a q that is no distribution.
std::vector<int32_t> draw_siblings(std::span<const float> q, int64_t count, Drawn drawn,
                                   const Draws& draws, int64_t first);

}  // namespace binade::heads::decoding
