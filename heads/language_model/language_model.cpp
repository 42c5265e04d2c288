#include <binade/heads/language_model/language_model.h>

#include <algorithm>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/memory.h>
#include <binade/train/data_parallel.h>

namespace binade::heads::language_model {

namespace {

// More than the batches that uploads may still be reading (core/transfer.h).
constexpr int kPrefetchDepth = 8;

// A view of the prefetched values that keeps them alive.
Array rows_of(const std::shared_ptr<const data::Batch>& batch,
              const std::shared_ptr<int32_t[]>& values, int64_t rows, int64_t length) {
  return Array::from_blob(values.get(), {rows, length}, DType::i32, {},
                          std::const_pointer_cast<data::Batch>(batch));
}

}  // namespace

WindowBatches::WindowBatches(std::shared_ptr<const data::WindowSampler> sampler,
                             int64_t accumulation, Device device)
    : sampler_(std::move(sampler)), accumulation_(accumulation), device_(device) {
  train::check_accumulation(sampler_->options().batch_size, accumulation);
}

train::StepData WindowBatches::operator()(int64_t step) {
  if (!prefetcher_) {
    data::PrefetchOptions options{.depth = kPrefetchDepth, .first_batch = step};
    if (device_.is_cuda()) {
      options.allocate = [](int64_t count) {
        const auto block = allocate_pinned(count * static_cast<int64_t>(sizeof(int32_t)));
        return std::shared_ptr<int32_t[]>(block, static_cast<int32_t*>(block.get()));
      };
    }
    prefetcher_ = std::make_shared<data::Prefetcher>(
        [sampler = sampler_](int64_t number, std::span<int32_t> inputs,
                             std::span<int32_t> targets) {
          sampler->fill(number, inputs, targets);
        },
        sampler_->tokens_per_batch(), options);
  }
  const std::shared_ptr<const data::Batch> batch = prefetcher_->next();
  check(batch->number == step, "steps must follow each other: expected ", batch->number, ", got ",
        step);
  const int64_t rows = sampler_->options().batch_size, length = sampler_->options().seq_len;
  train::StepData data;
  data.micro_batches =
      train::micro_batches({{"inputs", rows_of(batch, batch->inputs, rows, length)},
                            {"targets", rows_of(batch, batch->targets, rows, length)}},
                           accumulation_);
  data.normalisers = {{"targets", static_cast<double>(batch->tokens)}};
  data.tokens = batch->tokens;
  return data;
}

train::LossFunction loss(const nn::CausalLm& model) {
  return [&model](const train::LossInputs& in) {
    return model.loss(in.batch.at("inputs"), in.batch.at("targets"), in.normalisers.at("targets"));
  };
}

double validation_loss(const nn::CausalLm& model, const data::WindowSampler& sampler,
                       const amp::Preset& preset, int64_t batches, train::DataParallel* parallel) {
  const NoGrad off;
  const int64_t rows = sampler.options().batch_size, length = sampler.options().seq_len;
  const int64_t windows = std::min(batches * rows, sampler.window_count());
  const Device device = model.device();
  std::vector<int32_t> inputs(static_cast<size_t>(rows * length)), targets(inputs.size());
  const Tensor one = Tensor::scalar(1, DType::f32, device);
  const auto loss_of = [&](int64_t batch) {
    const int64_t first = batch * rows;
    sampler.fill(first / rows, inputs, targets);
    // Rows past the last window would count some windows twice.
    const int64_t used = std::min(rows, windows - first);
    std::fill(targets.begin() + used * length, targets.end(), -100);
    const amp::Autocast scope(preset);
    const Tensor batch_loss = model.loss(Tensor::from(inputs, {rows, length}, device),
                                         Tensor::from(targets, {rows, length}, device), one);
    return batch_loss.array();
  };
  const int64_t count = (windows + rows - 1) / rows;
  if (parallel != nullptr)
    return parallel->sum_of(count, loss_of) / static_cast<double>(windows * length);
  const Array total = Array::zeros({}, DType::f64, device);
  for (int64_t batch = 0; batch < count; ++batch)
    BINADE_DISPATCH(device, axpy(1, loss_of(batch), total));
  return total.item() / static_cast<double>(windows * length);
}

}  // namespace binade::heads::language_model
