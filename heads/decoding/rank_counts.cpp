#include <binade/heads/decoding/rank_counts.h>

#include <algorithm>
#include <numeric>

#include <binade/core/error.h>

namespace binade::heads::decoding {

RankCounts::RankCounts(int64_t heads, int64_t width) : width_(width) {
  check(heads >= 1 && width >= 1, "rank counts need 1 or more heads and guesses, got ", heads,
        " heads with ", width, " guesses");
  labels_.resize(static_cast<size_t>(heads));
  hits_.assign(static_cast<size_t>(heads), std::vector<int64_t>(static_cast<size_t>(width)));
}

void RankCounts::record(std::span<const int32_t> ranks) {
  check(ranks.size() <= labels_.size(), "ranks of ", ranks.size(), " heads were recorded for ",
        labels_.size());
  DraftTree::Path path;
  ++joint_[path];
  bool hit_so_far = true;
  for (size_t head = 0; head < ranks.size(); ++head) {
    ++labels_[head];
    const bool hit = ranks[head] >= 0 && ranks[head] < width_;
    hit_so_far = hit_so_far && hit;
    if (hit) ++hits_[head][static_cast<size_t>(ranks[head])];
    if (!hit_so_far) continue;
    path.push_back(ranks[head]);
    ++joint_[path];
  }
}

void RankCounts::merge(const RankCounts& other) {
  check(heads() == other.heads() && width_ == other.width_, "rank counts of ", heads(),
        " heads with ", width_, " guesses and of ", other.heads(), " with ", other.width_,
        " cannot be merged");
  for (size_t head = 0; head < labels_.size(); ++head) {
    labels_[head] += other.labels_[head];
    for (size_t rank = 0; rank < hits_[head].size(); ++rank)
      hits_[head][rank] += other.hits_[head][rank];
  }
  for (const auto& [path, count] : other.joint_) joint_[path] += count;
}

int64_t RankCounts::joint(const DraftTree::Path& path) const {
  const auto found = joint_.find(path);
  return found == joint_.end() ? 0 : found->second;
}

double RankCounts::accuracy(int64_t head, int64_t rank) const {
  return share(head, rank, rank + 1);
}

double RankCounts::top(int64_t head, int64_t n) const {
  return share(head, 0, n);
}

double RankCounts::share(int64_t head, int64_t first, int64_t end) const {
  check(head >= 0 && head < heads() && first >= 0 && end <= width_, "there are ", heads(),
        " heads with ", width_, " guesses, asked for guesses ", first, " to ", end - 1, " of head ",
        head);
  const auto at = static_cast<size_t>(head);
  if (labels_[at] == 0) return 0;
  const int64_t hits =
      std::accumulate(hits_[at].begin() + first, hits_[at].begin() + end, int64_t{0});
  return static_cast<double>(hits) / static_cast<double>(labels_[at]);
}

void record_passes(RankCounts& counts, const DraftTree& tree,
                   std::span<const std::vector<int32_t>> ranks) {
  for (size_t root = 0; root < ranks.size();) {
    counts.record(ranks[root]);
    int32_t node = 0;
    size_t accepted = 0;
    for (const int32_t rank : ranks[root]) {
      const std::vector<int32_t>& children = tree.children(node);
      const auto right = std::find_if(children.begin(), children.end(), [&](int32_t child) {
        return tree.ranks()[static_cast<size_t>(child)] == rank;
      });
      if (right == children.end()) break;
      node = *right;
      ++accepted;
    }
    root += accepted + 1;
  }
}

}  // namespace binade::heads::decoding
