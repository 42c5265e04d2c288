#include <binade/heads/language_model/documents.h>

#include <binade/heads/decoding/head_accuracy.h>
#include <binade/heads/decoding/heads_loss.h>

namespace binade::heads::language_model {

namespace {

constexpr decoding::HeadSet kNextToken{.count = 0, .with_main = true};

}  // namespace

std::function<train::StepData(int64_t)> document_batches(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t accumulation) {
  return decoding::heads_data(std::move(documents), kNextToken, accumulation);
}

train::LossFunction document_loss(const nn::CausalLm& model,
                                  const decoding::PackingOptions& packing,
                                  std::shared_ptr<const nn::CausalLm> teacher) {
  check(!teacher || teacher->vocabulary_rows() == model.vocabulary_rows(),
        "the teacher has a vocabulary of ", teacher ? teacher->config().vocab_size : 0,
        ", the model one of ", model.config().vocab_size, "; they must be the same");
  return
      [&model, teacher = std::move(teacher), packed = packing.pack](const train::LossInputs& in) {
        const nn::Sequence sequence = decoding::sequence_of(in.batch, packed);
        DecodingHead head;
        head.weight = model.head_weight();
        if (teacher) {
          const NoGrad off;
          head.hard = 0;
          head.soft = 1;
          head.teacher = Teacher{teacher->hidden_states(in.batch.at("ids"), sequence),
                                 teacher->head_weight().detach(), 1, 0};
        }
        return decoding::heads_loss(kNextToken, model.hidden_states(in.batch.at("ids"), sequence),
                                    {head}, in, model.config().vocab_size);
      };
}

double validation_loss(const nn::CausalLm& model, const decoding::PackedDocuments& documents,
                       const amp::Preset& preset, int64_t batches, train::DataParallel* parallel) {
  const decoding::HeadAccuracy accuracy = decoding::head_accuracy(
      documents, model.device(),
      {.preset = preset,
       .batches = batches,
       .classes = model.config().vocab_size,
       .set = kNextToken,
       .parallel = parallel},
      [&](const train::Named<Tensor>& batch, const Tensor& labels,
          const MultiHeadLossOptions& options) {
        DecodingHead head;
        head.weight = model.head_weight();
        const nn::Sequence sequence = decoding::sequence_of(batch, documents.options().pack);
        return multi_head_loss(model.hidden_states(batch.at("ids"), sequence), {head}, labels,
                               options);
      });
  return accuracy.main_loss.value_or(0);
}

}  // namespace binade::heads::language_model
