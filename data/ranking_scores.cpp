#include <binade/data/ranking_scores.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include <binade/core/file.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>

namespace binade::data {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

// The numbers of a file, one a line, which are `what` ("score"); `judge` says what is wrong with
// one
// ("" if nothing is).
template <class Judge>
std::vector<double> read_numbers(const std::filesystem::path& path, const char* what,
                                 const Judge& judge) {
  const std::string name = path.string();
  const MappedFile file(path);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());
  std::vector<double> numbers;
  for (int64_t line = 1; !rest.empty(); ++line) {
    std::string_view word = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    while (!word.empty() && is_blank(word.front())) word.remove_prefix(1);
    while (!word.empty() && is_blank(word.back())) word.remove_suffix(1);
    if (word.empty() && rest.find_first_not_of(" \t\r\n") == std::string_view::npos) break;
    const auto number = parse_number(word.starts_with('+') ? word.substr(1) : word);
    check(number && !std::isnan(*number), name, ':', line, ": expected a ", what, ", found \"",
          word.substr(0, 40), '"');
    const std::string problem = judge(*number);
    check(problem.empty(), name, ':', line, ": ", problem);
    numbers.push_back(*number);
  }
  return numbers;
}

std::string weight_problem(double weight) {
  if (weight >= 0 && std::isfinite(static_cast<float>(weight))) return {};
  return concat("a weight is 0 or more and finite, got ", exact_number(weight));
}

// Lines of documents in the order of the set, whose files have so many documents (0: as the set).
std::vector<double> in_order_of(const RankingSet& set, std::vector<double> lines,
                                const std::string& name, const char* what, int64_t documents) {
  if (documents == 0) documents = set.documents();
  check(static_cast<int64_t>(lines.size()) == documents, name, " has ", lines.size(), ' ', what,
        ", but there are ", documents, " documents");
  if (!set.file_rows.defined()) return lines;
  std::vector<double> ordered;
  for (const int64_t row : set.file_rows.to_vector<int64_t>()) {
    check(row < documents, "the set has document ", row, " (from 0) of its files, ", name, " has ",
          what, " for ", documents);
    ordered.push_back(lines[static_cast<size_t>(row)]);
  }
  return ordered;
}

Array floats_of(const std::vector<double>& numbers) {
  return Array::from(std::vector<float>(numbers.begin(), numbers.end()),
                     {static_cast<int64_t>(numbers.size())});
}

}  // namespace

std::vector<double> read_scores(const std::filesystem::path& path, const RankingSet& set,
                                int64_t documents) {
  return in_order_of(set, read_numbers(path, "score", [](double) { return std::string(); }),
                     path.string(), "scores", documents);
}

Array read_weights(const std::filesystem::path& path, const RankingSet& set) {
  return floats_of(
      in_order_of(set, read_numbers(path, "weight", weight_problem), path.string(), "weights", 0));
}

Array read_list_weights(const std::filesystem::path& path, const RankingSet& set) {
  const std::vector<double> weights = read_numbers(path, "weight", weight_problem);
  check(static_cast<int64_t>(weights.size()) == set.queries(), path.string(), " has ",
        weights.size(), " weights, but there are ", set.queries(), " lists");
  check(std::any_of(weights.begin(), weights.end(), [](double w) { return w > 0; }), path.string(),
        ": all weights are 0");
  return floats_of(weights);
}

void write_scores(const std::filesystem::path& path, const RankingSet& set,
                  std::span<const double> scores) {
  check(static_cast<int64_t>(scores.size()) == set.documents(), "there are ", scores.size(),
        " scores for ", set.documents(), " documents");
  std::vector<double> lines(scores.begin(), scores.end());
  if (set.file_rows.defined()) {
    const auto rows = set.file_rows.to_vector<int64_t>();
    std::vector<bool> seen(lines.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto row = static_cast<size_t>(rows[i]);
      check(row < lines.size() && !seen[row], "scores of a part of the files cannot be written in ",
            "their order: document ", row, " (from 0) ",
            row < lines.size() ? "is there twice" : "is not of the part");
      seen[row] = true;
      lines[row] = scores[i];
    }
  }
  std::string text;
  for (const double score : lines) text += exact_number(score) + '\n';
  write_text_file(path, text);
}

}  // namespace binade::data
