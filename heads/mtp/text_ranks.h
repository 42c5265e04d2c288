// Where the tokens of a known text stand among the guesses of multi-token prediction: what a search
// of draft trees counts (decoding/tree_search.h).
#pragma once

#include <cstdint>
#include <vector>

#include <binade/heads/decoding/draft_tree.h>
#include <binade/heads/decoding/draft_vocabulary.h>
#include <binade/heads/mtp/mtp.h>

namespace binade::heads::mtp {

// The passes that a proposer of these heads may draft for tokens [first, end) of `text`, in one
// pass of the model and one of each depth: entry i is that whose root is token first + i, the last
// token excepted. Its ranks, as decoding::RankCounts::record() takes them, say where the tokens
// behind the root stand among depth 1, 2, …'s `width` likeliest of the vocabulary, those of modules
// behind the true tokens before; −1: not among them, or the text before the root is too short for a
// module to guess (ModuleProposer). Model and heads should be in evaluation mode. Throws Error
// unless 1 ≤ first ≤ tokens and width ≥ 1.
std::vector<std::vector<int32_t>> text_ranks(const MtpHeads& heads,
                                             const std::vector<int32_t>& text, int64_t first,
                                             int64_t width = decoding::TreeLimits{}.width,
                                             const decoding::DraftVocabulary& vocabulary = {});

}  // namespace binade::heads::mtp
