#include "report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include <binade/core/file.h>
#include <binade/core/text.h>

namespace binade::examples {
namespace {

using heads::rank::Evaluation;
using Json = nlohmann::ordered_json;

Json number(double value) {  // JSON has no NaN
  return std::isnan(value) ? Json() : Json(value);
}

// A field of CSV, in quotes where it needs them.
std::string field(std::string_view text) {
  if (text.find_first_of(",\"\n") == std::string_view::npos) return std::string(text);
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

}  // namespace

std::string result_lines(const RankingResult& result) {
  const Evaluation& e = result.scores;
  std::string text = fmt::format(
      "{:<8} {:.4f}  ties {:.4f} to {:.4f}  {}: {} ({} of {} lists, {} without relevant "
      "documents)\n",
      e.metric.name(), e.mean, result.bounds.worst, result.bounds.best, e.convention.name,
      e.convention.describe(e.metric), e.lists, e.each.size(), e.empty);
  if (result.test) {
    const heads::rank::PairedTest& t = *result.test;
    text += fmt::format(
        "{:<8} {:.4f}  baseline; difference {:+.4f}, p = {:.4g} ({} {} sign patterns)\n", "",
        result.baseline->mean, t.mean_difference, t.p_value, t.exact ? "all" : "random,", t.rounds);
  }
  return text;
}

std::string result_json(const RankingResult& result) {
  const Evaluation& e = result.scores;
  Json json = {{"metric", e.metric.name()},
               {"value", number(e.mean)},
               {"worst_ties", number(result.bounds.worst)},
               {"best_ties", number(result.bounds.best)},
               {"convention", e.convention.name},
               {"rules", e.convention.describe(e.metric)},
               {"lists", e.lists},
               {"empty", e.empty}};
  if (result.test) {
    json["baseline"] = number(result.baseline->mean);
    json["difference"] = number(result.test->mean_difference);
    json["p_value"] = number(result.test->p_value);
    json["sign_patterns"] = result.test->rounds;
    json["exact"] = result.test->exact;
  }
  return json.dump() + '\n';
}

void write_per_query(const std::filesystem::path& path, const data::RankingSet& set,
                     const std::vector<RankingResult>& results) {
  std::string text = "query,documents";
  const auto each_column = [&](const auto& work) {
    for (const RankingResult& result : results) {
      work(result.scores, "");
      if (result.baseline) work(*result.baseline, " baseline");
    }
  };
  each_column([&](const Evaluation& e, const char* of) {
    text += fmt::format(",{} {}{}", e.metric.name(), e.convention.name, of);
  });
  text += '\n';
  const auto offsets = set.offset_span();
  for (int64_t q = 0; q < set.queries(); ++q) {
    text += fmt::format("{},{}", field(set.query_ids[q]), offsets[q + 1] - offsets[q]);
    each_column([&](const Evaluation& e, const char*) {
      const double value = e.each[static_cast<size_t>(q)];
      text += ',';
      if (!std::isnan(value)) text += exact_number(value);
    });
    text += '\n';
  }
  write_text_file(path, text);
}

}  // namespace binade::examples
