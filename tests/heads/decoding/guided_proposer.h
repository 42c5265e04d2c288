// A proposer that knows what will be written: for tests that need drafts which are accepted.
#pragma once

#include <map>

#include <binade/core/random.h>
#include <binade/heads/decoding/proposer.h>

namespace binade::test {

// Of each depth one guess is right, at a rank that a hash of the place tells, or none. The texts
// (prompt and what follows) are those of `known` that begin with what was observed.
class GuidedProposer : public heads::decoding::Proposer {
 public:
  GuidedProposer(int64_t slots, heads::decoding::DraftTree tree,
                 std::vector<std::vector<int32_t>> known, bool own_trees = false,
                 Device device = {})
      : tree_(std::move(tree)),
        known_(std::move(known)),
        own_trees_(own_trees),
        device_(device),
        texts_(static_cast<size_t>(slots)) {}

  heads::decoding::ProposerNeeds needs() const override { return {.text = true}; }

  void observe(const heads::decoding::Observation& seen) override {
    for (size_t row = 0; row < seen.text.size(); ++row) {
      const size_t slot = seen.slots.empty() ? row : static_cast<size_t>(seen.slots[row]);
      std::vector<int32_t>& text = texts_.at(slot);
      if (seen.prompts || seen.text[row].empty()) text.clear();
      if (!seen.text[row].empty())
        text.insert(text.end(), seen.text[row].begin() + (text.empty() ? 0 : 1),
                    seen.text[row].end());
    }
  }

  heads::decoding::Drafts propose(const heads::decoding::BatchDraws& /*draws*/) override {
    using heads::decoding::kNoToken;
    std::vector<int32_t> tokens, parents;
    for (const std::vector<int32_t>& text : texts_) {
      const std::vector<int32_t>* whole = nullptr;
      for (const std::vector<int32_t>& candidate : known_)
        if (!text.empty() && candidate.size() >= text.size() &&
            std::equal(text.begin(), text.end(), candidate.begin()))
          whole = &candidate;
      for (size_t node = 0; node < static_cast<size_t>(tree_.size()); ++node) {
        if (node == 0) {
          tokens.push_back(text.empty() ? 0 : text.back());
          continue;
        }
        const size_t place = text.size() + static_cast<size_t>(tree_.depths()[node]) - 1;
        const uint32_t hash = philox(3, place, 0, 0).word[0];
        const bool right =
            whole && place < whole->size() && static_cast<int32_t>(hash % 3) == tree_.ranks()[node];
        tokens.push_back(right ? (*whole)[place] : hash % 5 == 0 ? kNoToken : 1);
      }
    }
    heads::decoding::Drafts drafts;
    const Shape shape = {static_cast<int64_t>(texts_.size()), tree_.size()};
    drafts.tokens = Array::from(tokens, shape, device_);
    if (!own_trees_) {
      drafts.tree = tree_;
      return drafts;
    }
    for (size_t slot = 0; slot < texts_.size(); ++slot)
      parents.insert(parents.end(), tree_.parents().begin(), tree_.parents().end());
    drafts.parents = Array::from(parents, shape, device_);
    return drafts;
  }

 private:
  heads::decoding::DraftTree tree_;
  std::vector<std::vector<int32_t>> known_;
  bool own_trees_;
  Device device_;
  std::vector<std::vector<int32_t>> texts_;
};

}  // namespace binade::test
