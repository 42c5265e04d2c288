#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <binade/data/added_tokens.h>
#include <binade/data/unicode.h>

#include <algorithm>

namespace binade::data {
namespace {

// The start of the last character of well-formed, non-empty text.
size_t last_character(std::string_view text) {
  size_t pos = text.size() - 1;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80) --pos;
  return pos;
}

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  size_t pos = last_character(text);
  return is_word(utf8_next(text, pos));
}

bool starts_with_word(std::string_view text) {
  size_t pos = 0;
  return !text.empty() && is_word(utf8_next(text, pos));
}

size_t without_trailing_space(std::string_view text) {
  while (!text.empty()) {
    const size_t start = last_character(text);
    size_t pos = start;
    if (!is_white_space(utf8_next(text, pos))) break;
    text = text.substr(0, start);
  }
  return text.size();
}

size_t leading_space(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    size_t next = pos;
    if (!is_white_space(utf8_next(text, next))) break;
    pos = next;
  }
  return pos;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty()) {
      (tokens_[i].special ? special_cuts_ : cuts_) |= !tokens_[i].single_word;
      continue;
    }
    starts_token_[static_cast<unsigned char>(content.front())] = true;
    uint32_t node = 0;
    for (const char c : content) {
      const auto byte = static_cast<unsigned char>(c);
      auto& children = nodes_[node].children;
      const auto child = std::find_if(children.begin(), children.end(),
                                      [&](const auto& entry) { return entry.first == byte; });
      if (child != children.end()) {
        node = child->second;
      } else {
        const auto fresh = static_cast<uint32_t>(nodes_.size());
        children.emplace_back(byte, fresh);
        nodes_.emplace_back();
        node = fresh;
      }
    }
    nodes_[node].token = static_cast<int32_t>(i);
  }
}

AddedTokenMatcher::Match AddedTokenMatcher::longest_at(std::string_view text, size_t pos) const {
  Match best;
  const Node* node = nodes_.data();
  for (size_t i = pos; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto child = std::find_if(node->children.begin(), node->children.end(),
                                    [&](const auto& entry) { return entry.first == byte; });
    if (child == node->children.end()) break;
    node = &nodes_[child->second];
    if (node->token >= 0) best = {i + 1 - pos, node->token};
  }
  return best;
}

void AddedTokenMatcher::split(std::string_view text, bool parse_special, const Sink& sink) const {
  size_t done = 0;  // everything before went to the sink
  const bool cuts = cuts_ || (special_cuts_ && parse_special);
  const auto plain_until = [&](size_t end) {
    while (cuts && done < end) {
      const auto length = static_cast<size_t>(utf8_step(text.substr(done)).length);
      sink(text.substr(done, length), kNoToken);
      done += length;
    }
    if (done < end) sink(text.substr(done, end - done), kNoToken);
  };
  for (size_t pos = tokens_.empty() ? text.size() : 0; pos < text.size();) {
    if (!starts_token_[static_cast<unsigned char>(text[pos])]) {
      ++pos;
      continue;
    }
    const Match match = longest_at(text, pos);
    if (match.token < 0) {
      ++pos;
      continue;
    }
    size_t start = pos, stop = pos + match.length;
    pos = stop;  // a match that is discarded below is not searched again
    const AddedToken& token = tokens_[match.token];
    if (token.special && !parse_special) continue;
    if (token.single_word &&
        (ends_with_word(text.substr(0, start)) || starts_with_word(text.substr(stop)))) {
      continue;
    }
    if (token.lstrip) start = std::max(without_trailing_space(text.substr(0, start)), done);
    if (token.rstrip) stop += leading_space(text.substr(stop));
    plain_until(start);
    sink(text.substr(start, stop - start), token.id);
    done = stop;
  }
  plain_until(text.size());
}

}  // namespace binade::data
