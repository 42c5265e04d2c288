#include <binade/heads/rank/parts.h>

#include <algorithm>
#include <numeric>

namespace binade::heads::rank {

namespace {

// Documents that are scored at a time, except where one list has more.
constexpr int64_t kScoredTogether = 1 << 16;

}  // namespace

std::vector<int32_t> list_numbers(std::span<const int64_t> offsets, int64_t capacity) {
  std::vector<int32_t> result(static_cast<size_t>(capacity), -1);
  for (size_t q = 0; q + 1 < offsets.size(); ++q)
    std::fill(result.begin() + offsets[q], result.begin() + offsets[q + 1],
              static_cast<int32_t>(q));
  return result;
}

std::vector<Part> parts_of(const data::RankingSet& set, Device device) {
  const std::span<const int64_t> offsets = set.offset_span();
  std::vector<Part> parts;
  for (size_t q = 0; q + 1 < offsets.size();) {
    size_t last = q + 1;
    while (last + 1 < offsets.size() && offsets[last + 1] - offsets[q] <= kScoredTogether) ++last;
    Part part{offsets[q], offsets[last], {}, {}, {}};
    for (size_t i = q; i <= last; ++i) part.offsets.push_back(offsets[i] - offsets[q]);
    std::vector<int32_t> rows(static_cast<size_t>(part.end - part.begin));
    std::iota(rows.begin(), rows.end(), static_cast<int32_t>(part.begin));
    const auto count = static_cast<int64_t>(rows.size());
    part.rows = Tensor::from(rows, {count}, device);
    part.list_of = Tensor::from(list_numbers(part.offsets, count), {count}, device);
    q = last;
    if (count > 0) parts.push_back(std::move(part));
  }
  return parts;
}

void append_scores(std::vector<double>& scores, const Tensor& outputs, const LossSpec& loss) {
  const auto values = ranking_scores(outputs, loss).to_vector<double>();
  scores.insert(scores.end(), values.begin(), values.end());
}

}  // namespace binade::heads::rank
