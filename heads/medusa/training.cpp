#include <binade/heads/medusa/training.h>

#include <cmath>

#include <binade/heads/decoding/heads_loss.h>

namespace binade::heads::medusa {

namespace {

// The language model's hidden states, without a tape.
Tensor base_states(const MedusaHeads& heads, const train::Named<Tensor>& batch, bool packed) {
  const NoGrad off;
  return heads.base().hidden_states(batch.at("ids"), decoding::sequence_of(batch, packed));
}

}  // namespace

std::vector<double> coefficients(int64_t heads, const MedusaLossOptions& options) {
  std::vector<double> result;
  for (int64_t k = 1; k <= heads; ++k)
    result.push_back(std::pow(options.decay, static_cast<double>(k)));
  return result;
}

std::function<train::StepData(int64_t)> medusa_data(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t heads,
    int64_t accumulation) {
  return decoding::heads_data(std::move(documents), {.count = heads}, accumulation);
}

train::LossFunction medusa_loss(const MedusaHeads& heads, const decoding::PackingOptions& packing,
                                const MedusaLossOptions& options) {
  const int64_t count = heads.config().heads;
  check(options.decay > 0 && options.decay <= 1, "the decay of Medusa's coefficients lies in ",
        "(0, 1], got ", options.decay);
  return [&heads, set = decoding::HeadSet{.count = count}, packed = packing.pack,
          lambda = coefficients(count, options)](const train::LossInputs& in) {
    return decoding::heads_loss(set, base_states(heads, in.batch, packed), heads.loss_heads(lambda),
                                in, heads.base().config().vocab_size);
  };
}

decoding::HeadAccuracy head_accuracy(const MedusaHeads& heads,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches) {
  const int64_t count = heads.config().heads;
  const std::vector<DecodingHead> loss_heads =
      heads.loss_heads(std::vector<double>(static_cast<size_t>(count), 1));
  return decoding::head_accuracy(
      documents, heads.base().device(),
      {.preset = preset, .batches = batches, .classes = heads.base().config().vocab_size},
      [&](const train::Named<Tensor>& batch, const MultiHeadLossOptions& options) {
        return multi_head_loss(base_states(heads, batch, documents.options().pack), loss_heads,
                               shifted_labels(batch.at("labels"), batch.at("documents"),
                                              decoding::HeadSet{.count = count}.shifts()),
                               options);
      });
}

}  // namespace binade::heads::medusa
