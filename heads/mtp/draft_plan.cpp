#include <binade/heads/mtp/draft_plan.h>

#include <algorithm>

#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/error.h>

namespace binade::heads::mtp {

namespace {

int32_t at(const std::vector<int32_t>& values, int64_t node) {
  return values[static_cast<size_t>(node)];
}

}  // namespace

DraftPlan::DraftPlan(const decoding::DraftTree& tree, Guesses guesses, Device device)
    : tree_(tree), levels_{{.begin = 0, .end = 1}} {
  std::vector<int32_t> parents, depths;
  std::vector<int64_t> visible;
  for (int64_t node = 1; node < tree_.size();) {
    Level level{.begin = node};
    const Level& before = levels_.back();
    for (; node < tree_.size() && at(tree_.depths(), node) == at(tree_.depths(), level.begin);
         ++node) {
      level.width = std::max<int64_t>(level.width, at(tree_.ranks(), node) + 1);
      parents.push_back(at(tree_.parents(), node));
      depths.push_back(at(tree_.depths(), node) - 1);
      visible.push_back(tree_.visible()[static_cast<size_t>(node)] >> 1);
    }
    level.end = node;
    std::vector<int32_t> picked;
    for (int64_t n = level.begin; n < level.end; ++n) {
      const int64_t parent =
          guesses == Guesses::of_level ? 0 : at(tree_.parents(), n) - before.begin;
      picked.push_back(static_cast<int32_t>(parent * level.width) + at(tree_.ranks(), n));
    }
    level.takes_all = true;
    for (size_t n = 0; n < picked.size(); ++n)
      level.takes_all = level.takes_all && picked[n] == static_cast<int32_t>(n);
    level.picked = Tensor::from(picked, {level.end - level.begin}, device);
    level.parents = Tensor::from(parents, {level.end - 1}, device);
    level.pending = {.depths = Array::from(depths, {level.end - 1}, device),
                     .visible = Array::from(visible, {level.end - 1}, device)};
    levels_.push_back(std::move(level));
  }
}

Tensor guess_level(const decoding::DraftOutput& output, const DraftPlan::Level& level,
                   const Tensor& states) {
  const int64_t slots = states.size(0), rows = slots * states.size(1);
  const Array tokens = Array::empty({rows, level.width}, DType::i32, states.device());
  output.guess(reshape(states, {rows, states.size(2)}), tokens);
  const Tensor best(tokens.view({slots, tokens.numel() / slots}));
  if (level.takes_all && best.size(1) == level.end - level.begin) return best;
  return index_select(best, 1, level.picked);
}

decoding::DraftOutput draft_output(const nn::CausalLm& base,
                                   const decoding::DraftVocabulary& vocabulary) {
  if (!vocabulary.whole()) return {base.head_weight(), vocabulary};
  return decoding::DraftOutput([&base](const Tensor& hidden) { return base.logits(hidden); });
}

void check_tree(const MtpHeads& heads, const decoding::DraftTree& tree,
                const decoding::DraftVocabulary& vocabulary) {
  check(tree.depth() <= heads.config().depth, "the draft tree is ", tree.depth(),
        " levels deep, but the heads predict ", heads.config().depth, " tokens beyond the next");
  const std::vector<int32_t>& ranks = tree.ranks();
  const int64_t width = *std::max_element(ranks.begin(), ranks.end()) + 1;
  const int64_t tokens = vocabulary.size(heads.base().config().vocab_size);
  check(width <= tokens, "the draft tree takes ", width, " guesses of a vocabulary of ", tokens);
}

}  // namespace binade::heads::mtp
