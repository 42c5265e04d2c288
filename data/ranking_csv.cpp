#include <binade/data/ranking_csv.h>

#include <algorithm>
#include <map>
#include <optional>

#include <binade/core/file.h>
#include <binade/core/utf8.h>
#include <binade/data/csv_fields.h>
#include <binade/data/ranking_reader.h>

namespace binade::data {
namespace {

// A file and its first line.
struct Table {
  letor::Source source;
  std::vector<std::string> fields;
  bool names = false;  // whether they name the columns
};

// Cuts a header off.
Table open_table(const std::string& name, std::string_view text, const RankingCsv& csv,
                 char& delimiter) {
  Table table = {{name, text}, {}, false};
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  std::string_view line;
  int64_t lines = 0;
  while (!text.empty() && unquoted(line).empty()) {
    line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++lines;
  }
  check(!unquoted(line).empty(), name, " has no documents");
  if (delimiter == '\0') delimiter = delimiter_of(line);
  check(delimiter != '\0', name, ':', lines,
        ": expected fields with tabs, commas or semicolons between");
  table.fields = fields_of(line, delimiter);
  const bool words = std::none_of(table.fields.begin(), table.fields.end(), [](const auto& field) {
    return field.empty() || field == "NA" || parse_number(field);
  });
  table.names =
      csv.header == RankingCsv::Header::yes || (csv.header == RankingCsv::Header::detect && words);
  if (table.names) {
    table.source.text = text;
    table.source.first_line = lines + 1;
  }
  return table;
}

size_t column_of(const Table& table, const std::string& wanted) {
  if (table.names) {
    const auto found = std::find(table.fields.begin(), table.fields.end(), wanted);
    if (found != table.fields.end()) return static_cast<size_t>(found - table.fields.begin());
  }
  const auto number = parse_number(wanted);
  const auto count = static_cast<double>(table.fields.size());
  if (number && *number >= 0 && *number < count)
    for (size_t c = 0; c < table.fields.size(); ++c)
      if (static_cast<double>(c) == *number) return c;
  fail(table.source.name, " has no column \"", wanted, "\"",
       table.names ? did_you_mean(wanted, table.fields)
                   : concat("; its columns have no names and are 0 to ", table.fields.size() - 1));
}

letor::CsvColumns columns_of(const Table& table, const RankingCsv& csv, char delimiter) {
  using letor::CsvColumns;
  CsvColumns columns = {delimiter, {}};
  std::map<size_t, int64_t> special;
  const auto add = [&](const std::string& wanted, int64_t role) {
    const bool fresh = special.emplace(column_of(table, wanted), role).second;
    check(fresh, table.source.name, ": column \"", wanted, "\" is given two meanings");
  };
  add(csv.label, CsvColumns::kLabel);
  if (!csv.query.empty()) add(csv.query, CsvColumns::kQuery);
  for (const std::string& ignored : csv.ignored) add(ignored, CsvColumns::kIgnored);
  int64_t features = 0;
  for (size_t c = 0; c < table.fields.size(); ++c) {
    const auto found = special.find(c);
    columns.roles.push_back(found == special.end() ? features++ : found->second);
  }
  return columns;
}

}  // namespace

RankingSet read_ranking_csv(const std::vector<std::filesystem::path>& files, const RankingCsv& csv,
                            const LetorOptions& options) {
  check(!files.empty(), "there is no table of ranked lists to read");
  std::vector<MappedFile> mapped;
  std::vector<Table> tables;
  std::vector<letor::Source> sources;
  char delimiter = csv.delimiter;
  for (const auto& file : files) {
    const auto bytes = mapped.emplace_back(file).bytes();
    tables.push_back(open_table(file.string(),
                                {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, csv,
                                delimiter));
    const Table &first = tables.front(), &table = tables.back();
    check(table.names == first.names && table.fields.size() == first.fields.size() &&
              (!table.names || table.fields == first.fields),
          table.source.name, " has other columns than ", first.source.name);
    sources.push_back(table.source);
  }
  const letor::CsvColumns columns = columns_of(tables.front(), csv, delimiter);
  return letor::read_sources(std::move(sources), options, &columns);
}

}  // namespace binade::data
