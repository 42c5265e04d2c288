// What speculate prints.
#pragma once

#include <binade/heads/decoding/compare_texts.h>
#include <binade/heads/decoding/decode_texts.h>

#include "session.h"

namespace binade::examples {

// τ, tokens a second (of `plain`, too, if it is not null), acceptance by depth, ranks by head.
void print_figures(const heads::decoding::DecodedTexts& speculative,
                   const heads::decoding::DecodedTexts* plain);
// Throws Error if a difference is more than a near tie.
void print_comparison(const Session& session, const heads::decoding::TextComparison& comparison);

}  // namespace binade::examples
