#include <binade/heads/medusa/proposer.h>

#include <algorithm>

#include <binade/core/error.h>
#include <binade/core/kernels/drafts.h>
#include <binade/core/kernels/indexing.h>

namespace binade::heads::medusa {

using decoding::DraftTree;

MedusaProposer::MedusaProposer(const MedusaHeads& heads, const DraftTree& tree,
                               const MedusaProposerOptions& options)
    : heads_(heads), tree_(tree), slots_(options.slots) {
  const int64_t all = heads.config().heads;
  check(slots_ >= 1, "a proposer needs 1 or more slots, got ", slots_);
  check(tree.depth() <= all, "the draft tree is ", tree.depth(), " deep, but there are ", all,
        " Medusa heads");
  check(options.heads >= 0 && options.heads <= all, "there are ", all, " Medusa heads, asked for ",
        options.heads);
  const int64_t count = std::max(options.heads, tree.depth());
  const int64_t width = std::min(decoding::TreeLimits{}.width,
                                 options.vocabulary.size(heads.base().config().vocab_size));
  for (int64_t k = 0; k < count; ++k)
    outputs_.push_back(
        options.vocabulary.whole()
            ? decoding::DraftOutput([&heads, k](const Tensor& x) { return heads.output(k, x); })
            : decoding::DraftOutput(heads.output_weight(k), options.vocabulary));
  std::vector<int32_t> candidates;
  for (size_t n = 0; n < static_cast<size_t>(tree.size()); ++n) {
    check(tree.ranks()[n] < width, "the draft tree has rank ", tree.ranks()[n],
          ", but each head gives ", width, " guesses");
    const int64_t level = tree.depths()[n] - 1;
    candidates.push_back(n == 0 ? 0 : static_cast<int32_t>(1 + width * level + tree.ranks()[n]));
  }
  const Device device = heads.base().device();
  candidates_ = Array::from(candidates, {tree.size()}, device);
  next_ = Array::zeros({slots_}, DType::i32, device);
  if (count > 0) guesses_ = Array::full({slots_, count, width}, -1, DType::i32, device);
}

void MedusaProposer::observe(const decoding::Observation& observation) {
  const Array& last = observation.last;
  check(last.defined() && last.dims() == 2,
        "Medusa heads need the hidden state of each last token");
  if (!last_.defined()) last_ = Array::zeros({slots_, last.size(1)}, last.dtype(), last.device());
  if (observation.slots.empty()) {
    last_.copy_from(last);
    next_.copy_from(observation.next);
    return;
  }
  const auto rows = static_cast<int64_t>(observation.slots.size());
  const Array slots = Array::from(observation.slots, {rows}, last.device());
  const Array places = slots.view({rows, 1}).expand(last.shape());
  BINADE_DISPATCH(last.device(), scatter(last_, 0, places, last, /*add=*/false));
  BINADE_DISPATCH(last.device(), scatter(next_, 0, slots, observation.next, /*add=*/false));
  last_.bump_version();
  next_.bump_version();
}

decoding::Drafts MedusaProposer::propose(const decoding::BatchDraws& /*draws*/) {
  const NoGrad no_grad;
  check(last_.defined(), "Medusa heads guess behind a prompt, and none was observed");
  decoding::Drafts drafts;
  drafts.tree = tree_;
  if (!guesses_.defined()) {
    drafts.tokens = next_.clone().view({slots_, 1});
    return drafts;
  }
  for (int64_t k = 0; k < guesses_.size(1); ++k)
    outputs_[static_cast<size_t>(k)].guess(heads_.hidden(k, Tensor(last_)), guesses_.select(1, k));
  guesses_.bump_version();
  drafts.guesses = guesses_;
  drafts.tokens = Array::empty({slots_, tree_.size()}, DType::i32, next_.device());
  BINADE_DISPATCH(next_.device(),
                  draft_tokens(next_, guesses_.view({slots_, -1}), candidates_, drafts.tokens));
  return drafts;
}

}  // namespace binade::heads::medusa
