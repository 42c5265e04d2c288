#include <binade/heads/decoding/proposer.h>

#include <binade/core/error.h>

namespace binade::heads::decoding {
namespace {

std::vector<int32_t> row_of_slot(const Array& array, int64_t slot) {
  return array.slice(0, slot, slot + 1).to_vector<int32_t>();
}

}  // namespace

HostProposal::HostProposal(const Drafts& drafts, int64_t slot) : drawn_(drafts.drawn) {
  check(drafts.tokens.defined() && drafts.tokens.dims() == 2, "drafts need tokens (S, N)");
  check(slot >= 0 && slot < drafts.tokens.size(0), "the drafts have ", drafts.tokens.size(0),
        " slots, asked for slot ", slot);
  check(drafts.tree.has_value() != drafts.parents.defined(),
        "drafts have either a tree for all slots or parents for each");
  tokens_ = row_of_slot(drafts.tokens, slot);
  if (drafts.tree) {
    tree_ = *drafts.tree;
  } else {
    check(drafts.parents.shape() == drafts.tokens.shape(), "parents ", drafts.parents.shape(),
          " do not fit the tokens ", drafts.tokens.shape(), " of the drafts");
    tree_ = DraftTree::from_parents(row_of_slot(drafts.parents, slot));
  }
  if (drawn_ == Drawn::best || !drafts.q.defined()) return;
  check(drafts.q.dims() == 3 && drafts.q.size(0) == drafts.tokens.size(0) &&
            drafts.q_row_of.defined(),
        "drawn guesses need q (S, R, V) and its rows, got q ", drafts.q.shape());
  q_ = drafts.q.slice(0, slot, slot + 1).to_vector<float>();
  q_row_of_ = drafts.q_row_of.dims() == 1 ? drafts.q_row_of.to_vector<int32_t>()
                                          : row_of_slot(drafts.q_row_of, slot);
}

Proposal HostProposal::view() const {
  return {
      .tree = tree_, .tokens = tokens_, .drawn = drawn_, .q = {.rows = q_, .row_of = q_row_of_}};
}

}  // namespace binade::heads::decoding
