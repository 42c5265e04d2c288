#include <binade/data/permutation.h>
#include <binade/data/ranking_set.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace binade::data {
namespace {

// FNV-1a, then the finaliser of splitmix64, as FNV's high bits are weak for short texts.
uint64_t hash_of(std::string_view text, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325u ^ (seed * 0x9e3779b97f4a7c15u);
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  return hash ^ (hash >> 31);
}

// The set of these rows, cut into lists by `offsets`, and these lists' query ids.
RankingSet take(const RankingSet& set, const std::vector<int64_t>& rows,
                const std::vector<int64_t>& offsets, const std::vector<int64_t>& queries) {
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t width = set.feature_count();
  RankingSet out;
  out.offsets = Array::from(offsets, {static_cast<int64_t>(offsets.size())});
  out.features = Array::empty({count, width}, DType::f32);
  out.labels = Array::empty({count}, DType::f32);
  const float* from = set.feature_span().data();
  float* to = out.features.data<float>();
  const auto labels = set.label_span();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = rows[static_cast<size_t>(i)];
    if (width > 0)
      std::memcpy(to + i * width, from + row * width, static_cast<size_t>(width) * sizeof(float));
    out.labels.data<float>()[i] = labels[static_cast<size_t>(row)];
  }
  std::vector<std::string_view> texts;
  for (const int64_t query : queries) texts.push_back(set.query_ids[query]);
  out.query_ids = Texts(texts);
  if (!set.comments.empty()) {
    texts.clear();
    for (const int64_t row : rows) texts.push_back(set.comments[row]);
    out.comments = Texts(texts);
  }
  std::vector<int64_t> file_rows = rows;
  if (set.file_rows.defined())
    for (int64_t& row : file_rows) row = set.file_rows.data<int64_t>()[row];
  out.file_rows = Array::from(file_rows, {count});
  out.first_index = set.first_index;
  out.notes = set.notes;
  return out;
}

}  // namespace

Texts::Texts(std::span<const std::string_view> texts) {
  std::vector<int64_t> ends;
  ends.reserve(texts.size());
  int64_t end = 0;
  for (const std::string_view text : texts)
    ends.push_back(end += static_cast<int64_t>(text.size()));
  ends_ = Array::from(ends, {static_cast<int64_t>(ends.size())});
  bytes_ = Array::empty({end}, DType::u8);
  auto* out = static_cast<char*>(bytes_.data());
  for (const std::string_view text : texts) {
    if (!text.empty()) std::memcpy(out, text.data(), text.size());
    out += text.size();
  }
}

Texts::Texts(Array ends, Array bytes) : ends_(std::move(ends)), bytes_(std::move(bytes)) {
  check(ends_.dims() == 1 && bytes_.dims() == 1 && bytes_.dtype() == DType::u8,
        "texts need ends and bytes of one dimension, got ", ends_.shape(), " and ", bytes_.shape());
  int64_t before = 0;
  for (const int64_t end : std::span(ends_.data<int64_t>(), static_cast<size_t>(size()))) {
    check(end >= before, "the ends of texts fall from ", before, " to ", end);
    before = end;
  }
  check(before == bytes_.numel(), "texts end at byte ", before, " of ", bytes_.numel());
}

std::string_view Texts::operator[](int64_t index) const {
  check(index >= 0 && index < size(), "there is no text ", index, ", only ", size());
  const int64_t* ends = ends_.data<int64_t>();
  const int64_t begin = index == 0 ? 0 : ends[index - 1];
  return {static_cast<const char*>(bytes_.data()) + begin,
          static_cast<size_t>(ends[index] - begin)};
}

std::span<const int64_t> RankingSet::offset_span() const {
  return {offsets.data<int64_t>(), static_cast<size_t>(offsets.numel())};
}

std::span<const float> RankingSet::label_span() const {
  return {labels.data<float>(), static_cast<size_t>(labels.numel())};
}

std::span<const float> RankingSet::feature_span() const {
  return {features.data<float>(), static_cast<size_t>(features.numel())};
}

void RankingSet::check_shapes(const std::string& name) const {
  const bool fits = offsets.defined() && features.defined() && labels.defined() &&
                    offsets.dtype() == DType::i64 && features.dtype() == DType::f32 &&
                    labels.dtype() == DType::f32 && offsets.dims() == 1 && offsets.numel() >= 1 &&
                    features.dims() == 2 && labels.dims() == 1 &&
                    features.size(0) == labels.size(0) && query_ids.size() == queries() &&
                    (comments.empty() || comments.size() == documents()) &&
                    (!file_rows.defined() ||
                     (file_rows.dtype() == DType::i64 && file_rows.shape() == labels.shape()));
  check(fits, name, ": shapes or dtypes of the lists' parts do not fit each other");
  const auto starts = offset_span();
  check(starts.front() == 0 && starts.back() == documents() &&
            std::is_sorted(starts.begin(), starts.end()),
        name, ": the offsets of lists do not go from 0 to the number of documents");
}

