// Texts of speculative sampling have the target's distribution: χ² tests over all texts of three
// tokens, against products of the target's probabilities.
#include <binade/core/error.h>
#include <binade/heads/decoding/acceptance.h>

#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::heads::decoding;

namespace {

constexpr int64_t kVocabulary = 4;
constexpr size_t kLength = 3;
constexpr int64_t kTexts = 20000;

// Logits that depend on the last two tokens only through a hash, far from uniform.
std::vector<float> logits_behind(uint64_t model, const std::vector<int32_t>& text) {
  uint64_t state = 0;
  for (size_t i = text.size() < 2 ? 0 : text.size() - 2; i < text.size(); ++i)
    state = state * 7 + static_cast<uint64_t>(text[i]) + 1;
  std::vector<float> logits;
  for (uint64_t x = 0; x < kVocabulary; ++x)
    logits.push_back(4 * uniform_of(philox(model, state, x, 0).word[0]));
  return logits;
}

std::vector<double> shaped(const std::vector<float>& logits, double temperature, double top_p) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  double all = 0;
  for (const float x : logits) all += std::exp(static_cast<double>(x) / temperature);
  std::vector<double> p(logits.size());
  double sum = 0;
  for (const size_t x : order) {
    if (sum >= top_p) break;
    sum += p[x] = std::exp(static_cast<double>(logits[x]) / temperature) / all;
  }
  for (double& x : p) x /= sum;
  return p;
}

constexpr uint64_t kTarget = 11, kDraft = 12;

struct Setting {
  const char* name;
  DraftTree tree;
  Drawn drawn;
  Drawn said;           // what the rule is told
  bool shared = false;  // the guesses of a depth are the same under all parents, as Medusa's
  double temperature = 1, top_p = 1;
};

// One text of kLength tokens, drawn by speculative passes behind the token 0.
size_t draw_text(const Setting& setting, const AcceptanceRule& rule, uint64_t place) {
  std::vector<int32_t> text = {0};
  const DraftTree& tree = setting.tree;
  const auto nodes = static_cast<size_t>(tree.size());
  while (text.size() <= kLength) {
    const Draws draws{.seed = 5, .pass = text.size(), .place = place};
    std::vector<int32_t> tokens(nodes, kNoToken), row_of(nodes, -1);
    std::vector<float> rows, logits;
    tokens[0] = text.back();
    for (size_t node = 0; node < nodes; ++node) {
      std::vector<int32_t> behind(text.begin(), text.end() - 1);
      std::vector<int32_t> path;
      for (auto n = static_cast<int32_t>(node); n >= 0; n = tree.parents()[static_cast<size_t>(n)])
        path.insert(path.begin(), tokens[static_cast<size_t>(n)]);
      behind.insert(behind.end(), path.begin(), path.end());
      const std::vector<float> target = logits_behind(kTarget, behind);
      logits.insert(logits.end(), target.begin(), target.end());

      const std::vector<int32_t>& children = tree.children(static_cast<int64_t>(node));
      if (children.empty() || tokens[node] == kNoToken) continue;
      const int32_t depth = tree.depths()[node];
      const std::vector<int32_t> known =
          setting.shared ? std::vector<int32_t>{text.back(), depth} : behind;
      // Another shape than the target's: any distribution will do.
      const std::vector<double> q = shaped(logits_behind(kDraft, known), 1.5, 1);
      row_of[node] = static_cast<int32_t>(rows.size()) / kVocabulary;
      rows.insert(rows.end(), q.begin(), q.end());
      const std::span<const float> row(rows.data() + rows.size() - kVocabulary, kVocabulary);
      const std::vector<int32_t> guesses =
          draw_siblings(row, static_cast<int64_t>(children.size()), setting.drawn, draws,
                        setting.shared ? depth * kVocabulary : children.front());
      for (size_t i = 0; i < children.size(); ++i)
        tokens[static_cast<size_t>(children[i])] = guesses[i];
    }
    const Accepted accepted = rule.accept({.tree = tree,
                                           .tokens = tokens,
                                           .drawn = setting.said,
                                           .q = {.rows = rows, .row_of = row_of}},
                                          {logits, kVocabulary}, draws);
    for (size_t i = 1; i < accepted.nodes.size(); ++i)
      text.push_back(tokens[static_cast<size_t>(accepted.nodes[i])]);
    text.push_back(accepted.next);
  }
  size_t cell = 0;
  for (size_t i = 1; i <= kLength; ++i) cell = cell * kVocabulary + static_cast<size_t>(text[i]);
  return cell;
}

