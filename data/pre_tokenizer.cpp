#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>
#include <binade/data/normalizer.h>
#include <binade/data/pre_tokenizer.h>
#include <binade/data/unicode.h>

#include <algorithm>
#include <string>

namespace binade::data {
namespace {

using Kind = PreTokenizerStep::Kind;
using PrependScheme = PreTokenizerStep::PrependScheme;

// A stretch of text that a pattern matched, or one between matches.
struct Stretch {
  size_t begin = 0, end = 0;
  bool match = false;
};

// Joins or drops matches as the behaviour says. Follows NormalizedString::split of `tokenizers`,
// where an empty match counts as a match, too.
std::vector<Stretch> arrange(std::vector<Stretch> stretches, SplitBehavior behavior) {
  std::vector<Stretch> out;
  bool previous_match = false;
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return stretches;
    case SplitBehavior::kRemoved:
      std::erase_if(stretches, [](const Stretch& s) { return s.match; });
      return stretches;
    case SplitBehavior::kContiguous:
    case SplitBehavior::kMergedWithPrevious:
      for (const Stretch& s : stretches) {
        const bool join = behavior == SplitBehavior::kContiguous ? s.match == previous_match
                                                                 : s.match && !previous_match;
        if (join && !out.empty()) {
          out.back().end = s.end;
        } else {
          out.push_back(s);
        }
        previous_match = s.match;
      }
      return out;
    case SplitBehavior::kMergedWithNext:
      for (auto s = stretches.rbegin(); s != stretches.rend(); ++s) {
        if (s->match && !previous_match && !out.empty()) {
          out.back().begin = s->begin;
        } else {
          out.push_back(*s);
        }
        previous_match = s->match;
      }
      std::reverse(out.begin(), out.end());
  }
  return out;
}

std::vector<Stretch> stretches_of(const Regex& regex, std::string_view text, bool invert) {
  std::vector<Stretch> out;
  RegexScan scan(regex, text);
  size_t begin = 0, end = 0, done = 0;
  while (scan.next(begin, end)) {
    if (done != begin) out.push_back({done, begin, invert});
    out.push_back({begin, end, !invert});
    done = end;
  }
  if (done != text.size()) out.push_back({done, text.size(), invert});
  return out;
}

std::vector<Stretch> digits_of(std::string_view text) {
  std::vector<Stretch> out;
  size_t done = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    if (!is_numeric(utf8_next(text, pos))) continue;
    if (done != start) out.push_back({done, start, false});
    out.push_back({start, pos, true});
    done = pos;
  }
  if (done != text.size()) out.push_back({done, text.size(), false});
  return out;
}

// A literal pattern as a regular expression.
std::string literal_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool punctuation = c > ' ' && c < '\x7F' && !is_letter(c) && !is_digit(c);
    if (punctuation) {
      out.push_back('\\');
    }
    out.push_back(c);
  }
  return out;
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps) {
  for (PreTokenizerStep& spec : steps) {
    Step step{std::move(spec), nullptr};
    if (step.spec.kind == Kind::kSplit) {
      const Pattern& pattern = step.spec.pattern;
      step.regex =
          std::make_unique<Regex>(pattern.is_regex ? pattern.text : literal_pattern(pattern.text));
    } else if (step.spec.kind == Kind::kByteLevel && step.spec.use_regex) {
      step.regex = std::make_unique<Regex>(kGpt2Pattern);
    } else if (step.spec.kind == Kind::kMetaspace) {
      step.regex = std::make_unique<Regex>(literal_pattern(step.spec.replacement));
    }
    steps_.push_back(std::move(step));
  }
}

void PreTokenizer::apply(size_t index, const Piece& piece, const Sink& sink) const {
  if (piece.text.empty()) return;
  if (index == steps_.size()) return sink(piece.text);
  const PreTokenizerStep& spec = steps_[index].spec;
  switch (spec.kind) {
    case Kind::kByteLevel:
      if (spec.add_prefix_space && piece.may_prefix && piece.text.front() != ' ') {
        const std::string prefixed = concat(' ', piece.text);
        return split_by_regex(index, {prefixed, piece.at_start}, sink);
      }
      return split_by_regex(index, piece, sink);
    case Kind::kSplit:
      return split_by_regex(index, piece, sink);
    case Kind::kDigits: {
      const auto behavior =
          spec.individual_digits ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
      for (const Stretch& s : arrange(digits_of(piece.text), behavior)) {
        apply(index + 1,
              {piece.text.substr(s.begin, s.end - s.begin), piece.at_start && s.begin == 0}, sink);
      }
      return;
    }
    case Kind::kMetaspace:
      return split_metaspace(index, piece, sink);
  }
}

void PreTokenizer::split_by_regex(size_t index, const Piece& piece, const Sink& sink) const {
  const auto& [spec, regex] = steps_[index];
  const auto forward = [&](size_t begin, size_t end) {
    apply(index + 1, {piece.text.substr(begin, end - begin), piece.at_start && begin == 0}, sink);
  };
  if (!regex) return forward(0, piece.text.size());
  if (spec.kind == Kind::kSplit && spec.behavior != SplitBehavior::kIsolated) {
    for (const Stretch& s : arrange(stretches_of(*regex, piece.text, spec.invert), spec.behavior)) {
      forward(s.begin, s.end);
    }
    return;
  }
  // The common case needs no list: every stretch goes on as it is found.
  RegexScan scan(*regex, piece.text);
  size_t begin = 0, end = 0, done = 0;
  while (scan.next(begin, end)) {
    forward(done, begin);
    forward(begin, end);
    done = end;
  }
  forward(done, piece.text.size());
}

void PreTokenizer::split_metaspace(size_t index, const Piece& piece, const Sink& sink) const {
  const auto& [spec, regex] = steps_[index];
  std::string text = replace_all(piece.text, " ", spec.replacement);
  const bool wanted = spec.prepend_scheme == PrependScheme::kAlways ||
                      (spec.prepend_scheme == PrependScheme::kFirst && piece.at_start);
  if (wanted && piece.may_prefix && !text.starts_with(spec.replacement)) {
    text.insert(0, spec.replacement);
  }
  if (!spec.split) return apply(index + 1, {text, piece.at_start}, sink);
  for (const Stretch& s :
       arrange(stretches_of(*regex, text, false), SplitBehavior::kMergedWithNext)) {
    apply(index + 1,
          {std::string_view(text).substr(s.begin, s.end - s.begin), piece.at_start && s.begin == 0},
          sink);
  }
}

}  // namespace binade::data
