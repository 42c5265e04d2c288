// Options of programs that read labelled lists of documents.
#pragma once

#include <binade/data/letor.h>
#include <binade/data/ranking_csv.h>
#include <binade/heads/rank/metrics.h>

#include <string>
#include <vector>

#include "common.h"

namespace binade::examples {

// The conventions as --help lists them; where documents have no names, those that need none.
inline std::string convention_help(bool named) {
  using heads::rank::Convention;
  std::string names;
  for (const std::string& name : Convention::preset_names())
    if (named || !Convention::preset(name).needs_names())
      names += (names.empty() ? "" : ", ") + name;
  return names + ": what a program does, or what lists without relevant documents count";
}

// How lines of LETOR are understood.
struct LineOptions {
  std::string first_feature = "detect", missing = "refuse", out_of_range = "refuse";
  int threads = 0;
};

struct ListOptions : LineOptions {
  std::vector<std::string> data, groups, ignored;
  std::string label, query;
  bool group_by_qid = false;
  int64_t features = 0;
};

inline constexpr int64_t kMostFeatures = int64_t{1} << 24;

inline void add_line_options(const OptionGroup& lists, LineOptions& o) {
  lists
      .add("--first-feature", o.first_feature,
           "Number of the first feature: detect (a saved ranker's, or 0 if it is there), 0 or 1")
      .one_of({"detect", "0", "1"});
  lists.add("--missing", o.missing, "What NULL and nan become: refuse, zero or query-min")
      .one_of({"refuse", "zero", "query-min"});
  lists
      .add("--out-of-range", o.out_of_range,
           "What values beyond f32 become: refuse, missing or clamp")
      .one_of({"refuse", "missing", "clamp"});
  lists.add("--threads", o.threads, "Threads that read; 0: as many as the machine runs at once")
      .range(0, 1024);
}

inline void add_list_options(CommandLine& command, ListOptions& o) {
  o.label = "0";
  const OptionGroup lists{command, "Lists"};
  lists
      .add("--data", o.data,
           "LETOR / SVMlight files, read as one set; .csv and .tsv files are tables")
      .required();
  lists.add("--group-by-qid", o.group_by_qid,
            "Bring lines of a query together that are apart in the files");
  lists.add("--groups", o.groups,
            "Files with the number of documents of every query, for lines without qid; one for "
            "each file of --data (default: FILE.query or FILE.group)");
  lists.add("--features", o.features, "Number of features; 0: as the lines say")
      .range(int64_t{0}, kMostFeatures);
  lists.add("--label-column", o.label, "Of tables: the labels' column, by name or number from 0");
  lists.add("--query-column", o.query, "Of tables: the query ids' column");
  lists.add("--ignored-columns", o.ignored, "Of tables: columns that are no features");
  add_line_options(lists, o);
}

inline data::LetorOptions line_options(const LineOptions& o) {
  using data::LetorOptions;
  LetorOptions options;
  options.threads = o.threads;
  if (o.first_feature != "detect")
    options.first_index =
        o.first_feature == "0" ? LetorOptions::FirstIndex::zero : LetorOptions::FirstIndex::one;
  if (o.missing != "refuse")
    options.missing =
        o.missing == "zero" ? LetorOptions::Missing::zero : LetorOptions::Missing::query_min;
  if (o.out_of_range != "refuse")
    options.out_of_range = o.out_of_range == "clamp" ? LetorOptions::OutOfRange::clamp
                                                     : LetorOptions::OutOfRange::missing;
  return options;
}

// Reads the lists; comments are kept where asked for.
inline data::RankingSet read_lists(const ListOptions& o, bool comments = false) {
  data::LetorOptions options = line_options(o);
  options.group_by_qid = o.group_by_qid;
  options.features = o.features;
  options.comments = comments;
  options.group_files = {o.groups.begin(), o.groups.end()};
  const std::vector<std::filesystem::path> files(o.data.begin(), o.data.end());
  const auto is_table = [](const std::filesystem::path& file) {
    return file.extension() == ".csv" || file.extension() == ".tsv";
  };
  const auto tables = std::count_if(files.begin(), files.end(), is_table);
  check(tables == 0 || tables == static_cast<int64_t>(files.size()),
        "--data mixes tables (.csv, .tsv) and lines of LETOR; give one kind");
  if (tables == 0) return data::read_letor(files, options);
  data::RankingCsv csv;
  csv.label = o.label;
  csv.query = o.query;
  csv.ignored = o.ignored;
  return data::read_ranking_csv(files, csv, options);
}

// The files that read_lists() reads.
inline std::vector<std::filesystem::path> list_files(const ListOptions& o) {
  std::vector<std::filesystem::path> files(o.data.begin(), o.data.end());
  files.insert(files.end(), o.groups.begin(), o.groups.end());
  return files;
}

// A feature of every document (N), by its number in the files; Error for one that is not there.
inline std::vector<double> feature_scores(const data::RankingSet& set, int64_t feature) {
  const int64_t column = feature - set.first_index, width = set.feature_count();
  check(column >= 0 && column < width, "there is no feature ", feature, ", only ", set.first_index,
        " to ", width + set.first_index - 1);
  std::vector<double> scores;
  for (int64_t row = 0; row < set.documents(); ++row)
    scores.push_back(set.feature_span()[static_cast<size_t>(row * width + column)]);
  return scores;
}

}  // namespace binade::examples
