// Training a model that reads and draws: its loss over packed rows, and what a step gets.
#pragma once

#include <functional>

#include <binade/data/slot_packer.h>
#include <binade/nn/mot/model.h>
#include <binade/train/trainer.h>

namespace binade::heads::flow {

// The arrays of packed rows, by their names in PackedSlots.
train::Batch batch_of(const data::PackedSlots& packed);
// The same as tensors on a device.
train::Named<Tensor> on_device(const data::PackedSlots& packed, Device device);
// One step on packed rows, split into `accumulation` micro-batches. The normalisers are
// "noised_tokens" and "labels".
train::StepData step_data(const data::PackedSlots& packed, int64_t accumulation);

struct LossOptions {
  double shift = 1;       // of the times
  double ce_share = .25;  // of the loss, beside MSE
};
struct UnifiedLoss {
  Tensor mse;  // Σ over noised tokens of the mean (v − (ε − x0))², over their number
  Tensor ce;   // Σ over labels of the cross-entropy, over their number
};
// With given noise ε (B, G, values) f32. The normalisers are f32 scalars; a sum over nothing is 0.
UnifiedLoss unified_loss(const nn::MotModel& model, const train::Named<Tensor>& batch,
                         const train::Named<Tensor>& normalisers, const Tensor& noise,
                         double shift);
// What TrainStep takes: MSE + share · CE under fresh noise, with "mse" and "ce" reported beside it.
train::LossFunction training_loss(const nn::MotModel& model, const LossOptions& options);

// The same of held-out packs under fixed noise: MSE + share · CE, and both.
train::Validation validate(const nn::MotModel& model, const std::vector<data::PackedSlots>& packs,
                           const LossOptions& options, Device device, const amp::Preset& preset);

// What the model reads of a batch: x_t from its latents, and times of which those of clean latents
// are 0.
nn::MotInputs inputs_of(const train::Named<Tensor>& batch, const Tensor& latents,
                        const Tensor& times);

}  // namespace binade::heads::flow
