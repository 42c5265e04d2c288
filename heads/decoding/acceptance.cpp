#include <binade/heads/decoding/acceptance.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <binade/core/error.h>
#include <binade/core/kernels/drafts.h>
#include <binade/heads/decoding/proposal_rows.h>
#include <binade/heads/decoding/proposer.h>
#include <binade/infer/token_distribution.h>

namespace binade::heads::decoding {
namespace {

// The path from the root to `last`.
std::vector<int32_t> path_to(const DraftTree& tree, int32_t last) {
  std::vector<int32_t> nodes;
  for (int32_t node = last; node >= 0; node = tree.parents()[static_cast<size_t>(node)])
    nodes.push_back(node);
  std::reverse(nodes.begin(), nodes.end());
  return nodes;
}

struct Path {
  int32_t last;  // its last node
  double score;
};

// Goes down from the root level by level; extend(path, next) adds to `next` the paths that are one
// accepted node longer. The last node of the longest path, of equals that with the highest score,
// of equals that which comes first. Several paths may be right, as siblings may be equal.
template <class Extend>
int32_t longest_path(const Extend& extend) {
  std::vector<Path> level = {{0, 0}};
  while (true) {
    std::vector<Path> next;
    for (const Path& path : level) extend(path, next);
    if (next.empty()) break;
    level = std::move(next);
  }
  return std::min_element(level.begin(), level.end(),
                          [](const Path& a, const Path& b) {
                            return a.score != b.score ? a.score > b.score : a.last < b.last;
                          })
      ->last;
}

// (S, N): the most probable token of each row of logits (S·N, V).
Array most_probable_tokens(const Array& logits, const Shape& nodes) {
  const Array best = Array::empty(nodes, DType::i32, logits.device());
  BINADE_DISPATCH(logits.device(), top_tokens(logits, {}, best.view({logits.size(0), 1})));
  return best;
}

class GreedyAcceptance : public AcceptanceRule {
 public:
  std::string_view name() const override { return "greedy"; }
  bool exact() const override { return true; }

  Accepted accept(const Proposal& proposal, const TargetRows& target,
                  const Draws& /*draws*/) const override {
    const ProposalRows rows(proposal, target);
    const int32_t last = longest_path([&](const Path& path, std::vector<Path>& next) {
      if (proposal.tree.children(path.last).empty()) return;
      const int32_t best = infer::most_probable(rows.logits(path.last));
      for (const int32_t child : proposal.tree.children(path.last))
        if (rows.token(child) == best) next.push_back({child, 0});
    });
    return {path_to(proposal.tree, last), infer::most_probable(rows.logits(last))};
  }

  int32_t choose(std::span<const float> logits, const Draws& /*draws*/) const override {
    infer::check_logits(logits, "the target's logits");
    return infer::most_probable(logits);
  }

  bool judges_on_device(const Drafts& /*drafts*/) const override { return true; }

 private:
  void judge_on_device(const kernels::DraftNodes& nodes, const Array& logits,
                       const infer::SlotStates& states,
                       const kernels::AcceptedPaths& accepted) const override {
    const Array best = most_probable_tokens(logits, nodes.tokens.shape());
    BINADE_DISPATCH(logits.device(), accept_greedy(best, nodes, states.running(), accepted));
  }
};

class TypicalAcceptance : public AcceptanceRule {
 public:
  explicit TypicalAcceptance(const TypicalOptions& options) : options_(options) {
    check(options.temperature > 0 && std::isfinite(options.temperature),
          "typical acceptance needs a positive temperature, got ", options.temperature,
          "; temperature 0 is greedy acceptance");
    check(options.epsilon > 0 && options.epsilon < 1,
          "the epsilon of typical acceptance lies in (0, 1), got ", options.epsilon);
    check(options.delta > 0 && options.delta <= 1,
          "the delta of typical acceptance lies in (0, 1], got ", options.delta);
  }

  std::string_view name() const override { return "typical"; }
  bool exact() const override { return false; }

