#include <binade/heads/medusa/training.h>

#include <cmath>
#include <numbers>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/shape.h>

namespace binade::heads::medusa {

namespace {

// The language model's hidden states, with a tape only where it is trained: the batch's own where
// it has them.
Tensor base_states(const MedusaHeads& heads, const train::Named<Tensor>& batch, bool packed,
                   bool trained) {
  std::optional<NoGrad> off;
  if (!trained) off.emplace();
  if (batch.contains("hidden"))
    return Tensor(batch.at("hidden").array().to(heads.base().head_weight().dtype()));
  return heads.base().hidden_states(batch.at("ids"), decoding::sequence_of(batch, packed));
}

// The heads in the order of head_set(), with these coefficients.
std::vector<DecodingHead> all_heads(const MedusaHeads& heads, const std::vector<double>& lambda,
                                    const MedusaLossOptions& options, const Tensor& hidden,
                                    const train::Named<Tensor>& batch, bool packed) {
  std::vector<DecodingHead> all = heads.loss_heads(lambda);
  decoding::learn_acceptance(all, options.acceptance, hidden, heads.base().head_weight());
  if (!options.joint) return all;
  DecodingHead main;
  main.weight = heads.base().head_weight();
  if (options.joint->teacher) {
    const NoGrad off;
    main.hard = 0;
    main.soft = 1;
    main.teacher = Teacher{
        options.joint->teacher(batch.at("ids"), decoding::sequence_of(batch, packed)).detach(),
        options.joint->teacher_weight.detach(), 1, 0};
  }
  all.insert(all.begin(), main);
  return all;
}

// What λ0 is multiplied by at this step, for each of the set's heads: (K), or undefined.
Tensor ramp_factors(const decoding::HeadSet& set, const MedusaLossOptions& options,
                    const Tensor& step) {
  if (!options.joint || options.joint->ramp == 0) return {};
  const NoGrad off;
  const double slope = std::numbers::pi / 2 / static_cast<double>(options.joint->ramp);
  // The first step is step 0, and has a share already.
  const Tensor share = sin(clamp((step + 1) * slope, 0, std::numbers::pi / 2));
  TensorList factors(static_cast<size_t>(set.count), share);
  factors.insert(factors.begin(), share * 0 + 1);
  return stack(factors, 0);
}

void check_options(const MedusaLossOptions& options) {
  check(options.decay > 0 && options.decay <= 1, "the decay of Medusa's coefficients lies in ",
        "(0, 1], got ", options.decay);
  if (!options.joint) return;
  check(options.joint->weight >= 0 && options.joint->ramp >= 0,
        "the weight of Medusa's loss and its ramp are 0 or more, got ", options.joint->weight,
        " and ", options.joint->ramp);
  check(!options.joint->teacher == !options.joint->teacher_weight.defined(),
        "a teacher needs hidden states and an output layer");
}

}  // namespace

std::vector<double> coefficients(int64_t heads, const MedusaLossOptions& options) {
  std::vector<double> result;
  for (int64_t k = 1; k <= heads; ++k)
    result.push_back((options.joint ? options.joint->weight : 1) *
                     std::pow(options.decay, static_cast<double>(k)));
  return result;
}

decoding::HeadSet head_set(int64_t heads, const MedusaLossOptions& options) {
  return {.count = heads, .with_main = options.joint.has_value()};
}

std::function<train::StepData(int64_t)> medusa_data(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t heads, int64_t accumulation,
    const MedusaLossOptions& options, std::shared_ptr<const decoding::HiddenCache> cache) {
  check(!cache || !options.joint, "a model that is trained has no hidden states to keep in a file");
  return decoding::heads_data(std::move(documents), head_set(heads, options), accumulation,
                              std::move(cache));
}

train::LossFunction medusa_loss(const MedusaHeads& heads, const decoding::PackingOptions& packing,
                                const MedusaLossOptions& options) {
  check_options(options);
  const int64_t count = heads.config().heads;
  return [&heads, options, set = head_set(count, options), packed = packing.pack,
          lambda = coefficients(count, options)](const train::LossInputs& in) {
    const Tensor hidden = base_states(heads, in.batch, packed, options.joint.has_value());
    return decoding::heads_loss(
        set, hidden, all_heads(heads, lambda, options, hidden, in.batch, packed), in,
        heads.base().config().vocab_size, ramp_factors(set, options, in.step));
  };
}

decoding::HeadAccuracy head_accuracy(const MedusaHeads& heads,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches,
                                     const MedusaLossOptions& options,
                                     train::DataParallel* parallel) {
  const decoding::HeadSet set = head_set(heads.config().heads, options);
  MedusaLossOptions against_text = options;  // the model's own loss, too, whatever teaches it
  against_text.acceptance = 0;
  if (options.joint) against_text.joint->teacher = {};
  const std::vector<double> ones(static_cast<size_t>(set.count), 1);
  const bool packed = documents.options().pack;
  return decoding::head_accuracy(
      documents, heads.base().device(),
      {.preset = preset,
       .batches = batches,
       .classes = heads.base().config().vocab_size,
       .set = set,
       .parallel = parallel},
      [&](const train::Named<Tensor>& batch, const Tensor& labels,
          const MultiHeadLossOptions& loss) {
        const Tensor hidden = base_states(heads, batch, packed, false);
        return multi_head_loss(hidden, all_heads(heads, ones, against_text, hidden, batch, packed),
                               labels, loss);
      });
}

}  // namespace binade::heads::medusa
