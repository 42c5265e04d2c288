#include <binade/data/letor_lines.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

namespace binade::data::letor {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kLargestFloat = std::numeric_limits<float>::max();

// Powers of ten that are exact in f64.
constexpr auto kPowers = [] {
  std::array<double, 23> powers{};
  double power = 1;
  for (double& p : powers) {
    p = power;
    power *= 10;
  }
  return powers;
}();

// Reads on from `at` to the '\n' that ends every line, so that no loop needs another bound.
class LineParser {
 public:
  LineParser(std::string_view lines, int64_t first_line, const Layout& layout,
             const LetorOptions& options, float* features, float* labels, Block& block)
      : at_(lines.data()),
        end_(lines.data() + lines.size()),
        line_(first_line),
        layout_(layout),
        options_(options),
        features_(features),
        labels_(labels),
        block_(block),
        delimiter_(layout.csv ? layout.csv->delimiter : '#') {}

  void run() {
    for (; at_ < end_; ++line_, ++at_) {
      begin_ = at_;
      skip_blanks();
      if (at_end()) continue;
      if (*at_ == '#') {
        at_ = newline();
        continue;
      }
      if (layout_.csv)
        csv_row(*layout_.csv);
      else
        document();
    }
  }

 private:
  void document() {
    *labels_++ = label();
    skip_blanks();
    if (layout_.query_ids) query();
    features();
    if (*at_ == '#') {
      const char* newline_at = newline();
      if (options_.comments) block_.comments.push_back(trimmed(at_ + 1, newline_at));
      at_ = newline_at;
    } else if (options_.comments) {
      block_.comments.emplace_back();
    }
    features_ += layout_.width;
    ++block_.rows;
  }

  float label() {
    const char* begin = at_;
    const double value = number(begin);
    if (!(value >= 0 && value <= options_.largest_label)) {
      if (std::isnan(value)) refuse(begin, "expected a label, a number from 0");
      refuse(begin, value < 0 ? concat("expected a label from 0")
                              : concat("expected a label of at most ", options_.largest_label));
    }
    return static_cast<float>(value + 0.0);  // -0 is 0
  }

  void query() {
    const char* begin = at_;
    if (std::strncmp(at_, "qid:", 4) != 0) refuse(begin, "expected qid:ID");
    const char* id_begin = at_ += 4;
    while (!at_token_end()) ++at_;
    if (at_ == id_begin) refuse(begin, "expected a query id behind qid:");
    add_to_query(begin, {id_begin, static_cast<size_t>(at_ - id_begin)});
    skip_blanks();
  }

  void add_to_query(const char* begin, std::string_view id) {
    if (id.empty()) refuse(begin, "expected a query id");
    if (block_.runs.empty() || block_.runs.back().id != id) block_.runs.push_back({id, line_, 0});
    ++block_.runs.back().rows;
  }

  void features() {
    const int64_t width = layout_.width;
    float* row = features_;
    if (width > 0) std::memset(row, 0, static_cast<size_t>(width) * sizeof(float));
    int64_t before = -1;
    double largest = block_.largest;
    while (!at_end() && *at_ != '#') {
      const char* begin = at_;
      uint64_t digits = 0;  // may wrap around, which their number tells
      while (is_digit(*at_)) digits = digits * 10 + static_cast<uint64_t>(*at_++ - '0');
      const auto index = static_cast<int64_t>(digits);
      if (at_ == begin || at_ - begin > 10 || *at_ != ':') refuse_feature(begin);
      if (index <= before)
        refuse(begin,
               concat("expected a feature index larger than ", before, ", the one before it"));
      const int64_t column = index - layout_.first_index;
      const bool outside = column < 0 || column >= width;
      if (outside) check_index(begin, index);
      if (before < 0) block_.smallest_index = std::min(block_.smallest_index, index);
      before = index;
      ++at_;
      const char* value_begin = at_;
      const float value = feature_value(value_begin);
      skip_blanks();
      if (outside) continue;
      row[column] = value;
      largest = std::max(largest, static_cast<double>(std::fabs(value)));
    }
    block_.largest = largest;
    block_.largest_index = std::max(block_.largest_index, before);
  }