std::string_view document_name(std::string_view comment) {
  constexpr std::string_view kBlanks = " \t";
  const auto skip = [&](size_t at) {
    return std::min(comment.find_first_not_of(kBlanks, at), comment.size());
  };
  size_t begin = skip(0);
  if (comment.substr(begin).starts_with("docid")) {
    const size_t sign = skip(begin + 5);
    if (sign < comment.size() && (comment[sign] == '=' || comment[sign] == ':'))
      begin = skip(sign + 1);
  }
  const size_t end = std::min(comment.find_first_of(kBlanks, begin), comment.size());
  return comment.substr(begin, end - begin);
}

RankingSet select_queries(const RankingSet& set, std::span<const int64_t> queries) {
  const auto offsets = set.offset_span();
  std::vector<int64_t> rows, starts = {0};
  for (const int64_t query : queries) {
    check(query >= 0 && query < set.queries(), "there is no list ", query, ", only ",
          set.queries());
    for (int64_t row = offsets[query]; row < offsets[query + 1]; ++row) rows.push_back(row);
    starts.push_back(static_cast<int64_t>(rows.size()));
  }
  return take(set, rows, starts, {queries.begin(), queries.end()});
}

std::vector<std::vector<int64_t>> split_by_query(const RankingSet& set,
                                                 std::span<const double> shares, uint64_t seed) {
  double sum = 0;
  for (const double share : shares) {
    check(share >= 0 && share <= 1, "the share ", share, " of a split is not between 0 and 1");
    sum += share;
  }
  check(std::abs(sum - 1) <= 1e-6, "the shares of a split add up to ", sum, ", not to 1");
  std::vector<std::vector<int64_t>> parts(shares.size());
  // What rounding leaves over goes to the last part that gets anything.
  size_t last = shares.size() - 1;
  while (shares[last] == 0) --last;
  for (int64_t query = 0; query < set.queries(); ++query) {
    const double at = static_cast<double>(hash_of(set.query_ids[query], seed) >> 11) * 0x1p-53;
    size_t part = 0;
    for (double end = shares[0]; part < last && at >= end; end += shares[++part]) {
    }
    parts[part].push_back(query);
  }
  return parts;
}

RankingSet sample_long_lists(const RankingSet& set, const ListSampling& sampling) {
  check(sampling.longest >= 1, "a list cannot be cut to ", sampling.longest, " documents");
  const auto offsets = set.offset_span();
  const auto labels = set.label_span();
  std::vector<int64_t> rows, starts = {0}, queries(static_cast<size_t>(set.queries()));
  std::iota(queries.begin(), queries.end(), int64_t{0});
  int64_t cut = 0;
  for (const int64_t query : queries) {
    const int64_t begin = offsets[query], length = offsets[query + 1] - begin;
    std::vector<int64_t> kept(static_cast<size_t>(length));
    std::iota(kept.begin(), kept.end(), begin);
    if (length > sampling.longest) {
      ++cut;
      const Permutation shuffle(length, sampling.seed, hash_of(set.query_ids[query], 0));
      for (int64_t i = 0; i < length; ++i) kept[i] = begin + shuffle(i);
      if (sampling.keep == ListSampling::Keep::relevant_first)
        std::stable_partition(kept.begin(), kept.end(),
                              [&](int64_t row) { return labels[row] > 0; });
      kept.resize(static_cast<size_t>(sampling.longest));
      std::sort(kept.begin(), kept.end());
    }
    rows.insert(rows.end(), kept.begin(), kept.end());
    starts.push_back(static_cast<int64_t>(rows.size()));
  }
  RankingSet out = take(set, rows, starts, queries);
  if (cut > 0) {
    out.notes.push_back(concat(
        cut, " of ", set.queries(), " lists were cut to ", sampling.longest, " documents (",
        set.documents() - out.documents(), " of ", set.documents(), " documents left out",
        sampling.keep == ListSampling::Keep::relevant_first ? ", relevant ones kept first" : "",
        ")"));
  }
  return out;
}

}  // namespace binade::data
