#include <binade/heads/decoding/proposal_rows.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <binade/core/error.h>
#include <binade/infer/token_distribution.h>

namespace binade::heads::decoding {
namespace {

double sum_of(const std::vector<double>& p) {
  return std::accumulate(p.begin(), p.end(), 0.0);
}

}  // namespace

ProposalRows::ProposalRows(const Proposal& proposal, const TargetRows& target)
    : proposal_(proposal), target_(target) {
  const auto nodes = static_cast<size_t>(proposal.tree.size());
  const int64_t vocabulary = target.vocabulary;
  check(vocabulary > 0, "the target's vocabulary must have tokens, got ", vocabulary);
  check(target.logits.size() == nodes * static_cast<size_t>(vocabulary), "a draft tree of ", nodes,
        " nodes needs ", nodes, " rows of ", vocabulary, " logits, got ", target.logits.size(),
        " numbers");
  check(proposal.tokens.size() == nodes, "a draft tree of ", nodes,
        " nodes has as many tokens, got ", proposal.tokens.size());
  for (size_t node = 0; node < nodes; ++node) {
    const int32_t token = proposal.tokens[node];
    check(token >= 0 || (token == kNoToken && node > 0), "node ", node,
          " of the draft has the token ", token);
    check(token < vocabulary, "node ", node, " of the draft has the token ", token,
          ", but the target has ", vocabulary,
          " tokens: the draft must have the target's vocabulary");
  }
  if (proposal.drawn == Drawn::best) return;
  check(!proposal.q.empty(),
        "guesses were drawn, but the probabilities that they were drawn from are missing: give q, "
        "or say Drawn::best, which needs none");
  check(proposal.q.rows.size() % static_cast<size_t>(vocabulary) == 0,
        "the draft's probabilities need rows of ", vocabulary, " tokens, got ",
        proposal.q.rows.size(), " numbers: the draft must have the target's vocabulary");
  check(proposal.q.row_of.size() == nodes, "a draft tree of ", nodes,
        " nodes names as many rows of q, got ", proposal.q.row_of.size());
}

std::span<const float> ProposalRows::row(int32_t node) const {
  const auto length = static_cast<size_t>(target_.vocabulary);
  return target_.logits.subspan(static_cast<size_t>(node) * length, length);
}

std::span<const float> ProposalRows::logits(int32_t node) const {
  infer::check_logits(row(node), concat("the target's logits at node ", node));
  return row(node);
}

std::vector<double> ProposalRows::probabilities(int32_t node,
                                                const infer::SamplingOptions& options) const {
  return infer::token_probabilities(row(node), options,
                                    concat("the target's logits at node ", node));
}

std::vector<double> ProposalRows::draft_probabilities(int32_t node) const {
  const auto length = static_cast<size_t>(target_.vocabulary);
  const int32_t index = proposal_.q.row_of[static_cast<size_t>(node)];
  check(index >= 0, "the guesses below node ", node,
        " were drawn, but the probabilities that they were drawn from are missing");
  check(static_cast<size_t>(index) < proposal_.q.rows.size() / length, "node ", node, " names row ",
        index, " of q, which has ", proposal_.q.rows.size() / length, " rows");
  return checked_distribution(proposal_.q.rows.subspan(static_cast<size_t>(index) * length, length),
                              concat("the draft's probabilities below node ", node));
}

std::vector<double> checked_distribution(std::span<const float> q, std::string_view what) {
  constexpr double kTolerance = 1e-3;  // of sums in f32, and of q rounded to half
  std::vector<double> p(q.begin(), q.end());
  for (const double x : p) check(x >= 0, what, " have a NaN or a negative number, ", x);
  const double total = sum_of(p);
  check(std::abs(total - 1) <= kTolerance, what, " add up to ", total, ", not to 1");
  for (double& x : p) x /= total;
  return p;
}

void remove_token(std::vector<double>& p, size_t x) {
  p[x] = 0;
  const double total = sum_of(p);
  if (!(total > 0)) return;
  for (double& value : p) value /= total;
}

int32_t draw_token(const std::vector<double>& p, double uniform) {
  const double target = uniform * sum_of(p);
  double sum = 0;
  int32_t last = kNoToken;  // where rounding leaves the sum short of the target
  for (size_t x = 0; x < p.size(); ++x) {
    if (p[x] <= 0) continue;
    last = static_cast<int32_t>(x);
    sum += p[x];
    if (sum > target) break;
  }
  return last;
}

std::vector<int32_t> draw_siblings(std::span<const float> q, int64_t count, Drawn drawn,
                                   const Draws& draws, int64_t first) {
  check(count >= 0, "the number of guesses must be 0 or more, got ", count);
  std::vector<double> p = checked_distribution(q, "the draft's probabilities");
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    int32_t token = kNoToken;
    if (drawn == Drawn::best) {
      const auto best = std::max_element(p.begin(), p.end());
      if (*best > 0) token = static_cast<int32_t>(best - p.begin());
    } else {
      token = draw_token(p, draws.uniform(DrawUse::draft, first + i));
    }
    tokens.push_back(token);
    if (token != kNoToken && drawn != Drawn::with_replacement)
      remove_token(p, static_cast<size_t>(token));
  }
  return tokens;
}

}  // namespace binade::heads::decoding
