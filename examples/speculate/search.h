// The best tree for a model, its heads, this machine and a batch size.
#pragma once

#include <binade/heads/decoding/tree_search.h>

#include "session.h"

namespace binade::examples {

// Decodes the prompts of --search-tree to count how often which guesses of the heads are right,
// times passes, and prints what it finds.
heads::decoding::TreeChoice search_for_tree(const Session& session,
                                            const SpeculateOptions& options);

}  // namespace binade::examples
