#include <binade/heads/flow/training.h>

#include <binade/autograd/create.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/loss.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/heads/flow/flow.h>

namespace binade::heads::flow {

train::Batch batch_of(const data::PackedSlots& packed) {
  return {{"ids", packed.ids},
          {"targets", packed.targets},
          {"slots", packed.slots},
          {"positions", packed.positions},
          {"latents", packed.latents},
          {"logit_times", packed.logit_times},
          {"noised", packed.noised},
          {"latent_places", packed.latent_places},
          {"patches", packed.patches},
          {"patch_places", packed.patch_places},
          {"patch_images", packed.patch_images},
          {"patch_slots", packed.patch_slots}};
}

train::Named<Tensor> on_device(const data::PackedSlots& packed, Device device) {
  train::Named<Tensor> tensors;
  for (const auto& [name, array] : batch_of(packed)) tensors.add(name, Tensor(array.to(device)));
  return tensors;
}

train::StepData step_data(const data::PackedSlots& packed, int64_t accumulation) {
  return {train::micro_batches(batch_of(packed), accumulation),
          {{"noised_tokens", static_cast<double>(packed.noised_tokens)},
           {"labels", static_cast<double>(packed.labels)}},
          packed.used};
}

nn::MotInputs inputs_of(const train::Named<Tensor>& batch, const Tensor& latents,
                        const Tensor& times) {
  return {.ids = batch.at("ids"),
          .slots = batch.at("slots"),
          .positions = batch.at("positions"),
          .latents = latents,
          .times = times,
          .latent_places = batch.at("latent_places"),
          .patches = batch.at("patches"),
          .patch_places = batch.at("patch_places"),
          .patch_images = batch.at("patch_images"),
          .patch_slots = batch.at("patch_slots")};
}

UnifiedLoss unified_loss(const nn::MotModel& model, const train::Named<Tensor>& batch,
                         const train::Named<Tensor>& normalisers, const Tensor& noise,
                         double shift) {
  const Tensor& clean = batch.at("latents");
  const Tensor times = times_of(batch.at("logit_times"), shift);
  const nn::Halves hidden = model.forward(inputs_of(batch, noised(clean, noise, times), times));
  const Tensor error = model.velocity(hidden.generation) - (noise - clean);
  const Tensor of_tokens = mean(square(error), {-1}) * batch.at("noised");
  LinearCrossEntropyOptions labels;
  labels.normaliser = normalisers.at("labels");
  return {
      sum(of_tokens) / normalisers.at("noised_tokens"),
      linear_cross_entropy(hidden.understanding, model.head_weight(), batch.at("targets"), labels)};
}

train::LossFunction training_loss(const nn::MotModel& model, const LossOptions& options) {
  return [&model, options](const train::LossInputs& in) -> train::Loss {
    const Tensor& clean = in.batch.at("latents");
    const UnifiedLoss loss = unified_loss(model, in.batch, in.normalisers,
                                          randn(clean.shape(), clean.device()), options.shift);
    return {loss.mse + options.ce_share * loss.ce, {{"mse", loss.mse}, {"ce", loss.ce}}};
  };
}

train::Validation validate(const nn::MotModel& model, const std::vector<data::PackedSlots>& packs,
                           const LossOptions& options, Device device, const amp::Preset& preset) {
  constexpr uint64_t kNoiseSeed = 5;
  const NoGrad off;
  const amp::Autocast scope(preset);
  const RandomState before = RandomState::current();
  RandomState::current().set_seed(kNoiseSeed);
  double mse = 0, ce = 0, noised_tokens = 0, labels = 0;
  const Tensor one = Tensor::scalar(1, DType::f32, device);
  for (const data::PackedSlots& packed : packs) {
    const Tensor noise = randn(packed.latents.shape(), device);
    const UnifiedLoss loss =
        unified_loss(model, on_device(packed, device), {{"noised_tokens", one}, {"labels", one}},
                     noise, options.shift);
    mse += loss.mse.item();
    ce += loss.ce.item();
    noised_tokens += static_cast<double>(packed.noised_tokens);
    labels += static_cast<double>(packed.labels);
  }
  RandomState::current() = before;
  mse /= std::max(noised_tokens, 1.0);
  ce /= std::max(labels, 1.0);
  return {mse + options.ce_share * ce, {{"mse", mse}, {"ce", ce}}};
}

}  // namespace binade::heads::flow
