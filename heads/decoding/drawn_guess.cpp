#include <binade/heads/decoding/drawn_guess.h>

#include <span>

#include <binade/infer/token_distribution.h>

namespace binade::heads::decoding {

void DrawnGuesses::prepare(Drafts& drafts) const {
  const int64_t slots = drafts.tokens.size(0), nodes = drafts.tokens.size(1);
  const Device device = drafts.tokens.device();
  drafts.drawn = Drawn::with_replacement;
  drafts.q = Array::empty({slots, nodes - 1, options_.vocabulary}, DType::f32, device);
  std::vector<int32_t> rows(static_cast<size_t>(nodes), -1);
  for (size_t n = 0; n + 1 < rows.size(); ++n) rows[n] = static_cast<int32_t>(n);
  drafts.q_row_of = Array::from(rows, {nodes}, device);
}

void DrawnGuesses::draw(const Array& logits, int64_t number, const BatchDraws& draws,
                        const Drafts& drafts) const {
  const std::vector<float> all = logits.to_vector<float>();
  const std::vector<int32_t> passes = draws.passes.to_vector<int32_t>();
  const std::vector<int32_t> places = draws.places.to_vector<int32_t>();
  const auto columns = static_cast<size_t>(logits.size(1)),
             vocabulary = static_cast<size_t>(options_.vocabulary);
  std::vector<float> q;
  std::vector<int32_t> tokens;
  for (size_t slot = 0; slot < passes.size(); ++slot) {
    const std::span<const float> row(all.data() + slot * columns, columns);
    const std::vector<double> p =
        infer::token_probabilities(row, options_.sampling, "the draft's logits");
    std::vector<float> rounded(vocabulary, 0);
    for (size_t i = 0; i < columns; ++i)
      rounded[options_.names.empty() ? i : static_cast<size_t>(options_.names[i])] =
          static_cast<float>(p[i]);
    q.insert(q.end(), rounded.begin(), rounded.end());
    tokens.push_back(draw_siblings(rounded, 1, drafts.drawn,
                                   {.seed = draws.seed,
                                    .pass = static_cast<uint64_t>(passes[slot]),
                                    .place = static_cast<uint64_t>(places[slot])},
                                   number)[0]);
  }
  const auto slots = static_cast<int64_t>(passes.size());
  drafts.tokens.slice(1, number, number + 1).copy_from(Array::from(tokens, {slots, 1}));
  drafts.q.select(1, number - 1).copy_from(Array::from(q, {slots, options_.vocabulary}));
}

}  // namespace binade::heads::decoding
