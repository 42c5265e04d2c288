// BM25 (Robertson and Zaragoza, "The probabilistic relevance framework", 2009) over short texts.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace binade::examples {

class Bm25 {
 public:
  // How much a word that is there again adds, and how much a long text takes away.
  static constexpr double kSaturation = 1.2, kLength = 0.75;

  void add(std::span<const std::string> words);  // the next text

  int64_t size() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t length(int64_t text) const { return lengths_[text]; }
  bool has(const std::string& word, int64_t text) const { return count(word, text) > 0; }
  // ln(1 + (N − n + ½)/(n + ½)) of a word that n of all N texts have.
  double idf(const std::string& word) const;
  // Σ over the words of idf · c(k + 1)/(c + k(1 − b + b·length/mean length)), c: count in the text.
  double score(std::span<const std::string> query, int64_t text) const;
  // Up to `limit` texts of the largest scores above 0, the best first; equal ones in their order.
  std::vector<int64_t> best(std::span<const std::string> query, size_t limit) const;

 private:
  struct Occurrences {
    int64_t text, count;
  };

  int64_t count(const std::string& word, int64_t text) const;
  double weight(double idf, int64_t count, int64_t text) const;

  std::unordered_map<std::string, int64_t> numbers_;
  std::vector<std::vector<Occurrences>> texts_with_;  // by number of the word; texts rise
  std::vector<int64_t> lengths_;                      // of texts, in words
  int64_t words_ = 0;                                 // of all texts
};

}  // namespace binade::examples
