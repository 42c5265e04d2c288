// Queries with their candidates, grades and features.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "corpus.h"

namespace binade::examples {

struct Query {
  int64_t answer = 0;              // the declaration whose comment it was, by number
  std::vector<std::string> words;  // different ones
};

// Up to `count` queries of `words` words at most and three at least, no more than three of one
// file: which ones and in which order, the seed says.
std::vector<Query> choose_queries(const Corpus& corpus, int64_t count, int64_t words,
                                  uint64_t seed);

struct CandidateOptions {
  int64_t retrieved = 16;   // the best by BM25 of all declarations
  int64_t same_file = 6;    // besides them, drawn from the answer's file
  int64_t same_folder = 6;  // … from the other files of its folder
  int64_t elsewhere = 6;    // … from everything
  uint64_t seed = 0;
};

// The answer, and others as the options say; no declaration twice; by rising number, so that the
// order says nothing.
std::vector<int64_t> candidates(const Corpus& corpus, const Query& query,
                                const CandidateOptions& options);

// 3: the answer itself; 2: of its file; 1: of its folder; 0: of elsewhere.
int grade(const Corpus& corpus, const Query& query, int64_t entry);

struct Feature {
  const char* name;
  double (*value)(const Corpus&, const Query&, int64_t entry);
};
// Functions of the query's words and of the candidate without its comment.
const std::vector<Feature>& features();

}  // namespace binade::examples
