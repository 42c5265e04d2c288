#include <binade/heads/eagle/training.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <binade/autograd/create.h>
#include <binade/autograd/ops.h>
#include <binade/autograd/tape.h>
#include <binade/core/text.h>

namespace binade::heads::eagle {

namespace {

constexpr int32_t kIgnore = -100;

Tensor documents_of(const train::Named<Tensor>& batch) {
  return batch.contains("documents") ? batch.at("documents") : Tensor();
}

// The draft vocabulary on the device.
class DraftLabels {
 public:
  explicit DraftLabels(const EagleHead& head) {
    const Array tokens = head.draft_tokens();
    if (!tokens.defined()) return;
    std::vector<int32_t> places(static_cast<size_t>(head.base().config().vocab_size), kIgnore);
    int32_t next = 0;
    for (const int32_t id : head.config().vocabulary.ids())
      places[static_cast<size_t>(id)] = next++;
    places_ = Tensor::from(places, {std::ssize(places)}, tokens.device());
    tokens_ = Tensor(tokens);
  }
  // Where tokens stand in the draft vocabulary; kIgnore stays, and stands for those outside.
  Tensor places(const Tensor& tokens) const {
    if (!places_.defined()) return tokens;
    const Tensor zero(Array::zeros({}, tokens.dtype(), tokens.device()));
    const Tensor found =
        reshape(index_select(places_, 0, reshape(maximum(tokens, zero), {-1})), tokens.shape());
    return where(less(tokens, zero), tokens, found);
  }
  // The rows of the model's output layer, without its padding.
  Tensor rows(const nn::CausalLm& base) const {
    if (tokens_.defined()) return index_select(base.head_weight(), 0, tokens_);
    return slice(base.head_weight(), 0, 0, base.config().vocab_size);
  }

