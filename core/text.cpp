#include <binade/core/text.h>

#include <algorithm>
#include <charconv>
#include <iomanip>
#include <locale>
#include <numeric>

#include <binade/core/error.h>
#include <binade/core/utf8.h>

namespace binade {

void check_json_text(std::string_view text, std::string_view source) {
  constexpr int kDeepest = 64;
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    check(c != '\0', source, ": not valid JSON: there is a NUL at byte ", i);
    if (quoted && c == '\\') {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == '[' || c == '{')) {
      check(++depth <= kDeepest, source, ": the JSON nests more than ", kDeepest,
            " levels deep at byte ", i);
    } else if (!quoted && (c == ']' || c == '}')) {
      --depth;
    }
  }
}

std::string valid_utf8(std::string_view text) {
  constexpr const char* kHex = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  while (true) {
    const size_t valid = utf8_valid_prefix(text);
    out.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return out;
    for (int left = utf8_step(text).length; left > 0; --left, text.remove_prefix(1)) {
      const auto byte = static_cast<unsigned char>(text[0]);
      out.append({'\\', 'x', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
}

std::string xml_text(std::string_view text) {
  const std::string valid = valid_utf8(text);
  std::string out;
  for (size_t pos = 0; pos < valid.size();) {
    const size_t begin = pos;
    const char32_t c = utf8_next(valid, pos);
    const bool space = c == '\t' || c == '\n' || c == '\r';
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if ((c < ' ' && !space) || c == 0xFFFE || c == 0xFFFF)
      out += kReplacementCharacter;
    else
      out.append(valid, begin, pos - begin);
  }
  return out;
}

TextStream::TextStream() {
  imbue(std::locale::classic());
}

std::string exact_number(double value) {
  char text[32];  // the longest is "-2.2250738585072014e-308"
  const auto [end, error] = std::to_chars(std::begin(text), std::end(text), value);
  return {text, end};
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [read_until, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || read_until != end) return std::nullopt;
  return value;
}

std::string gib(int64_t bytes) {
  TextStream text;
  text << std::fixed << std::setprecision(2) << static_cast<double>(bytes) / (1 << 30) << " GiB";
  return std::move(text).str();
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string* nearest = nullptr;
  int distance = static_cast<int>(word.size()) / 2 + 1;
  for (const std::string& candidate : candidates) {
    const auto longer = std::max(word.size(), candidate.size());
    if (longer - std::min(word.size(), candidate.size()) >= static_cast<size_t>(distance)) continue;
    const int d = edit_distance(word, candidate);
    if (d < distance) {
      distance = d;
      nearest = &candidate;
    }
  }
  return nearest ? "; did you mean " + *nearest + "?" : "";
}

}  // namespace binade
