#include <binade/data/byte_alphabet.h>
#include <binade/data/normalizer.h>
#include <binade/data/token_text.h>

#include <algorithm>
#include <charconv>

namespace binade::data {
namespace {

// The byte of "<0x41>"; -1 for any other token.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  int byte = -1;
  const auto [end, error] = std::from_chars(&token[3], &token[5], byte, 16);
  return error == std::errc() && end == &token[5] && byte >= 0 ? byte : -1;
}

}  // namespace

void TokenText::add(int32_t id, std::string_view token) {
  std::string text(token);
  if (decoder_.byte_level) text = unspell_bytes(token).value_or(text);
  for (const auto& [from, to] : decoder_.replacements) text = replace_all(text, from, to);
  if (const int byte = fallback_byte(text); decoder_.byte_fallback && byte >= 0) {
    text.assign(1, static_cast<char>(byte));
  }
  std::string first = text;
  if (!decoder_.strip_start.empty() && first.starts_with(decoder_.strip_start)) {
    first.erase(0, decoder_.strip_start.size());
  }
  if (!decoder_.drop_in_first.empty()) {
    first = replace_all(first, decoder_.drop_in_first, "");
    text = replace_all(text, decoder_.drop_in_first, " ");
  }
  entries_.resize(std::max<size_t>(entries_.size(), id + 1));
  entries_[id] = {std::move(text), std::move(first)};
}

std::string_view TokenText::get(int32_t id, bool at_start) const {
  if (static_cast<size_t>(id) >= entries_.size()) return {};
  return at_start ? entries_[id].at_start : entries_[id].anywhere;
}

}  // namespace binade::data