 private:
  Tensor places_, tokens_;
};

// The likeliest token of each of hidden (B, T, dim) where labels (B, T) are none to be ignored. A
// few rows at a time, so that no logits of all are held.
Tensor likeliest(const nn::CausalLm& base, const Tensor& hidden, const Tensor& labels) {
  constexpr int64_t kRows = 1024;
  const decoding::DraftOutput output([&base](const Tensor& rows) { return base.logits(rows); });
  const Tensor rows = reshape(hidden, {-1, hidden.size(2)});
  const Array best = Array::empty({rows.size(0), 1}, DType::i32, hidden.device());
  for (int64_t first = 0; first < rows.size(0); first += kRows) {
    const int64_t end = std::min(first + kRows, rows.size(0));
    output.guess(slice(rows, 0, first, end), best.slice(0, first, end));
  }
  const Tensor zero(Array::zeros({}, DType::i32, labels.device()));
  return where(less(labels, zero), labels, reshape(Tensor(best), labels.shape()));
}

// The model's, from its pass or from the batch's cache of cached_states().
EagleHead::Trunk trunk_of(const EagleHead& head, const train::Named<Tensor>& batch, bool packed) {
  if (!batch.contains("hidden"))
    return head.trunk(batch.at("ids"), decoding::sequence_of(batch, packed));
  const Tensor& kept = batch.at("hidden");
  if (!head.own_output()) return {kept, kept};
  const int64_t dim = head.base().config().dim;
  return {contiguous(slice(kept, -1, 0, dim)), contiguous(slice(kept, -1, dim))};
}

TensorList unrolled(const EagleHead& head, const EagleHead::Trunk& trunk,
                    const train::Named<Tensor>& batch, bool packed, int64_t steps) {
  const Tensor documents = packed ? documents_of(batch) : Tensor();
  return head.unroll(trunk, batch.at("ids"), documents, decoding::sequence_of(batch, packed),
                     steps);
}

// Smooth L1 between outputs and the features of the next tokens, the mean over their numbers,
// summed where `labels` (B, T) say that the next token counts.
Tensor regression(const Tensor& output, const Tensor& hidden, const Tensor& labels,
                  const Tensor& normaliser) {
  const Tensor next = roll(hidden, {-1}, {1});  // what comes round is ignored
  const Tensor each = mean(smooth_l1_loss(to(output, DType::f32), to(next, DType::f32), 1,
                                          {.reduction = Reduction::none}),
                           {-1});
  const Tensor zero(Array::zeros({}, labels.dtype(), labels.device()));
  return sum(masked_fill(each, less(labels, zero), 0)) / normaliser;
}

void check_options(const EagleLossOptions& options) {
  check(options.steps >= 1, "a training-time test has 1 or more steps, got ", options.steps);
  check(options.decay > 0 && options.decay <= 1, "the decay of EAGLE's steps lies in (0, 1], got ",
        options.decay);
  check(options.feature >= 0 && options.noise >= 0,
        "the weight of EAGLE-1's regression and its noise are 0 or more, got ", options.feature,
        " and ", options.noise);
  check(options.hard >= 0 && options.soft >= 0 && options.acceptance >= 0 &&
            options.hard + options.soft + options.acceptance > 0,
        "an EAGLE head learns from what the model says: 'hard', 'soft' or 'acceptance' must be ",
        "above 0, and none below, got ", options.hard, ", ", options.soft, " and ",
        options.acceptance);
}

train::Loss loss_of(const decoding::HeadSet& set, const TensorList& outputs, const EagleHead& head,
                    const Teacher& teacher, const EagleLossOptions& options,
                    const train::LossInputs& in) {
  const bool own = head.own_output();
  std::vector<DecodingHead> heads;
  const std::vector<double> lambda = coefficients(options);
  for (size_t s = 0; s < outputs.size(); ++s) {
    DecodingHead& one = heads.emplace_back();
    one.hidden = outputs[s];
    one.weight = head.output_weight();
    one.coefficient = lambda[s];
    one.hard = options.hard;
    one.soft = options.soft;
    one.acceptance = options.acceptance;
    one.teacher = teacher;
    one.teacher->shift = static_cast<int64_t>(s) + 1;
  }
  return decoding::heads_loss(set, {}, heads, in, own ? 0 : head.base().config().vocab_size);
}

}  // namespace

EagleLossOptions EagleLossOptions::of(Version version) {
  EagleLossOptions options;
  if (version == Version::eagle1) options.soft = 0.1;
  return options;
}

decoding::CachedStates cached_states(const EagleHead& head, const amp::Preset& preset) {
  const int64_t dim = head.base().config().dim;
  decoding::CachedStates states{
      .what = "hidden states",
      .width = dim,
      .compute = [&head](const Tensor& ids, const nn::Sequence& sequence) {
        const EagleHead::Trunk trunk = head.trunk(ids, sequence);
        return head.own_output() ? cat({trunk.hidden, trunk.features}, -1) : trunk.hidden;
      }};
  if (head.own_output()) {
    states.what += " and the streams that enter layers";
    for (const int64_t layer : head.config().layers) {
      states.what += concat(states.width == dim ? " " : ", ", layer);
      states.width += dim;
    }
  }
  states.what += concat(", of preset ", preset.name);
  return states;
}

std::vector<int64_t> label_counts(const decoding::PackedDocuments& documents,
                                  const nn::CausalLmConfig& base) {
  std::vector<int64_t> counts(static_cast<size_t>(base.vocab_size), 0);
  const int64_t rows = documents.options().batch_size;
  for (int64_t first = 0; first < documents.row_count(); first += rows)
    for (const int32_t label : documents.rows_from(first).at("labels").to_vector<int32_t>())
      if (label >= 0) ++counts.at(static_cast<size_t>(label));
  for (const int64_t id : base.stop_ids())
    counts.at(static_cast<size_t>(id)) = std::numeric_limits<int64_t>::max();
  return counts;
}

decoding::HeadSet head_set(Version version, const EagleLossOptions& options) {
  return {.count = version == Version::eagle1 ? 1 : options.steps};
}

std::vector<double> coefficients(const EagleLossOptions& options) {
  check_options(options);
  std::vector<double> result;
  for (int64_t s = 0; s < options.steps; ++s)
    result.push_back(std::pow(options.decay, static_cast<double>(s)));
  return result;
}

train::LossFunction eagle_loss(const EagleHead& head, bool packed,
                               const EagleLossOptions& options) {
  check_options(options);
  const NoGrad off;
  const DraftLabels draft(head);
  return [&head, packed, options, draft, set = head_set(head.config().version, options),
          teacher_rows =
              (head.own_output() ? draft.rows(head.base()) : head.base().head_weight()).detach()](
             const train::LossInputs& in) {
    EagleHead::Trunk trunk;
    train::LossInputs mapped = in;
    {
      const NoGrad frozen;
      trunk = trunk_of(head, in.batch, packed);
      if (head.own_output()) {
        const Tensor& labels = in.batch.at("labels");
        mapped.batch.at("labels") = draft.places(likeliest(head.base(), trunk.hidden, labels));
      } else if (options.noise > 0) {
        const Shape shape = trunk.features.shape();
        const double most = options.noise * 512 / static_cast<double>(shape[1]);
        const Tensor noise = (rand(shape, trunk.features.device()) - 0.5) * (2 * most);
        trunk.features = trunk.features + to(noise, trunk.features.dtype());
      }
    }
    const Teacher teacher{trunk.hidden, teacher_rows};
    const TensorList outputs = unrolled(head, trunk, in.batch, packed, set.count);
    train::Loss loss = loss_of(set, outputs, head, teacher, options, mapped);
    if (head.own_output()) return loss;
    const Tensor next =
        select(shifted_labels(in.batch.at("labels"), documents_of(in.batch), {1}), 0, 0);
    const Tensor feature = regression(outputs[0], trunk.hidden, next, in.normalisers.at("head1"));
    loss.value = loss.value + feature * options.feature;
    loss.scalars.add("feature_loss", feature.detach());
    return loss;
  };
}

decoding::HeadAccuracy head_accuracy(const EagleHead& head,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches,
                                     const EagleLossOptions& options,
                                     train::DataParallel* parallel) {
  const NoGrad off;
  const DraftLabels draft(head);
  const bool packed = documents.options().pack;
  return decoding::head_accuracy(
      documents, head.base().device(),
      {.preset = preset,
       .batches = batches,
       .classes = head.own_output() ? 0 : head.base().config().vocab_size,
       .set = {.count = options.steps},
       .parallel = parallel},
      [&](const train::Named<Tensor>& batch, const Tensor& labels,
          const MultiHeadLossOptions& loss) {
        const EagleHead::Trunk trunk =
            head.trunk(batch.at("ids"), decoding::sequence_of(batch, packed));
        std::vector<DecodingHead> heads;
        for (const Tensor& output : unrolled(head, trunk, batch, packed, options.steps)) {
          DecodingHead& one = heads.emplace_back();
          one.hidden = output;
          one.weight = head.output_weight();
        }
        MultiHeadLoss result = multi_head_loss({}, heads, draft.places(labels), loss);
        // Means and shares are over all labels, not only those that can be guessed.
        const Tensor zero(Array::zeros({}, labels.dtype(), labels.device()));
        const Tensor all =
            to(sum(to(greater_equal(labels, zero), DType::f32), {1, 2}), result.valid.dtype());
        result.losses = result.losses * result.valid / maximum(all, all * 0 + 1);
        result.valid = all;
        return result;
      });
}

}  // namespace binade::heads::eagle
