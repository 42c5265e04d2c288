// Clicks of simulated users on ranked lists, and estimates of how much a rank alone matters to
// them: what unbiased learning to rank is tried on.
//
// A user finds a document of label y attractive with probability ε + (1 − ε)·(2^y − 1)/(2^m − 1), m
// the largest label (Ai et al., SIGIR 2018).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <binade/heads/rank/metrics.h>

namespace binade::heads::rank {

struct ClickModel {
  // position: rank r is examined with probability 1/r^η, apart from all others, and clicked if
  // attractive (Richardson et al., WWW 2007; Joachims et al., WSDM 2017). cascade: ranks are
  // examined from the top on; a click ends the session with probability `stop` (Craswell et al.,
  // WSDM 2008, have 1), and each rank without a click leads on to the next with probability
  // `patience`.
  enum class Kind : uint8_t { position, cascade } kind = Kind::position;
  double eta = 1;            // η, 0 or more
  double noise = 0.1;        // ε in [0, 1)
  double stop = 1;           // in [0, 1]
  double patience = 1;       // in [0, 1]
  double largest_label = 0;  // m; 0: that of the lists

  double examination(int64_t rank) const;  // 1/rank^η of the position model
  double attraction(double label, double largest) const;
};

struct ClickOptions {
  ClickModel model;
  int64_t shown = 10;     // ranks that users see
  int64_t sessions = 16;  // of every list with documents
  double swap_share = 0;  // sessions with an intervention: see ClickLog::swapped
  uint64_t seed = 0;
};

// What users saw and did. Session s showed documents[offsets[s]] at rank 1 and so on.
struct ClickLog {
  std::vector<int64_t> offsets;    // (S + 1)
  std::vector<int64_t> lists;      // (S) the list of each session
  std::vector<int64_t> documents;  // (N) rows of the lists
  std::vector<uint8_t> clicks;     // (N) 0 or 1
  // (S) 0, or the rank k ≥ 2, drawn evenly, that was to change places with rank 1, which it then
  // did with probability 1/2 (Joachims et al., WSDM 2017, section 5.3).
  std::vector<int32_t> swapped;
  int64_t shown = 0;

  int64_t sessions() const { return static_cast<int64_t>(lists.size()); }
};

// Sessions of every list, ranked by falling logging scores (N), ties by input order. Which clicks a
// session has depends on the seed, its list and its number within the list alone. Error for options
// out of range, labels above the largest, and scores of another number or NaN.
ClickLog simulate_clicks(const Judged& lists, std::span<const double> logging_scores,
                         const ClickOptions& options);

// ---- how likely a rank is to be examined, relative to rank 1: (shown), the first 1. Ranks about
// which the log says nothing have NaN. All estimators assume the position model.

// Clicks divided by sessions; what one would take it for if all ranks were equally relevant.
std::vector<double> click_rates(const ClickLog& log);

// From sessions with interventions: documents of ranks 1 and k are equally often at both, so that
// clicks at k and at 1 differ by examination alone. Error for a log without interventions.
std::vector<double> swap_propensities(const ClickLog& log);

struct EmOptions {
  int64_t iterations = 100;
  double ridge = 1e-3;  // regression's L2 penalty on weights, in units of one click
};

// Expectation maximisation with an attraction of its own for every document (Wang et al., WSDM
// 2018, the position bias model): needs documents that were seen at several ranks.
std::vector<double> em_propensities(const ClickLog& log, const EmOptions& options = {});

// The same with attraction as a logistic regression of the documents' features (rows, width), which
// tells ranks apart without any intervention as far as features tell attraction ("regression-EM",
// Wang et al., WSDM 2018, section 4, with a linear model in place of trees). Features should be
// scaled. Error for features that are not finite, or of another number.
std::vector<double> regression_em_propensities(const ClickLog& log, std::span<const float> features,
                                               int64_t width, const EmOptions& options = {});

}  // namespace binade::heads::rank
