#include <binade/heads/decoding/draft_vocabulary.h>

#include <algorithm>
#include <numeric>

#include <binade/autograd/ops.h>
#include <binade/core/error.h>
#include <binade/core/kernels/drafts.h>
#include <binade/nn/decode.h>

namespace binade::heads::decoding {

DraftVocabulary::DraftVocabulary(std::vector<int32_t> ids, int64_t vocabulary)
    : ids_(std::move(ids)) {
  check(!ids_.empty(), "a draft vocabulary needs a token");
  std::sort(ids_.begin(), ids_.end());
  check(ids_.front() >= 0 && ids_.back() < vocabulary, "a draft vocabulary has the token ",
        ids_.front() < 0 ? ids_.front() : ids_.back(), ", but the model has ", vocabulary);
  const auto twice = std::adjacent_find(ids_.begin(), ids_.end());
  check(twice == ids_.end(),
        "a draft vocabulary has a token twice: ", twice == ids_.end() ? 0 : *twice);
}

DraftVocabulary DraftVocabulary::most_frequent(std::span<const int64_t> counts, int64_t size) {
  check(size >= 1, "a draft vocabulary needs 1 or more tokens, got ", size);
  const auto vocabulary = std::ssize(counts);
  if (size >= vocabulary) return {};
  std::vector<int32_t> order(counts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return counts[static_cast<size_t>(a)] > counts[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(size));
  return {std::move(order), vocabulary};
}

DraftOutput::DraftOutput(const Tensor& weight, const DraftVocabulary& part) {
  check(!part.whole() && weight.dims() == 2 && part.ids().back() < weight.size(0),
        "an output layer of ", weight.shape(), " cannot give ", std::ssize(part.ids()),
        " of its tokens");
  const NoGrad off;
  names_ = Array::from(part.ids(), {std::ssize(part.ids())}, weight.device());
  logits_ = [rows = index_select(weight, 0, Tensor(names_))](const Tensor& hidden) {
    return nn::output_logits(hidden, rows);
  };
}

void DraftOutput::guess(const Tensor& hidden, const Array& tokens) const {
  const Tensor logits = logits_(hidden);
  if (tokens.size(1) <= kernels::kMostTopTokens) {
    const Array rows = logits.array();
    BINADE_DISPATCH(rows.device(), top_tokens(rows, names_, tokens));
    return;
  }
  const Tensor best = topk(logits, tokens.size(1), -1).second;
  tokens.copy_from(
      names_.defined()
          ? index_select(Tensor(names_), 0, reshape(best, {-1})).array().view(tokens.shape())
          : to(best, DType::i32).array());
}

}  // namespace binade::heads::decoding
