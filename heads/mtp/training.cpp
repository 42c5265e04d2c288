#include <binade/heads/mtp/training.h>

#include <cmath>

namespace binade::heads::mtp {

namespace {

// The heads of a batch in the order of head_set(); the model's pass is recorded if it is trained.
std::vector<DecodingHead> evaluate(const MtpHeads& heads, const train::Named<Tensor>& batch,
                                   bool packed, const MtpLossOptions& options,
                                   const std::vector<double>& lambda) {
  const nn::Sequence sequence = decoding::sequence_of(batch, packed);
  const Tensor &ids = batch.at("ids"),
               documents = batch.contains("documents") ? batch.at("documents") : Tensor();
  MtpHeads::Trunk trunk;
  if (options.joint) {
    trunk = heads.trunk(ids, sequence);
  } else {
    const NoGrad off;
    trunk = heads.trunk(ids, sequence);
  }
  std::vector<DecodingHead> result =
      heads.loss_heads(heads.outputs(trunk, ids, documents, sequence), lambda);
  decoding::learn_acceptance(result, options.acceptance, trunk.hidden, heads.base().head_weight());
  if (options.joint)
    result.insert(result.begin(),
                  {.hidden = trunk.hidden, .blocks = {}, .weight = heads.base().head_weight()});
  return result;
}

}  // namespace

std::vector<double> coefficients(const MtpConfig& config, const MtpLossOptions& options) {
  check(options.weight >= 0, "the weight of the multi-token loss is 0 or more, got ",
        options.weight);
  check(options.beta > 0 && options.beta <= 1, "β of recursive modules lies in (0, 1], got ",
        options.beta);
  std::vector<double> result;
  double total = 0;
  for (int64_t k = 0; k < config.depth; ++k) {
    const double share =
        config.kind == Kind::recursive ? std::pow(options.beta, static_cast<double>(k)) : 1;
    result.push_back(options.weight * share);
    total += share;
  }
  if (config.kind == Kind::parallel) total = 1;  // a sum, not a mean
  for (double& coefficient : result) coefficient /= total;
  return result;
}

decoding::HeadSet head_set(const MtpConfig& config, const MtpLossOptions& options) {
  return {.count = config.depth, .with_main = options.joint};
}

train::LossFunction mtp_loss(const MtpHeads& heads, bool packed, const MtpLossOptions& options) {
  return [&heads, packed, options, set = head_set(heads.config(), options),
          lambda = coefficients(heads.config(), options)](const train::LossInputs& in) {
    return decoding::heads_loss(set, {}, evaluate(heads, in.batch, packed, options, lambda), in,
                                heads.base().config().vocab_size);
  };
}

decoding::HeadAccuracy head_accuracy(const MtpHeads& heads,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches,
                                     const MtpLossOptions& options, train::DataParallel* parallel) {
  const decoding::HeadSet set = head_set(heads.config(), options);
  const std::vector<double> ones(static_cast<size_t>(set.count), 1);
  MtpLossOptions against_text = options;
  against_text.acceptance = 0;
  return decoding::head_accuracy(
      documents, heads.base().device(),
      {.preset = preset,
       .batches = batches,
       .classes = heads.base().config().vocab_size,
       .set = set,
       .parallel = parallel},
      [&](const train::Named<Tensor>& batch, const Tensor& labels,
          const MultiHeadLossOptions& loss) {
        return multi_head_loss(
            {}, evaluate(heads, batch, documents.options().pack, against_text, ones), labels, loss);
      });
}

}  // namespace binade::heads::mtp
