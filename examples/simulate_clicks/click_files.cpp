#include "click_files.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include <binade/core/file.h>
#include <binade/core/text.h>

namespace binade::examples {
namespace {

// " index:value …" of every document that is shown, which many sessions need.
std::vector<std::string> feature_texts(const data::RankingSet& set,
                                       const heads::rank::ClickLog& log) {
  std::vector<std::string> texts(static_cast<size_t>(set.documents()));
  const int64_t width = set.feature_count();
  for (const int64_t document : log.documents) {
    std::string& text = texts[static_cast<size_t>(document)];
    if (!text.empty()) continue;
    for (int64_t f = 0; f < width; ++f) {
      const float value = set.feature_span()[static_cast<size_t>(document * width + f)];
      // The last one is always written, so that all lines agree on how many there are.
      if (value == 0 && f + 1 < width) continue;
      text += ' ' + std::to_string(f + set.first_index) + ':' + exact_number(value);
    }
    if (!set.comments.empty() && !set.comments[document].empty())
      text += concat(" # ", set.comments[document]);
    text += '\n';
  }
  return texts;
}

}  // namespace

std::vector<OutputFile> click_files(const std::string& path) {
  std::vector<OutputFile> files;
  for (const char* ending : {"", ".weights", ".positions", ".list-weights"})
    files.push_back({"--output", path + ending});
  return files;
}

int64_t write_click_files(const std::string& path, const data::RankingSet& set,
                          const heads::rank::ClickLog& log, std::span<const double> propensities,
                          double largest_weight) {
  const std::vector<std::string> features = feature_texts(set, log);
  const std::vector<OutputFile> files = click_files(path);
  AtomicFile lines(files[0].path), weights(files[1].path), positions(files[2].path),
      list_weights(files[3].path);
  int64_t unknown = 0, number = 0;
  std::vector<int64_t> order;
  for (int64_t s = 0; s < log.sessions(); ++s) {
    number = s > 0 && log.lists[s] == log.lists[s - 1] ? number + 1 : 1;
    const std::string session = concat(" qid:", set.query_ids[log.lists[s]], '/', number);
    order.resize(static_cast<size_t>(log.offsets[s + 1] - log.offsets[s]));
    std::iota(order.begin(), order.end(), log.offsets[s]);
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t b) { return log.documents[a] < log.documents[b]; });
    std::string line_text, weight_text, position_text;
    int64_t clicks = 0;
    for (const int64_t i : order) {
      const int64_t rank = i - log.offsets[s] + 1;
      const double propensity = propensities[static_cast<size_t>(rank - 1)];
      double weight = propensity > 0 ? 1 / propensity : 0;
      unknown += weight == 0 ? 1 : 0;
      if (largest_weight > 0) weight = std::min(weight, largest_weight);
      clicks += log.clicks[i] != 0 ? 1 : 0;
      line_text += (log.clicks[i] != 0 ? '1' : '0') + session +
                   features[static_cast<size_t>(log.documents[i])];
      weight_text += exact_number(weight) + '\n';
      position_text += std::to_string(rank) + '\n';
    }
    lines.write(line_text);
    weights.write(weight_text);
    positions.write(position_text);
    list_weights.write(std::to_string(clicks) + '\n');
  }
  weights.commit();
  positions.commit();
  list_weights.commit();
  lines.commit();
  return unknown;
}

}  // namespace binade::examples