struct Fit {
  double z;         // χ² as a standard normal (Wilson & Hilferty 1931)
  bool impossible;  // a text that the target never gives
};

Fit fit(const Setting& setting) {
  const auto rule =
      speculative_sampling({.temperature = setting.temperature, .top_p = setting.top_p});
  const auto cells = static_cast<size_t>(std::pow(kVocabulary, kLength));
  std::vector<double> expected(cells, static_cast<double>(kTexts)), seen(cells);
  for (size_t cell = 0; cell < cells; ++cell) {
    std::vector<int32_t> text = {0};
    for (size_t i = 0, part = cells; i < kLength; ++i) {
      part /= kVocabulary;
      const size_t token = cell / part % kVocabulary;
      expected[cell] *=
          shaped(logits_behind(kTarget, text), setting.temperature, setting.top_p)[token];
      text.push_back(static_cast<int32_t>(token));
    }
  }
  for (int64_t i = 0; i < kTexts; ++i) ++seen[draw_text(setting, *rule, static_cast<uint64_t>(i))];

  Fit result{0, false};
  double chi2 = 0, rare_expected = 0, rare_seen = 0;
  int used = 0;
  for (size_t cell = 0; cell < cells; ++cell) {
    if (expected[cell] == 0) {
      result.impossible = result.impossible || seen[cell] > 0;
    } else if (expected[cell] < 10) {  // χ² needs larger cells: these are one
      rare_expected += expected[cell];
      rare_seen += seen[cell];
    } else {
      chi2 += std::pow(seen[cell] - expected[cell], 2) / expected[cell];
      ++used;
    }
  }
  if (rare_expected >= 10) {
    chi2 += std::pow(rare_seen - rare_expected, 2) / rare_expected;
    ++used;
  }
  const double freedom = used - 1;
  const double scale = 2 / (9 * freedom);
  result.z = (std::cbrt(chi2 / freedom) - (1 - scale)) / std::sqrt(scale);
  return result;
}

// A true rule exceeds it by chance once in 10^9 tests; the seeds are fixed beside.
constexpr double kLimit = 6;

const DraftTree kTree =
    DraftTree::from_choices({{0}, {1}, {2}, {0, 0}, {0, 1}, {1, 0}, {1, 1}, {0, 0, 0}});

}  // namespace

TEST_CASE("speculative sampling keeps the target's distribution", "[decoding]") {
  const Drawn best = Drawn::best, with = Drawn::with_replacement,
              without = Drawn::without_replacement;
  const DraftTree chain = DraftTree::chain(2);
  const Setting settings[] = {
      {"no drafts", DraftTree(), best, best},
      {"chain of most probable tokens", chain, best, best},
      {"drawn chain", chain, with, with},
      {"tree of most probable tokens", kTree, best, best},
      {"drawn tree, of whose q nothing is known", kTree, with, best},
      {"tree drawn with replacement", kTree, with, with},
      {"tree drawn without replacement", kTree, without, without},
      {"tree drawn without replacement, more siblings than tokens", DraftTree::full({6, 2}),
       without, without},
      {"guesses shared by all parents", kTree, without, without, true},
      {"temperature and top-p, most probable", kTree, best, best, false, 0.7, 0.8},
      {"temperature and top-p, with replacement", kTree, with, with, false, 0.7, 0.8},
      {"temperature and top-p, without replacement", kTree, without, without, false, 1.6, 0.8},
  };
  for (const Setting& setting : settings) {
    CAPTURE(setting.name);
    const Fit result = fit(setting);
    CHECK(result.z < kLimit);
    CHECK_FALSE(result.impossible);
  }
}

TEST_CASE("the test of exactness sees the known mistakes", "[decoding]") {
  const Drawn best = Drawn::best, with = Drawn::with_replacement,
              without = Drawn::without_replacement;
  const Setting settings[] = {
      {"plain q for siblings that were drawn without replacement", kTree, without, with},
      {"the same with guesses shared by all parents", kTree, without, with, true},
      {"siblings said to be drawn that are the most probable ones", kTree, best, without},
  };
  for (const Setting& setting : settings) {
    CAPTURE(setting.name);
    CHECK(fit(setting).z > 2 * kLimit);
  }
}
