#include <binade/data/ranking_scores.h>

#include <cmath>
#include <string_view>

#include <binade/core/file.h>

namespace binade::data {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

}  // namespace

std::vector<double> read_scores(const std::filesystem::path& path, const RankingSet& set,
                                int64_t documents) {
  const std::string name = path.string();
  const MappedFile file(path);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  std::vector<double> lines;
  for (int64_t line = 1; !rest.empty(); ++line) {
    std::string_view word = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    while (!word.empty() && is_blank(word.front())) word.remove_prefix(1);
    while (!word.empty() && is_blank(word.back())) word.remove_suffix(1);
    if (word.empty() && rest.find_first_not_of(" \t\r\n") == std::string_view::npos) break;
    const auto score = parse_number(word.starts_with('+') ? word.substr(1) : word);
    check(score && !std::isnan(*score), name, ':', line, ": expected a score, found \"",
          word.substr(0, 40), '"');
    lines.push_back(*score);
  }
  if (documents == 0) documents = set.documents();
  check(static_cast<int64_t>(lines.size()) == documents, name, " has ", lines.size(),
        " scores, but there are ", documents, " documents");
  if (!set.file_rows.defined()) return lines;
  std::vector<double> scores;
  for (const int64_t row : set.file_rows.to_vector<int64_t>()) {
    check(row < documents, "the set has document ", row, " (from 0) of its files, ", name,
          " has scores for ", documents);
    scores.push_back(lines[static_cast<size_t>(row)]);
  }
  return scores;
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
