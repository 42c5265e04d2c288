#include <binade/heads/decoding/acceptance_stats.h>

#include <algorithm>

#include <binade/core/error.h>

namespace binade::heads::decoding {
namespace {

bool offers_a_guess(const Proposal& proposal, int32_t node) {
  const std::vector<int32_t>& children = proposal.tree.children(node);
  return std::any_of(children.begin(), children.end(), [&](int32_t child) {
    return proposal.tokens[static_cast<size_t>(child)] != kNoToken;
  });
}

void add_up(std::vector<int64_t>& sums, const std::vector<int64_t>& others) {
  sums.resize(std::max(sums.size(), others.size()));
  for (size_t i = 0; i < others.size(); ++i) sums[i] += others[i];
}

}  // namespace

int64_t emitted_tokens(const Proposal& proposal, const Accepted& accepted, const TextEnd& end) {
  check(!accepted.nodes.empty(), "an accepted path begins with the root, got none");
  check(end.room >= 1, "a pass needs room for a token, got ", end.room);
  const auto ends = [&](int32_t token) {
    return std::find(end.stop_ids.begin(), end.stop_ids.end(), token) != end.stop_ids.end();
  };
  const auto all = static_cast<int64_t>(accepted.nodes.size());
  int64_t emitted = 1;
  while (emitted < std::min(all, end.room)) {
    const int32_t node = accepted.nodes[static_cast<size_t>(emitted)];
    if (ends(proposal.tokens[static_cast<size_t>(node)])) break;
    ++emitted;
  }
  return emitted;
}

int64_t AcceptanceStats::record(const Proposal& proposal, const Accepted& accepted,
                                const TextEnd& end) {
  const int64_t emitted = emitted_tokens(proposal, accepted, end);
  ++passes_;
  emitted_ += emitted;
  // Token d of the pass says what became of the guesses at depth d: it is one of them, or what came
  // instead.
  for (int64_t depth = 1; depth <= emitted; ++depth) {
    const auto at = static_cast<size_t>(depth);
    if (!offers_a_guess(proposal, accepted.nodes[at - 1])) break;
    if (offered_.size() < at) {
      offered_.resize(at);
      accepted_.resize(at);
    }
    ++offered_[at - 1];
    if (at < accepted.nodes.size()) ++accepted_[at - 1];
  }
  return emitted;
}

void AcceptanceStats::merge(const AcceptanceStats& other) {
  passes_ += other.passes_;
  emitted_ += other.emitted_;
  add_up(offered_, other.offered_);
  add_up(accepted_, other.accepted_);
}

double AcceptanceStats::tau() const {
  return passes_ == 0 ? 0 : static_cast<double>(emitted_) / static_cast<double>(passes_);
}

int64_t AcceptanceStats::offered(int64_t depth) const {
  return depth >= 1 && depth <= this->depth() ? offered_[static_cast<size_t>(depth - 1)] : 0;
}

int64_t AcceptanceStats::accepted(int64_t depth) const {
  return depth >= 1 && depth <= this->depth() ? accepted_[static_cast<size_t>(depth - 1)] : 0;
}

double AcceptanceStats::acceptance(int64_t depth) const {
  const int64_t all = offered(depth);
  return all == 0 ? 0 : static_cast<double>(accepted(depth)) / static_cast<double>(all);
}

}  // namespace binade::heads::decoding
