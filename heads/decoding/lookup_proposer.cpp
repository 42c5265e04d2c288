#include <binade/heads/decoding/lookup_proposer.h>

#include <algorithm>

#include <binade/core/error.h>

namespace binade::heads::decoding {
namespace {

// Where the latest earlier place of the text's last n tokens ends; 0: there is none.
size_t latest_match(std::span<const int32_t> text, size_t n) {
  if (n >= text.size()) return 0;
  const auto last = text.last(n);
  for (size_t end = text.size() - 1; end >= n; --end)
    if (std::equal(last.begin(), last.end(), text.begin() + static_cast<int64_t>(end - n)))
      return end;
  return 0;
}

}  // namespace

void LookupOptions::validate() const {
  check(shortest >= 1 && longest >= shortest, "lookup needs n-grams of 1 or more tokens, got ",
        shortest, " to ", longest);
  check(guesses >= 1 && guesses < kMostNodes, "lookup drafts 1 to ", kMostNodes - 1,
        " guesses, got ", guesses);
}

std::vector<int32_t> lookup(std::span<const int32_t> text, const LookupOptions& options) {
  options.validate();
  for (int64_t n = options.longest; n >= options.shortest; --n) {
    const size_t end = latest_match(text, static_cast<size_t>(n));
    if (end == 0) continue;
    std::vector<int32_t> guesses;
    const size_t behind = text.size() - end;
    for (size_t i = 0; i < static_cast<size_t>(options.guesses); ++i)
      guesses.push_back(i < behind ? text[end + i] : guesses[i - behind]);
    return guesses;
  }
  return {};
}

LookupProposer::LookupProposer(int64_t slots, const LookupOptions& options, Device device)
    : options_(options), device_(device) {
  options.validate();
  check(slots >= 1, "a proposer needs 1 or more slots, got ", slots);
  texts_.resize(static_cast<size_t>(slots));
}

void LookupProposer::observe(const Observation& observation) {
  const std::vector<int32_t>& slots = observation.slots;
  const std::vector<std::vector<int32_t>>& rows = observation.text;
  check(rows.size() == (slots.empty() ? texts_.size() : slots.size()),
        "prompt lookup needs the text of each row on the host, got ", rows.size(), " rows");
  for (size_t row = 0; row < rows.size(); ++row) {
    const size_t slot = slots.empty() ? row : static_cast<size_t>(slots[row]);
    check(slot < texts_.size(), "there are ", texts_.size(), " slots, got text for slot ", slot);
    std::vector<int32_t>& text = texts_[slot];
    if (observation.prompts || rows[row].empty()) text.clear();
    if (rows[row].empty()) continue;
    check(observation.prompts || !text.empty(), "slot ", slot,
          " goes on with a text whose prompt was not observed");
    // The first token of an accepted path is the root, which stands in the text already.
    const int64_t known = observation.prompts ? 0 : 1;
    text.insert(text.end(), rows[row].begin() + known, rows[row].end());
  }
}

Drafts LookupProposer::propose(const BatchDraws& /*draws*/) {
  std::vector<std::vector<int32_t>> guesses;
  size_t longest = 0;
  for (const std::vector<int32_t>& text : texts_) {
    guesses.push_back(lookup(text, options_));
    longest = std::max(longest, guesses.back().size());
  }
  const size_t nodes = longest + 1;
  std::vector<int32_t> tokens(texts_.size() * nodes, kNoToken);
  for (size_t slot = 0; slot < texts_.size(); ++slot) {
    const auto row = tokens.begin() + static_cast<int64_t>(slot * nodes);
    *row = texts_[slot].empty() ? 0 : texts_[slot].back();
    std::copy(guesses[slot].begin(), guesses[slot].end(), row + 1);
  }
  Drafts drafts;
  drafts.tree = DraftTree::chain(static_cast<int64_t>(longest));
  drafts.tokens = Array::from(
      tokens, {static_cast<int64_t>(texts_.size()), static_cast<int64_t>(nodes)}, device_);
  return drafts;
}

}  // namespace binade::heads::decoding
