// Words of code and of comments, as a search compares them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace binade::examples {

// The words of identifiers and of prose, in order: letters and digits are taken apart where their
// kind or case changes ("loadBase64URL" → load, base, 64, url), in lower case, without a plural's
// s; single letters are no words.
std::vector<std::string> words_of(std::string_view text);

// Words that say nothing of what is described: "the", "returns".
bool is_stop_word(std::string_view word);

// What somebody who has read the comment may search for: its first `limit` different words up to a
// list of parameters, without stop words, doxygen's commands and the identifier `name`, as what one
// searches for is not known. Nothing for a comment about copyright.
std::vector<std::string> query_words(std::string_view comment, std::string_view name, size_t limit);

}  // namespace binade::examples
