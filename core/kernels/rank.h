// Losses over ragged lists of documents, each with its gradient in the same pass.
#pragma once

#include <binade/core/kernels/kernels.h>
#include <binade/core/random.h>

namespace binade::kernels {

enum class RankLoss : uint8_t {
  // A document at a time.
  mse,
  bce,
  ordinal,
  prank,
  mcrank,
  // Pairs of documents.
  ranknet,
  soft01,
  hinge,
  pairwise_mse,
  lambdarank,  // and the NDCG losses 2 and 2++
  ndcg_loss1,
  lambda_map,
  lambda_mrr,
  lambda_precision,
  // A list at a time.
  listnet,
  xe_ndcg,
  listmle,
  unique_softmax,
  approx_ndcg,
  approx_mrr,
  softrank,
  neural_ndcg,
};

// Which lists take part.
enum class RankUsable : uint8_t { any, pair, distinct, relevant };
// Whether one of n documents with labels from `least` to `largest` does.
BINADE_HOST_DEVICE inline bool is_usable(RankUsable rule, int64_t n, float least, float largest) {
  switch (rule) {
    case RankUsable::any:
      return n > 0;
    case RankUsable::pair:
      return n > 1;
    case RankUsable::distinct:
      return n > 1 && least < largest;
    default:
      return n > 1 && least < 1 && largest >= 1;
  }
}

// Settings of all losses; each reads its own. Switches and choices are whole numbers.
struct RankLossParams {
  RankLoss loss = RankLoss::mse;
  RankUsable usable = RankUsable::any;
  double mean = 0;           // divide by the sum of the terms' weights
  double levels = 1;         // bce: the label whose target is 1
  double margin = 1;         // hinge, prank
  double sigma = 1;          // the logistic function's slope; softrank: deviation of a score
  double truncation = 0;     // ranks that count, 0: all
  double normalise = 0;      // lambdarank: as LightGBM does
  double rank_part = 1;      // lambdarank: factor of |1/D(ri) − 1/D(rj)|
  double distance_part = 0;  // lambdarank: factor of |1/D(d) − 1/D(d + 1)|, d = |ri − rj|
  double targets = 0;        // listnet: 0 softmax(y), 1 y/Σy
  double epsilon = 0;        // listnet: poly-1's factor
  double terms = 1;          // xe_ndcg: of the gradient
  double positions = 0;      // listmle, weight of a position: 0 equal, 1 exponential, 2 logarithmic
  double random_ties = 0;    // listmle
  double temperature = 1;    // approx_*, neural_ndcg
  double iterations = 50;    // neural_ndcg
};

// The arrays of heads/rank/lists.h beside the scores, all contiguous. weights and list_weights may
// be undefined.
struct RankLists {
  Array scores;                         // (N) or (N, columns), f32 (f64 on the CPU)
  Array offsets;                        // (Q + 1) i64
  Array labels, weights, list_weights;  // (N), (N), (Q), f32
};

// losses (Q) = list weight · loss of the list, 0 for lists that take no part; gradient (as scores)
// = the derivative of Σ losses, 0 where nothing counts. Both of scores' dtype, contiguous.
// `key` is read by losses that draw; a document draws as the element that its row is.
// Throws Error (on a GPU: notes a fault) where mcrank meets a label that is no class.
BINADE_KERNEL(rank_loss, const RankLists& lists, const RankLossParams& params, const PhiloxKey& key,
              const Array& losses, const Array& gradient)

}  // namespace binade::kernels
