// INTERNAL. What acceptance rules read: a proposal and the target's rows, checked.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <binade/heads/decoding/acceptance.h>

namespace binade::heads::decoding {

class ProposalRows {
 public:
  // Throws Error where arrays do not fit the tree or the vocabulary.
  ProposalRows(const Proposal& proposal, const TargetRows& target);

  int32_t token(int32_t node) const { return proposal_.tokens[static_cast<size_t>(node)]; }
  // (V), checked.
  std::span<const float> logits(int32_t node) const;
  std::vector<double> probabilities(int32_t node, const infer::SamplingOptions& options) const;
  // (V), normalised in double: what the children of `node` were drawn from.
  std::vector<double> draft_probabilities(int32_t node) const;

 private:
  std::span<const float> row(int32_t node) const;

  const Proposal& proposal_;
  const TargetRows& target_;
};

// q (V), normalised in double. Throws Error that begins with `what` for a q that is no
// distribution.
std::vector<double> checked_distribution(std::span<const float> q, std::string_view what);

// The distribution without token x, renormalised; all zeros where nothing else is left.
void remove_token(std::vector<double>& p, size_t x);

// The token at which the running sum of p exceeds `uniform` of its total, kNoToken for zeros.
int32_t draw_token(const std::vector<double>& p, double uniform);

}  // namespace binade::heads::decoding