  // ---- CSV: a field a column; quotes around a field mean nothing
  void csv_row(const CsvColumns& csv) {
    at_ = begin_;  // where the delimiter is a tab, a blank is an empty field
    const size_t columns = csv.roles.size();
    for (size_t c = 0; c < columns; ++c) {
      skip_csv_blanks();
      const char* begin = at_;
      const bool quoted = *at_ == '"';
      if (quoted) ++at_;
      csv_field(csv.roles[c]);
      if (quoted && *at_ == '"') ++at_;
      skip_csv_blanks();
      if (c + 1 == columns) {
        if (!at_end()) refuse(at_, concat("expected the end of a line of ", columns, " fields"));
      } else if (*at_++ != delimiter_) {
        --at_;
        if (at_end()) refuse(at_, concat("expected ", columns, " fields, as the first line has"));
        refuse(begin, "expected a number");
      }
    }
    block_.smallest_index = 0;
    block_.largest_index = layout_.width - 1;
    features_ += layout_.width;
    ++labels_;
    ++block_.rows;
  }

  void csv_field(int64_t role) {
    if (role == CsvColumns::kLabel) {
      *labels_ = label();
    } else if (role >= 0) {
      const float value = feature_value(at_);
      features_[role] = value;
      block_.largest = std::max(block_.largest, static_cast<double>(std::fabs(value)));
    } else {
      const char* begin = at_;
      while (!at_token_end() || *at_ == ' ') ++at_;
      if (role == CsvColumns::kQuery) add_to_query(begin, trimmed(begin, at_));
    }
  }

  void skip_csv_blanks() {
    while (*at_ == ' ' || (*at_ == '\t' && delimiter_ != '\t')) ++at_;
  }

  float feature_value(const char* begin) {
    const double value = number(begin);
    if (!(std::fabs(value) <= kLargestFloat)) [[unlikely]]
      return unusual(begin, value);
    return static_cast<float>(value);
  }

  // The number that starts here and ends with its token; NaN for what is missing or no number.
  // Numbers of up to 2^53 with at most 22 decimals are exact operands of one exact division
  // (Clinger, "How to read floating point numbers accurately", PLDI 1990).
  double number(const char* begin) {
    at_ = begin;
    const bool negative = *at_ == '-';
    if (negative || *at_ == '+') ++at_;
    const char* digits = at_;
    uint64_t mantissa = 0;
    while (is_digit(*at_)) mantissa = mantissa * 10 + static_cast<uint64_t>(*at_++ - '0');
    int64_t count = at_ - digits, decimals = 0;
    if (*at_ == '.') {
      const char* point = at_++;
      while (is_digit(*at_)) mantissa = mantissa * 10 + static_cast<uint64_t>(*at_++ - '0');
      decimals = at_ - point - 1;
      count += decimals;
    }
    if (count == 0 || count > 18 || mantissa > (uint64_t{1} << 53) || !at_token_end()) [[unlikely]]
      return any_number(begin);
    const double value = static_cast<double>(mantissa) / kPowers[static_cast<size_t>(decimals)];
    return negative ? -value : value;
  }

  // Exponents, many digits, inf, nan.
  double any_number(const char* begin) {
    at_ = begin;
    while (!at_token_end()) ++at_;
    if (*begin == '+' && begin[1] != '-') ++begin;
    double value = 0;
    const auto [read_until, error] = std::from_chars(begin, at_, value);
    if (begin == at_ || read_until != at_ || error == std::errc::invalid_argument) return kNaN;
    if (error == std::errc::result_out_of_range) {
      // Too close to 0, or too far from it.
      const char* exponent = std::find_if(begin, at_, [](char c) { return c == 'e' || c == 'E'; });
      const char first = *begin == '-' ? begin[1] : *begin;
      const bool tiny = exponent == at_ ? first == '0' || first == '.' : exponent[1] == '-';
      if (tiny) return 0;
      return *begin == '-' ? -HUGE_VAL : HUGE_VAL;
    }
    return value;
  }

