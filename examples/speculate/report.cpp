#include "report.h"

#include <algorithm>

#include <binade/core/text.h>
#include <binade/data/conversations.h>
#include <binade/train/chart.h>

namespace binade::examples {
namespace {

namespace decoding = heads::decoding;

constexpr size_t kShownDifferences = 10;

void print_speed(const char* name, const decoding::DecodedTexts& run) {
  say("{:<12}{:>10}{:>10}{:>12.2f}{:>12.1f}\n", name, run.tokens, run.steps, run.seconds,
      run.tokens_per_second());
}

void print_ranks(const decoding::RankCounts& ranks) {
  say("\n{:<8}{:>10}", "head", "labels");
  const int64_t shown = std::min<int64_t>(5, ranks.width());
  for (int64_t n = 1; n <= shown; ++n) say("{:>8}", "top-" + std::to_string(n));
  say("\n");
  for (int64_t head = 0; head < ranks.heads() && ranks.labels(head) > 0; ++head) {
    say("{:<8}{:>10}", head + 1, ranks.labels(head));
    for (int64_t n = 1; n <= shown; ++n) say("{:>8.3f}", ranks.top(head, n));
    say("\n");
  }
}

// A token as text, on one line.
std::string shown(const Session& session, int32_t token) {
  if (token < 0) return "the end";
  return "'" + one_line(std::string(session.base.tokenizer->token_bytes(token, false))) + "'";
}

}  // namespace

void print_figures(const decoding::DecodedTexts& speculative, const decoding::DecodedTexts* plain) {
  say("{:<12}{:>10}{:>10}{:>12}{:>12}\n", "", "tokens", "steps", "seconds", "tokens/s");
  if (plain) print_speed("plain", *plain);
  print_speed("speculative", speculative);
  say("tau {:.3f} tokens a pass of the model", speculative.stats.tau());
  if (plain)
    say(", speed-up {:.2f} x", speculative.tokens_per_second() / plain->tokens_per_second());
  say("\n");
  const decoding::AcceptanceStats& stats = speculative.stats;
  if (stats.depth() > 0)
    say("\n{:<8}{:>10}{:>10}{:>12}\n", "depth", "offered", "accepted", "share");
  for (int64_t depth = 1; depth <= stats.depth(); ++depth)
    say("{:<8}{:>10}{:>10}{:>12.3f}\n", depth, stats.offered(depth), stats.accepted(depth),
        stats.acceptance(depth));
  if (speculative.ranks) print_ranks(*speculative.ranks);
}

void print_answers(const Session& session, const std::vector<std::string>& answers,
                   const decoding::DecodedTexts* speculative, const decoding::DecodedTexts* plain) {
  const auto known = std::count_if(answers.begin(), answers.end(),
                                   [](const std::string& answer) { return !answer.empty(); });
  if (known == 0) return;
  const auto print = [&](const char* name, const decoding::DecodedTexts& run) {
    int64_t exact = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      const auto number = data::final_number(session.base.tokenizer->decode(run.texts[i]));
      if (!answers[i].empty() && number && parse_number(*number) == parse_number(answers[i]))
        ++exact;
    }
    say("{}: {} of {} answers are exact ({:.1f} %)\n", name, exact, known,
        100.0 * static_cast<double>(exact) / static_cast<double>(known));
  };
  if (plain) print("plain", *plain);
  if (speculative) print("speculative", *speculative);
}

void draw_acceptance(const std::string& folder, const decoding::AcceptanceStats& stats) {
  train::ChartSeries conditional{"of those offered", {}, {}}, reached{"of all passes", {}, {}};
  for (int64_t depth = 1; depth <= stats.depth(); ++depth) {
    conditional.x.push_back(static_cast<double>(depth));
    conditional.y.push_back(stats.acceptance(depth));
    reached.x.push_back(static_cast<double>(depth));
    reached.y.push_back(static_cast<double>(stats.accepted(depth)) /
                        static_cast<double>(std::max<int64_t>(stats.passes(), 1)));
  }
  create_folder(folder);
  write_text_file(
      std::filesystem::path(folder) / "acceptance.svg",
      train::draw_chart({{"share of guesses that are accepted", {conditional, reached}}},
                        "depth: tokens beyond the model's own"));
}

void print_comparison(const Session& session, const decoding::TextComparison& comparison) {
  say("\n{} of {} texts are those of plain greedy decoding", comparison.equal(), comparison.texts);
  if (!comparison.differences.empty()) say(", {} part at a near tie", comparison.near_ties());
  say("\n");
  size_t listed = 0;
  for (const decoding::TextDifference& d : comparison.differences) {
    if (d.near_tie() && ++listed > kShownDifferences) continue;
    say("{}text {} at token {}: plain {} lies {:.4f} below the largest logit {:.3f}, speculative "
        "{} {:.4f} below (rounding: {:.4f})\n",
        d.near_tie() ? "" : "NOT A NEAR TIE: ", d.text + 1, d.place + 1, shown(session, d.plain),
        d.plain_below, d.largest, shown(session, d.speculative), d.speculative_below, d.tolerance);
  }
  const int64_t faults =
      static_cast<int64_t>(comparison.differences.size()) - comparison.near_ties();
  check(faults == 0, faults, " of ", comparison.texts,
        " texts differ from plain greedy decoding by more than rounding");
}

}  // namespace binade::examples
