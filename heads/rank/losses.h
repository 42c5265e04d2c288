// The losses of learning to rank, pointwise, pairwise and listwise (Liu, "Learning to Rank for
// Information Retrieval", 2009), on lists of documents without padding.
//
//   const LossSpec spec = LossSpec::parse("lambdarank:truncation=30");
//   const Tensor loss = rank_loss(scores, lists, spec, normaliser);
//
// What each of them computes, with s a document's score, y its label, w its weight, G = 2^y − 1 its
// gain, r its rank by score from 1 on, D(r) = log2(1 + r), and logarithms natural unless written
// log2, is said in the table that loss_table() returns; core/kernels/rank/ computes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <binade/autograd/tensor.h>
#include <binade/heads/rank/lists.h>

namespace binade::heads::rank {

enum class LossFamily : uint8_t { pointwise, pairwise, listwise };
std::string_view name_of(LossFamily family);

// Which lists a loss learns from. The others contribute 0 and do not count.
enum class Usable : uint8_t {
  any,       // a document
  pair,      // two documents
  distinct,  // two distinct labels
  relevant,  // a relevant document (label 1 or more) and another that is not
};

// What a loss reads of a document.
enum class Outputs : uint8_t {
  score,       // one number
  thresholds,  // K − 1 numbers for K grades: the k-th is how clearly the label is above grade k
  classes,     // K logits
};

struct LossParameter {
  std::string_view name;
  double value;              // default
  double least, most;        // bounds
  bool whole = false;        // an integer
  std::string_view choices;  // "a|b|…": written by name; the value is its place
  std::string_view meaning;
};

struct LossInfo {
  std::string_view name;
  LossFamily family;
  Usable usable;
  Outputs outputs;
  std::string_view formula;
  std::string_view source;  // the paper
  std::string_view cost;    // time for a list of n documents; memory is O(n) (times iterations)
  std::vector<LossParameter> parameters;
};

// All losses, in the order in which they are printed.
const std::vector<LossInfo>& loss_table();
// The table as text, for --help and docs.
std::string describe_losses();

// A loss and the values of its parameters.
class LossSpec {
 public:
  // "name" or "name:parameter=value,…". Throws Error that names what is unknown or out of bounds
  // and what there is.
  static LossSpec parse(std::string_view text);

  const LossInfo& info() const { return *info_; }
  double value(std::string_view parameter) const;
  // The text that parse() understands, with the parameters that are not at their default.
  std::string text() const;

 private:
  explicit LossSpec(const LossInfo& info);
  const LossInfo* info_;
  std::vector<double> values_;  // as info_->parameters
};

// Σ over lists of (list weight · loss of the list) / normaliser, a scalar: f32, and f64 for f64
// scores, in which it is computed. Half scores are read as they are and computed in f32.
//
// Labels are 0 or more; where gains are used, 127 at most, as 2^y is an f32.
// scores: (N) of any floating dtype, or (N, columns) where the loss reads more of a document, one
// column of which may come as (N).
// `normaliser`: one f32 number on the device, at least 1: the count of usable lists of the whole
// step, see usable_lists() and train::LossInputs, so that neither micro-batches nor ranks change
// the mean over lists. Undefined: 1.
//
// Equal scores, and equal labels where a loss orders by them, stand in the order of the batch.
// A document's weight multiplies its term, in a pair that of the document to be preferred; what a
// loss divides by (ideal DCG, sum of targets) takes no weights, but for the weighted mean of
// reduction=mean. The gradient is computed with the loss, in an order that never changes; it
// is not differentiable twice. On a GPU scores may not be f64.
// Random draws (xe-ndcg, ties=random) are keyed as those of dropout: RandomState::current().
Tensor rank_loss(const Tensor& scores, const Lists& lists, const LossSpec& spec,
                 const Tensor& normaliser = {});

// How many lists of a batch the loss learns from.
int64_t usable_lists(const LossSpec& spec, std::span<const int64_t> offsets,
                     std::span<const float> labels);

// How many numbers a document's output has for labels 0 to `largest_label`.
int64_t output_columns(const LossSpec& spec, int64_t largest_label);
// What documents are ranked by, (N): outputs themselves, or the expected grade, from outputs
// (N, columns).
Tensor ranking_scores(const Tensor& outputs, const LossSpec& spec);

}  // namespace binade::heads::rank