  // What is no number of f32: missing, or out of its range.
  float unusual(const char* begin, double value) {
    const std::string_view token(begin, static_cast<size_t>(at_ - begin));
    bool missing = false;
    if (std::isnan(value)) {
      constexpr std::string_view kNames[] = {"NULL", "Null", "null", "NaN", "NAN", "nan", "-nan"};
      missing = std::find(std::begin(kNames), std::end(kNames), token) != std::end(kNames) ||
                (layout_.csv && (token.empty() || token == "NA"));
      if (!missing) refuse(begin, "expected a value, a number");
    } else {
      const auto nearest = static_cast<float>(std::copysign(kLargestFloat, value));
      const float rounded = static_cast<float>(value);
      if (std::isfinite(rounded)) return rounded;
      ++block_.out_of_range;
      using OutOfRange = LetorOptions::OutOfRange;
      if (options_.out_of_range == OutOfRange::refuse)
        refuse(begin, "expected a value within f32; out_of_range says what else to do with it");
      if (options_.out_of_range == OutOfRange::clamp) return nearest;
    }
    if (options_.missing == LetorOptions::Missing::refuse)
      refuse(begin, "expected a value; missing says what else to do with it");
    ++block_.missing;
    return kNaN;
  }

  void check_index(const char* begin, int64_t index) {
    const int64_t column = index - layout_.first_index;
    if (column < 0 && layout_.first_index_known) refuse(begin, "expected a feature index from 1");
    if (column >= layout_.width && layout_.width_known)
      refuse(begin, concat("expected a feature index of at most ",
                           layout_.width + layout_.first_index - 1));
  }

  void skip_blanks() {
    while (*at_ == ' ' || *at_ == '\t') ++at_;
  }
  // At the '\n' of the line, where "\r\n" counts as one.
  bool at_end() {
    if (*at_ == '\r' && at_[1] == '\n') ++at_;
    return *at_ == '\n';
  }
  bool at_token_end() const {
    return static_cast<unsigned char>(*at_) <= ' ' || *at_ == delimiter_ ||
           (*at_ == '"' && layout_.csv);
  }
  const char* newline() const {
    return static_cast<const char*>(std::memchr(at_, '\n', static_cast<size_t>(end_ - at_)));
  }
  static std::string_view trimmed(const char* begin, const char* end) {
    const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
    while (begin < end && blank(*begin)) ++begin;
    while (begin < end && blank(end[-1])) --end;
    return {begin, static_cast<size_t>(end - begin)};
  }

  [[noreturn]] void refuse_feature(const char* begin) {
    if (std::strncmp(begin, "qid:", 4) == 0)
      refuse(begin, "expected index:value, as the lists' lengths come from a group file");
    refuse(begin, "expected a feature, index:value");
  }
  [[noreturn]] void refuse(const char* begin, const std::string& expected) {
    const char* end = begin;
    while (end - begin < 40 && *end != ' ' && *end != '\t' && *end != '\r' && *end != '\n') ++end;
    const std::string found =
        end == begin ? std::string("nothing") : '"' + std::string(begin, end) + '"';
    throw Problem{line_, begin - begin_ + 1, concat(expected, ", found ", found)};
  }

  const char* at_;
  const char* end_;
  const char* begin_ = nullptr;  // of the line
  int64_t line_;
  const Layout& layout_;
  const LetorOptions& options_;
  float* features_;
  float* labels_;
  Block& block_;
  char delimiter_;  // what ends a number besides blanks
};

}  // namespace

Block parse_lines(std::string_view lines, int64_t first_line, const Layout& layout,
                  const LetorOptions& options, float* features, float* labels) {
  Block block;
  try {
    LineParser(lines, first_line, layout, options, features, labels, block).run();
  } catch (Problem& problem) {
    block.problem = std::move(problem);
  }
  return block;
}

bool has_query_ids(std::string_view text) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const size_t label = line.find_first_not_of(" \t\r");
    if (label == std::string_view::npos || line[label] == '#') continue;
    const size_t label_end = line.find_first_of(" \t\r", label);
    if (label_end == std::string_view::npos) return false;
    const size_t second = line.find_first_not_of(" \t\r", label_end);
    return second != std::string_view::npos && line.substr(second).starts_with("qid:");
  }
  return true;
}

}  // namespace binade::data::letor