  Accepted accept(const Proposal& proposal, const TargetRows& target,
                  const Draws& /*draws*/) const override {
    const ProposalRows rows(proposal, target);
    const int32_t last = longest_path([&](const Path& path, std::vector<Path>& next) {
      extend(proposal.tree, rows, path, next);
    });
    return {path_to(proposal.tree, last), infer::most_probable(rows.logits(last))};
  }

  int32_t choose(std::span<const float> logits, const Draws& draws) const override {
    return GreedyAcceptance().choose(logits, draws);
  }

  bool judges_on_device(const Drafts& /*drafts*/) const override { return true; }

 private:
  void judge_on_device(const kernels::DraftNodes& nodes, const Array& logits,
                       const infer::SlotStates& states,
                       const kernels::AcceptedPaths& accepted) const override {
    const Array best = most_probable_tokens(logits, nodes.tokens.shape());
    const kernels::TypicalRule rule{options_.temperature, options_.epsilon, options_.delta};
    BINADE_DISPATCH(logits.device(),
                    accept_typical(logits, best, nodes, states.running(), rule, accepted));
  }
  void extend(const DraftTree& tree, const ProposalRows& rows, const Path& path,
              std::vector<Path>& next) const {
    if (tree.children(path.last).empty()) return;
    const std::vector<double> p =
        rows.probabilities(path.last, {.temperature = options_.temperature});
    double entropy = 0;
    for (const double x : p)
      if (x > 0) entropy -= x * std::log(x);
    const double enough = std::min(options_.epsilon, options_.delta * std::exp(-entropy));
    for (const int32_t child : tree.children(path.last)) {
      const int32_t token = rows.token(child);
      if (token == kNoToken) continue;
      const double chance = p[static_cast<size_t>(token)];
      if (chance > enough) next.push_back({child, path.score + std::log(chance)});
    }
  }

  TypicalOptions options_;
};

// p becomes norm(max(0, p − q)), or stays where that is empty.
void subtract(std::vector<double>& p, const std::vector<double>& q) {
  std::vector<double> rest(p.size());
  double total = 0;
  for (size_t x = 0; x < p.size(); ++x) total += rest[x] = std::max(0.0, p[x] - q[x]);
  if (!(total > 0)) return;
  for (size_t x = 0; x < p.size(); ++x) p[x] = rest[x] / total;
}

class SpeculativeSampling : public AcceptanceRule {
 public:
  explicit SpeculativeSampling(const infer::SamplingOptions& options) : options_(options) {
    options.validate();
  }

  std::string_view name() const override { return "sampling"; }
  bool exact() const override { return true; }

  Accepted accept(const Proposal& proposal, const TargetRows& target,
                  const Draws& draws) const override {
    // All on one token: any path of such tokens will do, and a longer one is better.
    if (options_.temperature == 0) return GreedyAcceptance().accept(proposal, target, draws);
    const ProposalRows rows(proposal, target);
    if (proposal.drawn == Drawn::without_replacement && !proposal.tree.siblings_without_gaps()) {
      fail(
          "siblings drawn without replacement need the ranks 0, 1, 2, … without a gap, the tree "
          "is ",
          proposal.tree.json());
    }
    Accepted accepted;
    for (int32_t node = 0; node != DraftTree::kNoNode;) {
      accepted.nodes.push_back(node);
      std::vector<double> p = rows.probabilities(node, options_);
      node = try_children(proposal, rows, node, p, draws);
      if (node == DraftTree::kNoNode) {
        const int32_t last = accepted.nodes.back();
        accepted.next = draw_token(p, draws.uniform(DrawUse::next, last));
      }
    }
    return accepted;
  }

  int32_t choose(std::span<const float> logits, const Draws& draws) const override {
    return draw_token(infer::token_probabilities(logits, options_, "the target's logits"),
                      draws.uniform(DrawUse::next, 0));
  }

  infer::SamplingOptions plain() const override { return options_; }
  // q of drawn guesses is looked at on the host.
  bool judges_on_device(const Drafts& drafts) const override { return drafts.drawn == Drawn::best; }

 private:
  void judge_on_device(const kernels::DraftNodes& nodes, const Array& logits,
                       const infer::SlotStates& states,
                       const kernels::AcceptedPaths& accepted) const override {
    if (options_.temperature > 0) return states.accept_sampled(logits, nodes, accepted);
    const Array best = most_probable_tokens(logits, nodes.tokens.shape());
    BINADE_DISPATCH(logits.device(), accept_greedy(best, nodes, states.running(), accepted));
  }

