// Labelled lists of documents in host memory: what readers of learning-to-rank files give, and what
// training, metrics and preprocessing take.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <binade/core/array.h>

namespace binade::data {

// Many short texts in one block of memory.
class Texts {
 public:
  Texts() = default;  // none
  explicit Texts(std::span<const std::string_view> texts);
  // ends (count) i64, rising: text i is bytes[ends[i - 1], ends[i]). bytes u8. Error otherwise.
  Texts(Array ends, Array bytes);

  int64_t size() const { return ends_.defined() ? ends_.numel() : 0; }
  bool empty() const { return size() == 0; }
  std::string_view operator[](int64_t index) const;

  const Array& ends() const { return ends_; }
  const Array& bytes() const { return bytes_; }

 private:
  Array ends_, bytes_;
};

// Q lists of N documents with F features each, without padding. The arrays lie on the CPU and may
// be read-only (a mapped file): copy before writing.
struct RankingSet {
  Array offsets;    // (Q + 1) i64, from 0 on and never falling: list q is rows [q, q + 1) of it
  Array features;   // (N, F) f32
  Array labels;     // (N) f32, 0 or more
  Texts query_ids;  // (Q), as they stand in the files
  Texts comments;   // (N) what stands behind '#', or none
  // (N) i64: which document of the files, from 0 on, each one is, if the order or the choice is not
  // the files'. Undefined: it is.
  Array file_rows;
  int first_index = 1;             // the number of the first feature in the files, 0 or 1
  std::vector<std::string> notes;  // what the reader had to decide, a sentence each

  int64_t queries() const { return offsets.numel() - 1; }
  int64_t documents() const { return labels.numel(); }
  int64_t feature_count() const { return features.size(1); }
  std::span<const int64_t> offset_span() const;
  std::span<const float> label_span() const;
  std::span<const float> feature_span() const;  // row-major

  // Error, which names the set by `name`, unless shapes, dtypes and offsets fit each other.
  void check_shapes(const std::string& name) const;
};

// The name of a document in a comment: what follows "docid =" (or "docid:") in any spelling of the
// spaces between, else the comment's first word. Empty if there is none.
std::string_view document_name(std::string_view comment);

// The lists `queries` in this order, with everything that belongs to them. Error for a list that is
// not there.
RankingSet select_queries(const RankingSet& set, std::span<const int64_t> queries);

// Which lists fall into which part: shares[p] of all lists go to part p, by a hash of (seed, query
// id). So a list's part depends neither on the order nor on the other lists of a file. Error unless
// shares are 0 or more and add up to 1 (within 1e-6). Lists keep their order within a part.
std::vector<std::vector<int64_t>> split_by_query(const RankingSet& set,
                                                 std::span<const double> shares, uint64_t seed);

struct ListSampling {
  int64_t longest = 0;  // documents that a list may have, 1 or more
  // Which documents stay: a uniform sample, or those with a label above 0 first (in a uniform
  // sample among them), which changes what a list says of the rate of relevant documents.
  enum class Keep : uint8_t { any, relevant_first } keep = Keep::any;
  uint64_t seed = 0;
};

// The set with every list cut to `longest` documents, which keep their order. What a list keeps
// depends on its query id and the seed alone. The result's notes say how much was left out.
RankingSet sample_long_lists(const RankingSet& set, const ListSampling& sampling);

}  // namespace binade::data
