#include "lists.h"

#include <algorithm>
#include <map>
#include <set>

#include <binade/data/permutation.h>

#include "words.h"

namespace binade::examples {

namespace {

constexpr int64_t kPerFile = 3;     // queries
constexpr size_t kFewestWords = 3;  // of a query
enum Stream : uint64_t { kQueries, kFile, kFolder, kElsewhere, kStreams };

// ---- what features are made of ------------------------------------------------------------------

// A text of every candidate: its own, or that of its file or folder.
enum class Field { name, signature, path, file, folder, all };

struct FieldText {
  const Bm25& index;
  int64_t text;
};

FieldText text_of(const Corpus& corpus, Field field, int64_t entry) {
  const Corpus::Entry& e = corpus.entries[entry];
  switch (field) {
    case Field::name:
      return {corpus.names, entry};
    case Field::signature:
      return {corpus.signatures, entry};
    case Field::path:
      return {corpus.paths, e.file};
    case Field::file:
      return {corpus.file_texts, e.file};
    case Field::folder:
      return {corpus.folder_texts, e.folder};
    default:
      return {corpus.all, entry};
  }
}

template <Field field>
double bm25(const Corpus& corpus, const Query& query, int64_t entry) {
  const FieldText at = text_of(corpus, field, entry);
  return at.index.score(query.words, at.text);
}

// Words of the query that are in the field.
template <Field field>
double matches(const Corpus& corpus, const Query& query, int64_t entry) {
  const FieldText at = text_of(corpus, field, entry);
  return static_cast<double>(
      std::count_if(query.words.begin(), query.words.end(),
                    [&](const std::string& word) { return at.index.has(word, at.text); }));
}

// The sum of their idf.
template <Field field>
double matched_idf(const Corpus& corpus, const Query& query, int64_t entry) {
  const FieldText at = text_of(corpus, field, entry);
  double sum = 0;
  for (const std::string& word : query.words)
    if (at.index.has(word, at.text)) sum += at.index.idf(word);
  return sum;
}

// Words.
template <Field field>
double length(const Corpus& corpus, const Query&, int64_t entry) {
  const FieldText at = text_of(corpus, field, entry);
  return static_cast<double>(at.index.length(at.text));
}

double query_length(const Corpus&, const Query& query, int64_t) {
  return static_cast<double>(query.words.size());
}

double query_idf(const Corpus& corpus, const Query& query, int64_t) {
  double sum = 0;
  for (const std::string& word : query.words) sum += corpus.all.idf(word);
  return sum;
}

// The share of the name's words that the query has.
double name_covered(const Corpus& corpus, const Query& query, int64_t entry) {
  const double words = length<Field::name>(corpus, query, entry);
  return words == 0 ? 0 : matches<Field::name>(corpus, query, entry) / words;
}

// Words of the query of which the signature has one with the same first four letters.
double same_beginnings(const Corpus& corpus, const Query& query, int64_t entry) {
  const auto words = words_of(corpus.entries[entry].declaration.signature);
  return static_cast<double>(
      std::count_if(query.words.begin(), query.words.end(), [&](const std::string& sought) {
        return std::any_of(words.begin(), words.end(), [&](const std::string& word) {
          return word.size() >= 4 && sought.size() >= 4 && word.compare(0, 4, sought, 0, 4) == 0;
        });
      }));
}

std::set<std::string> triples(const std::vector<std::string>& words) {
  std::set<std::string> found;
  for (const std::string& word : words)
    for (size_t at = 0; at + 3 <= word.size(); ++at) found.insert(word.substr(at, 3));
  return found;
}

// Triples of letters of the name that the query has, as a share.
double same_letters(const Corpus& corpus, const Query& query, int64_t entry) {
  const auto sought = triples(query.words);
  const auto there = triples(words_of(corpus.entries[entry].declaration.name));
  const auto both = std::count_if(there.begin(), there.end(), [&](const std::string& triple) {
    return sought.contains(triple);
  });
  return there.empty() ? 0 : static_cast<double>(both) / static_cast<double>(there.size());
}

double path_depth(const Corpus& corpus, const Query&, int64_t entry) {
  const std::string& path = corpus.files[corpus.entries[entry].file].path;
  return static_cast<double>(std::count(path.begin(), path.end(), '/'));
}

double declarations_in_file(const Corpus& corpus, const Query&, int64_t entry) {
  return static_cast<double>(corpus.files[corpus.entries[entry].file].entries.size());
}

template <Declaration::Kind kind>
double is_kind(const Corpus& corpus, const Query&, int64_t entry) {
  return corpus.entries[entry].declaration.kind == kind ? 1 : 0;
}

}  // namespace

std::vector<Query> choose_queries(const Corpus& corpus, int64_t count, int64_t words,
                                  uint64_t seed) {
  const auto entries = static_cast<int64_t>(corpus.entries.size());
  const data::Permutation order(entries, seed, kQueries);
  std::map<int64_t, int64_t> of_file;
  std::vector<Query> queries;
  for (int64_t i = 0; i < entries && static_cast<int64_t>(queries.size()) < count; ++i) {
    const int64_t entry = order(i);
    const Corpus::Entry& e = corpus.entries[entry];
    if (of_file[e.file] == kPerFile) continue;
    auto sought =
        query_words(e.declaration.comment, e.declaration.name, static_cast<size_t>(words));
    if (sought.size() < kFewestWords) continue;
    ++of_file[e.file];
    queries.push_back({entry, std::move(sought)});
  }
  return queries;
}

std::vector<int64_t> candidates(const Corpus& corpus, const Query& query,
                                const CandidateOptions& options) {
  std::set<int64_t> chosen = {query.answer};
  for (const int64_t entry : corpus.all.best(query.words, static_cast<size_t>(options.retrieved)))
    chosen.insert(entry);
  // Draws `count` of `size` entries that are not chosen yet and that `fits` takes.
  const auto draw = [&](int64_t count, int64_t size, Stream stream, const auto& entry_at,
                        const auto& fits) {
    const data::Permutation order(size, options.seed,
                                  static_cast<uint64_t>(query.answer) * kStreams + stream);
    for (int64_t i = 0; i < size && count > 0; ++i) {
      const int64_t entry = entry_at(order(i));
      if (fits(entry) && chosen.insert(entry).second) --count;
    }
  };
  const Corpus::Entry& answer = corpus.entries[query.answer];
  const auto draw_from = [&](int64_t count, const std::vector<int64_t>& entries, Stream stream,
                             const auto& fits) {
    draw(
        count, static_cast<int64_t>(entries.size()), stream, [&](int64_t i) { return entries[i]; },
        fits);
  };
  const auto any = [](int64_t) { return true; };
  draw_from(options.same_file, corpus.files[answer.file].entries, kFile, any);
  draw_from(options.same_folder, corpus.folders[answer.folder].entries, kFolder,
            [&](int64_t entry) { return corpus.entries[entry].file != answer.file; });
  draw(
      options.elsewhere, static_cast<int64_t>(corpus.entries.size()), kElsewhere,
      [](int64_t i) { return i; }, any);
  return {chosen.begin(), chosen.end()};
}

int grade(const Corpus& corpus, const Query& query, int64_t entry) {
  const Corpus::Entry &answer = corpus.entries[query.answer], &e = corpus.entries[entry];
  if (entry == query.answer) return 3;
  if (e.file == answer.file) return 2;
  return e.folder == answer.folder ? 1 : 0;
}

const std::vector<Feature>& features() {
  using Kind = Declaration::Kind;
  static const std::vector<Feature> kFeatures = {
      {"BM25 of signature and path", bm25<Field::all>},
      {"BM25 of the name", bm25<Field::name>},
      {"BM25 of the signature", bm25<Field::signature>},
      {"BM25 of the path", bm25<Field::path>},
      {"BM25 of the file's signatures", bm25<Field::file>},
      {"BM25 of the folder's signatures", bm25<Field::folder>},
      {"query words in the name", matches<Field::name>},
      {"query words in the signature", matches<Field::signature>},
      {"query words in the path", matches<Field::path>},
      {"query words in the file's signatures", matches<Field::file>},
      {"idf of query words in the name", matched_idf<Field::name>},
      {"idf of query words in the signature", matched_idf<Field::signature>},
      {"idf of query words in the path", matched_idf<Field::path>},
      {"idf of query words in the file's signatures", matched_idf<Field::file>},
      {"share of the name's words in the query", name_covered},
      {"share of the name's letter triples in the query", same_letters},
      {"query words that begin as one of the signature", same_beginnings},
      {"words of the query", query_length},
      {"idf of the query", query_idf},
      {"words of the name", length<Field::name>},
      {"words of the signature", length<Field::signature>},
      {"words of the path", length<Field::path>},
      {"folders of the path", path_depth},
      {"documented declarations in the file", declarations_in_file},
      {"is a macro", is_kind<Kind::macro>},
      {"is a type", is_kind<Kind::type>},
      {"is a function", is_kind<Kind::function>},
  };
  return kFeatures;
}

}  // namespace binade::examples
