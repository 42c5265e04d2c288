// What speculate prints.
#pragma once

#include <binade/heads/decoding/compare_texts.h>
#include <binade/heads/decoding/decode_texts.h>

#include "session.h"

namespace binade::examples {

// τ, tokens a second (of `plain`, too, if it is not null), acceptance by depth, ranks by head.
void print_figures(const heads::decoding::DecodedTexts& speculative,
                   const heads::decoding::DecodedTexts* plain);
// How many of the texts come to the answers that the prompts have ("" where one has none), beside
// those of `plain`, if it is not null.
void print_answers(const Session& session, const std::vector<std::string>& answers,
                   const heads::decoding::DecodedTexts* speculative,
                   const heads::decoding::DecodedTexts* plain);
// The acceptance by depth, as acceptance.svg in this folder.
void draw_acceptance(const std::string& folder, const heads::decoding::AcceptanceStats& stats);
// Throws Error if a difference is more than a near tie.
void print_comparison(const Session& session, const heads::decoding::TextComparison& comparison);

}  // namespace binade::examples
