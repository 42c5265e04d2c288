#include <binade/core/error.h>
#include <binade/core/utf8.h>
#include <binade/data/normalizer.h>
#include <binade/data/unicode.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

namespace binade::data {
namespace {

using Kind = NormalizerStep::Kind;

std::string map_with_utf8proc(std::string_view text, int options) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                             static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                             static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  check(size >= 0, "cannot normalise text: ", utf8proc_errmsg(size));
  return {reinterpret_cast<const char*>(mapped), static_cast<size_t>(size)};
}

int utf8proc_options(Kind kind) {
  const bool compose = kind == Kind::kNfc || kind == Kind::kNfkc;
  const bool compatible = kind == Kind::kNfkc || kind == Kind::kNfkd;
  return UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
         (compatible ? UTF8PROC_COMPAT : 0);
}

// A character that is not to be normalised is a starter that combines with nothing, so the text on
// either side of it can be normalised alone.
std::string unicode_form(std::string_view text, Kind kind) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);
  const int options = utf8proc_options(kind);
  std::string out;
  size_t start = 0, pos = 0;
  while (pos < text.size()) {
    const size_t here = pos;
    if (is_ascii(text[pos])) {
      ++pos;
    } else if (!is_normalizable(utf8_next(text, pos))) {
      out += map_with_utf8proc(text.substr(start, here - start), options);
      out += text.substr(here, pos - here);
      start = pos;
    }
  }
  return out + map_with_utf8proc(text.substr(start), options);
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) append_lower_case(out, utf8_next(text, pos));
  return out;
}

std::string strip_accents(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    if (!is_mark_to_normalizer(utf8_next(text, pos))) out += text.substr(start, pos - start);
  }
  return out;
}

std::string_view strip(std::string_view text, bool left, bool right) {
  size_t first = text.size(), last = 0;  // the span from the first to the last other character
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    if (is_white_space(utf8_next(text, pos))) continue;
    first = std::min(first, start);
    last = pos;
  }
  if (first > last) return (left || right) ? std::string_view() : text;
  if (right) text = text.substr(0, last);
  return left ? text.substr(first) : text;
}

std::string replace_matches(std::string_view text, const Regex& regex, std::string_view content) {
  std::string out;
  RegexScan scan(regex, text);
  size_t begin = 0, end = 0, done = 0;
  while (scan.next(begin, end)) {
    out += text.substr(done, begin - done);
    out += content;
    done = end;
  }
  return out += text.substr(done);
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, done)) {
    out += text.substr(done, at - done);
    out += to;
    done = at + from.size();
  }
  return out += text.substr(done);
}

Normalizer::Normalizer(std::vector<NormalizerStep> steps) {
  for (NormalizerStep& spec : steps) {
    Step step{std::move(spec), nullptr};
    if (step.spec.pattern.is_regex) step.regex = std::make_unique<Regex>(step.spec.pattern.text);
    steps_.push_back(std::move(step));
  }
}

std::string Normalizer::operator()(std::string_view text) const {
  std::string out(text);
  for (const auto& [spec, regex] : steps_) {
    switch (spec.kind) {
      case Kind::kNfc:
      case Kind::kNfd:
      case Kind::kNfkc:
      case Kind::kNfkd:
        out = unicode_form(out, spec.kind);
        break;
      case Kind::kLowercase:
        out = lower_case(out);
        break;
      case Kind::kStripAccents:
        out = strip_accents(out);
        break;
      case Kind::kStrip:
        out = std::string(strip(out, spec.strip_left, spec.strip_right));
        break;
      case Kind::kPrepend:
        if (!out.empty()) out.insert(0, spec.content);
        break;
      case Kind::kReplace:
        out = regex ? replace_matches(out, *regex, spec.content)
                    : replace_all(out, spec.pattern.text, spec.content);
        break;
    }
  }
  return out;
}

}  // namespace binade::data
