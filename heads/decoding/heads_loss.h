// The loss of decoding heads for the trainer: labels further ahead, a normaliser a head, and what
// is reported of each.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <binade/autograd/ops/multi_head_loss.h>
#include <binade/heads/decoding/documents.h>
#include <binade/heads/decoding/hidden_cache.h>

namespace binade::heads::decoding {

// Heads 1 … `count` predict so many tokens beyond the next.
struct HeadSet {
  int64_t count = 1;
  bool with_main = false;  // in front of them: the model's own prediction of the next token

  // By how much labels, which are the next tokens, are shifted: an entry a head.
  std::vector<int64_t> shifts() const;
  // "main", "head1" …: of their normalisers and of what is reported.
  std::vector<std::string> names() const;
};

// The data of a step: a batch of packed documents, cut into micro-batches of equal size, and a
// normaliser a head: how many labels it has in the whole step. With a cache of hidden states the
// batch has them as "hidden". Throws Error for documents in which no head has a label.
std::function<train::StepData(int64_t)> heads_data(
    std::shared_ptr<const PackedDocuments> documents, const HeadSet& set, int64_t accumulation,
    std::shared_ptr<const HiddenCache> cache = nullptr);

// multi_head_loss() of a micro-batch: `heads` are those of the set, in order. labels (B, T): the
// next tokens; documents (B, T), or undefined: one a row. Reports <name>_loss, the mean over the
// head's labels, and <name>_top1, the share of labels that are its likeliest token.
// multi_head_loss() says what `hidden` and `classes` are. factors (K) f32 above 0, or undefined:
// what coefficients are multiplied by, where they follow the step's number.
train::Loss heads_loss(const HeadSet& set, const Tensor& hidden,
                       const std::vector<DecodingHead>& heads, const train::LossInputs& in,
                       int64_t classes, const Tensor& factors = {});

// For heads 1, 2, …: `share`, in [0, 1], of what each learns from its labels becomes the chance
// that a draft sampled from it is accepted, −Σ min(p, q) in place of the cross-entropy ("LK" loss).
// p is what the model itself says there, constant: of its hidden states (B, T, dim) behind the last
// norm and its output layer. Reported losses then have that share, too. Share 0 changes nothing.
void learn_acceptance(std::span<DecodingHead> heads, double share, const Tensor& hidden,
                      const Tensor& weight);

}  // namespace binade::heads::decoding
