#include "bm25.h"

#include <algorithm>
#include <cmath>

namespace binade::examples {

void Bm25::add(std::span<const std::string> words) {
  const int64_t text = size();
  for (const std::string& word : words) {
    const auto [at, is_new] = numbers_.try_emplace(word, static_cast<int64_t>(texts_with_.size()));
    if (is_new) texts_with_.emplace_back();
    std::vector<Occurrences>& with = texts_with_[at->second];
    if (with.empty() || with.back().text != text) with.push_back({text, 0});
    ++with.back().count;
  }
  lengths_.push_back(static_cast<int64_t>(words.size()));
  words_ += lengths_.back();
}

double Bm25::idf(const std::string& word) const {
  const auto at = numbers_.find(word);
  const auto with =
      at == numbers_.end() ? 0.0 : static_cast<double>(texts_with_[at->second].size());
  return std::log1p((static_cast<double>(size()) - with + 0.5) / (with + 0.5));
}

int64_t Bm25::count(const std::string& word, int64_t text) const {
  const auto at = numbers_.find(word);
  if (at == numbers_.end()) return 0;
  const std::vector<Occurrences>& with = texts_with_[at->second];
  const auto there = std::lower_bound(
      with.begin(), with.end(), text,
      [](const Occurrences& occurrences, int64_t sought) { return occurrences.text < sought; });
  return there == with.end() || there->text != text ? 0 : there->count;
}

double Bm25::weight(double idf, int64_t count, int64_t text) const {
  if (count == 0) return 0;
  const double mean = static_cast<double>(words_) / static_cast<double>(size());
  const double relative = static_cast<double>(length(text)) / mean;
  const auto c = static_cast<double>(count);
  return idf * c * (kSaturation + 1) / (c + kSaturation * (1 - kLength + kLength * relative));
}

double Bm25::score(std::span<const std::string> query, int64_t text) const {
  double sum = 0;
  for (const std::string& word : query) sum += weight(idf(word), count(word, text), text);
  return sum;
}

std::vector<int64_t> Bm25::best(std::span<const std::string> query, size_t limit) const {
  std::vector<double> scores(lengths_.size());
  std::vector<int64_t> found;
  for (const std::string& word : query) {
    const auto at = numbers_.find(word);
    if (at == numbers_.end()) continue;
    const double idf_of_word = idf(word);
    for (const auto& [text, count] : texts_with_[at->second]) {
      if (scores[text] == 0) found.push_back(text);
      scores[text] += weight(idf_of_word, count, text);
    }
  }
  const size_t kept = std::min(limit, found.size());
  std::partial_sort(
      found.begin(), found.begin() + static_cast<int64_t>(kept), found.end(),
      [&](int64_t a, int64_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
  found.resize(kept);
  return found;
}

}  // namespace binade::examples
