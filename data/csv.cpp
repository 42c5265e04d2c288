#include <binade/data/csv.h>

#include <cmath>
#include <limits>

#include <binade/core/file.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>
#include <binade/data/csv_fields.h>

namespace binade::data {
namespace {

bool is_missing(const std::string& field) {
  return field.empty() || field == "NA";
}

// Whether the fields of a first line are names: none of them could be a value.
bool are_names(const std::vector<std::string>& fields) {
  return std::none_of(fields.begin(), fields.end(), [](const std::string& field) {
    return is_missing(field) || parse_number(field);
  });
}

}  // namespace

CsvTable read_csv(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  std::string_view rest = text;
  if (rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());

  CsvTable table;
  std::vector<float> values;
  char delimiter = '\0';
  size_t columns = 0;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const auto where = [&] { return concat(path.string(), ':', number, ": "); };

    if (unquoted(line).empty() && line.find(delimiter) == std::string_view::npos) continue;
    if (columns == 0) delimiter = delimiter_of(line);
    const std::vector<std::string> fields = fields_of(line, delimiter);
    if (columns == 0) {
      columns = fields.size();
      if (are_names(fields)) {
        table.names = fields;
        continue;
      }
    }
    check(fields.size() == columns, where(), "expected ", columns, " fields, found ",
          fields.size());
    for (const std::string& field : fields) {
      const auto value =
          is_missing(field) ? std::numeric_limits<double>::quiet_NaN() : parse_number(field);
      check(value.has_value(), where(), "\"", field, "\" is no number");
      const auto narrow = static_cast<float>(*value);
      check(std::isfinite(narrow) || !std::isfinite(*value), where(), field, " is beyond f32");
      values.push_back(narrow);
    }
  }
  check(!values.empty(), path.string(), " has no rows of numbers");
  const auto width = static_cast<int64_t>(columns);
  table.values = Array::from(values, {static_cast<int64_t>(values.size()) / width, width});
  return table;
}

}  // namespace binade::data
