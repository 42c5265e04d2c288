#include "words.h"

#include <algorithm>
#include <set>

#include <binade/core/text.h>

namespace binade::examples {

namespace {

enum class CharKind { none, lower, upper, digit };

CharKind kind_of(char c) {
  if (is_digit(c)) return CharKind::digit;
  if (c >= 'a' && c <= 'z') return CharKind::lower;
  if (c >= 'A' && c <= 'Z') return CharKind::upper;
  return CharKind::none;
}

char lower(char c) {
  return kind_of(c) == CharKind::upper ? static_cast<char>(c - 'A' + 'a') : c;
}

bool in_identifier(char c) {
  return kind_of(c) != CharKind::none || c == '_';
}

// Whether a word ends between text[at - 1] and text[at].
bool word_ends(std::string_view text, size_t at) {
  const CharKind before = kind_of(text[at - 1]), here = kind_of(text[at]);
  if (before == CharKind::upper && here == CharKind::lower) return false;  // "Name"
  if (before != here) return true;
  // "URLName": the last capital begins the next word.
  return here == CharKind::upper && at + 1 < text.size() &&
         kind_of(text[at + 1]) == CharKind::lower;
}

std::string lowered(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

}  // namespace

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto finish = [&] {
    if (word.size() > 3 && word.ends_with('s') && !word.ends_with("ss")) word.pop_back();
    if (word.size() > 1) words.push_back(word);
    word.clear();
  };
  for (size_t at = 0; at < text.size(); ++at) {
    if (!word.empty() && word_ends(text, at)) finish();
    if (kind_of(text[at]) != CharKind::none) word += lower(text[at]);
  }
  finish();
  return words;
}

bool is_stop_word(std::string_view word) {
  static const std::set<std::string_view> kWords = {
      "an",   "and",   "are",   "as",     "at",   "be",     "but",  "by",   "can",  "for",
      "from", "has",   "have",  "if",     "in",   "into",   "is",   "it",   "may",  "not",
      "of",   "on",    "or",    "return", "so",   "such",   "than", "that", "the",  "their",
      "then", "there", "these", "thi",    "this", "those",  "to",   "used", "use",  "was",
      "when", "where", "which", "will",   "with", "should", "must", "you",  "we",   "its",
      "do",   "doe",   "no",    "see",    "note", "all",    "any",  "only", "also", "same"};
  return kWords.contains(word);
}

std::vector<std::string> query_words(std::string_view comment, std::string_view name,
                                     size_t limit) {
  const std::string text = lowered(comment), sought = lowered(name);
  if (text.find("copyright") != std::string::npos || text.find("license") != std::string::npos)
    return {};
  std::vector<std::string> query;
  for (size_t at = 0; at < text.size() && query.size() < limit;) {
    const size_t begin = at;
    while (at < text.size() && in_identifier(text[at])) ++at;
    if (begin == at) {
      ++at;
      continue;
    }
    const std::string identifier = text.substr(begin, at - begin);
    if (begin > 0 && (text[begin - 1] == '@' || text[begin - 1] == '\\')) {
      if (identifier == "param" || identifier == "tparam") break;
      continue;
    }
    if (identifier == sought) continue;
    // In the comment's own spelling, which has the capitals that end words.
    for (const std::string& word : words_of(comment.substr(begin, at - begin)))
      if (query.size() < limit && !is_stop_word(word) &&
          std::find(query.begin(), query.end(), word) == query.end())
        query.push_back(word);
  }
  return query;
}

}  // namespace binade::examples