  // The accepted child, or kNoNode; p becomes what is left of it then.
  static int32_t try_children(const Proposal& proposal, const ProposalRows& rows, int32_t node,
                              std::vector<double>& p, const Draws& draws) {
    std::vector<double> q;  // what the next sibling was drawn from
    for (const int32_t child : proposal.tree.children(node)) {
      const int32_t token = rows.token(child);
      if (token == kNoToken) continue;
      const auto x = static_cast<size_t>(token);
      if (proposal.drawn == Drawn::best) {
        q.assign(p.size(), 0);
        q[x] = 1;
      } else if (q.empty()) {
        q = rows.draft_probabilities(node);
      }
      check(q[x] > 0, "the guess of node ", child, ", token ", token,
            ", has the probability 0 in the distribution that it is said to be drawn from");
      if (draws.uniform(DrawUse::acceptance, child) * q[x] < p[x]) return child;
      subtract(p, q);
      if (proposal.drawn == Drawn::without_replacement) remove_token(q, x);
    }
    return DraftTree::kNoNode;
  }

  infer::SamplingOptions options_;
};

}  // namespace

bool AcceptanceRule::judges_on_device(const Drafts& /*drafts*/) const {
  return false;
}

void AcceptanceRule::judge_on_device(const kernels::DraftNodes& /*nodes*/, const Array& /*logits*/,
                                     const infer::SlotStates& /*states*/,
                                     const kernels::AcceptedPaths& /*accepted*/) const {
  fail("the acceptance rule '", name(), "' has no part that runs on the device");
}

void AcceptanceRule::judge(const Drafts& drafts, const kernels::DraftNodes& nodes,
                           const Array& logits, const infer::SlotStates& states,
                           const BatchDraws& draws, const kernels::AcceptedPaths& accepted) const {
  if (judges_on_device(drafts)) return judge_on_device(nodes, logits, states, accepted);
  const int64_t slots = accepted.nodes.size(0), longest = accepted.nodes.size(1);
  const int64_t count = drafts.tokens.size(1), vocabulary = logits.size(1);
  const std::vector<int32_t> running = states.running().to_vector<int32_t>();
  const std::vector<int32_t> passes = draws.passes.to_vector<int32_t>();
  const std::vector<int32_t> places = draws.places.to_vector<int32_t>();
  std::vector<int32_t> paths(static_cast<size_t>(slots * longest), DraftTree::kNoNode);
  std::vector<int32_t> counts(static_cast<size_t>(slots)), next(counts.size());
  for (int64_t slot = 0; slot < slots; ++slot) {
    const auto at = static_cast<size_t>(slot);
    if (running[at] <= 0) continue;
    const HostProposal proposal(drafts, slot);
    const std::vector<float> rows =
        logits.slice(0, slot * count, (slot + 1) * count).to_vector<float>();
    const Accepted said = accept(proposal.view(), {rows, vocabulary},
                                 {.seed = draws.seed,
                                  .pass = static_cast<uint64_t>(passes[at]),
                                  .place = static_cast<uint64_t>(places[at])});
    std::copy(said.nodes.begin(), said.nodes.end(), paths.begin() + slot * longest);
    counts[at] = static_cast<int32_t>(said.nodes.size());
    next[at] = said.next;
  }
  accepted.nodes.copy_from(Array::from(paths, accepted.nodes.shape()));
  accepted.counts.copy_from(Array::from(counts, {slots}));
  accepted.next.copy_from(Array::from(next, {slots}));
}

std::unique_ptr<AcceptanceRule> greedy_acceptance() {
  return std::make_unique<GreedyAcceptance>();
}

std::unique_ptr<AcceptanceRule> typical_acceptance(const TypicalOptions& options) {
  return std::make_unique<TypicalAcceptance>(options);
}

std::unique_ptr<AcceptanceRule> speculative_sampling(const infer::SamplingOptions& options) {
  return std::make_unique<SpeculativeSampling>(options);
}

}  // namespace binade::heads::decoding
