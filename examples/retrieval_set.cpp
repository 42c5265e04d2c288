// Makes a small set for learning to rank from the C and C++ headers of this machine: a query is the
// words of the comment in front of a declaration, the candidates are declarations, and the grade
// falls from the declaration itself (3) to those of its file (2), of its folder (1) and of
// elsewhere (0).
//
//   retrieval_set --output set/              then: train_ranker --fold set
//
// The folder gets train.txt, vali.txt and test.txt in lines of LETOR, bm25.txt with the scores of
// BM25 alone for test.txt, queries.txt and features.txt. One seed and the same headers give the
// same files.
#include <fmt/format.h>

#include <binade/core/text.h>

#include "common.h"
#include "retrieval_set/corpus.h"
#include "retrieval_set/lists.h"

using namespace binade;
using namespace binade::examples;

namespace {

struct Options {
  std::string headers = "/usr/include", output;
  int64_t queries = 1500, words = 12;
  CandidateOptions candidates;
  double valid_share = 0.2, test_share = 0.2;
  int threads = 0;
};

void add_options(CLI::App& app, Options& o) {
  prepare(app);
  const OptionGroup data{app, "Data"};
  data.add("--headers", o.headers, "Folder with .h, .hh and .hpp files, and folders of them");
  data.add("--output", o.output, "Folder for the files")->required();
  data.add("--queries", o.queries, "How many, at most")->check(CLI::Range(3, 1'000'000));
  data.add("--words", o.words, "Words of a query, at most")->check(CLI::Range(3, 1000));
  data.add("--valid-share", o.valid_share, "Share of the queries in vali.txt")->check(fraction());
  data.add("--test-share", o.test_share, "Share of the queries in test.txt")->check(fraction());
  data.add("--seed", o.candidates.seed, "Of which queries and candidates");
  data.add("--threads", o.threads, "Threads that read; 0: as many as the machine runs at once")
      ->check(CLI::Range(0, 1024));
  const OptionGroup lists{app, "Candidates of a query, besides the answer"};
  const auto count = CLI::Range(0, 10'000);
  lists.add("--retrieved", o.candidates.retrieved, "The best by BM25")->check(count);
  lists.add("--same-file", o.candidates.same_file, "Drawn from the answer's file")->check(count);
  lists.add("--same-folder", o.candidates.same_folder, "Drawn from the other files of its folder")
      ->check(count);
  lists.add("--elsewhere", o.candidates.elsewhere, "Drawn from all headers")->check(count);
}

// Where a declaration stands, as one word: paths may have any bytes.
std::string place(const Corpus& corpus, int64_t entry) {
  const Corpus::Entry& e = corpus.entries[entry];
  std::string path = one_line(corpus.files[e.file].path);
  std::replace(path.begin(), path.end(), ' ', '_');
  return fmt::format("{}:{}", path, e.declaration.line);
}

// The lines of a query's candidates; their BM25 is added to `scores`, a line each.
std::string lines_of(const Corpus& corpus, const Query& query, int64_t id,
                     const CandidateOptions& options, std::string& scores) {
  std::string lines;
  for (const int64_t entry : candidates(corpus, query, options)) {
    lines += fmt::format("{} qid:{}", grade(corpus, query, entry), id);
    for (size_t f = 0; f < features().size(); ++f)
      lines += fmt::format(" {}:{:.6g}", f + 1, features()[f].value(corpus, query, entry));
    lines += fmt::format(" # docid = {} {}\n", place(corpus, entry),
                         corpus.entries[entry].declaration.name);
    scores += exact_number(features()[0].value(corpus, query, entry)) + '\n';
  }
  return lines;
}

void retrieval_set(const Options& o) {
  check(o.valid_share + o.test_share < 1,
        "--valid-share and --test-share leave nothing to train on");
  const Corpus corpus = read_corpus(o.headers, o.threads);
  const std::vector<Query> queries = choose_queries(corpus, o.queries, o.words, o.candidates.seed);
  const auto count = static_cast<int64_t>(queries.size());
  const auto share = [&](double part) { return std::llround(part * static_cast<double>(count)); };
  const int64_t test = share(o.test_share), valid = share(o.valid_share);
  check(count - test - valid > 0, "only ", count, " comments under ", o.headers,
        " are of use as queries; that is not enough");

  // Queries are in a drawn order, so parts are cut from it.
  struct Part {
    const char* name;
    int64_t begin, end;
  };
  const Part parts[] = {
      {"train", test + valid, count}, {"vali", test, test + valid}, {"test", 0, test}};
  create_folder(o.output);
  const std::filesystem::path folder = o.output;
  std::string query_lines, feature_lines;
  for (const Part& part : parts) {
    std::string lines, scores;
    for (int64_t q = part.begin; q < part.end; ++q) {
      lines += lines_of(corpus, queries[q], q + 1, o.candidates, scores);
      query_lines +=
          fmt::format("{} {} {}: {}\n", q + 1, part.name, place(corpus, queries[q].answer),
                      fmt::join(queries[q].words, " "));
    }
    write_text_file(folder / fmt::format("{}.txt", part.name), lines);
    if (part.begin == 0) write_text_file(folder / "bm25.txt", scores);
    say("{}: {} queries, {} documents\n", part.name, part.end - part.begin,
        std::count(lines.begin(), lines.end(), '\n'));
  }
  for (size_t f = 0; f < features().size(); ++f)
    feature_lines += fmt::format("{} {}\n", f + 1, features()[f].name);
  write_text_file(folder / "queries.txt", query_lines);
  write_text_file(folder / "features.txt", feature_lines);
  say("from {} documented declarations of {} headers under {}; wrote {}\n", corpus.entries.size(),
      corpus.files.size(), o.headers, o.output);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Makes a set for learning to rank from C and C++ headers");
  Options options;
  add_options(app, options);
  return run_program(app, argc, argv, [&] { retrieval_set(options); });
}
