// A training step of Medusa heads alone (one residual block each) on given hidden states: FP16
// weights with FP32 masters, dynamic loss scaling, clipping, AdamW. Prints tokens/s and the peak
// of the GPU's memory for several shapes, with and without statistics.
//
//   heads_bench [steps [dim classes heads tokens]]
//   heads_bench peaks                               1 to 8 heads, vocabularies of 32k to 256k
//   heads_bench trunk [steps [rows length]]         behind a frozen trunk of Llama-3.1-8B's shape
//   heads_bench eagle [small|8b rows length [recompute]]
//                                                   EAGLE-3's seven steps behind a frozen trunk of
//                                                   SmolLM2-135M's or Llama-3.1-8B's shape
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <binade/binade.h>
#include <binade/heads/eagle/training.h>
#include <binade/heads/medusa/training.h>

#include "model_shapes.h"

using namespace binade;

namespace {

struct Shapes {
  int64_t dim, classes, heads, tokens;
};

class MedusaHeads : public nn::Module {
 public:
  explicit MedusaHeads(const Shapes& s) {
    for (int64_t k = 0; k < s.heads; ++k) {
      blocks_.push_back(
          add<nn::Linear>(fmt::format("block{}", k), s.dim, s.dim, true, nn::init::zeros()));
      heads_.push_back(add<nn::Linear>(fmt::format("head{}", k), s.dim, s.classes, false,
                                       nn::init::normal(0.02)));
    }
  }
  MultiHeadLoss loss(const Tensor& hidden, const Tensor& labels, bool statistics) const {
    std::vector<DecodingHead> heads(heads_.size());
    for (size_t k = 0; k < heads.size(); ++k) {
      heads[k].blocks = {{blocks_[k]->weight()->tensor(), blocks_[k]->bias()->tensor()}};
      heads[k].weight = heads_[k]->weight()->tensor();
      heads[k].coefficient = std::pow(0.8, static_cast<double>(k + 1));
    }
    MultiHeadLossOptions options;
    options.statistics = statistics;
    return multi_head_loss(hidden, heads, labels, options);
  }

 private:
  std::vector<std::shared_ptr<nn::Linear>> blocks_, heads_;
};

void bench(const Shapes& s, Device device, int steps, bool statistics) {
  MedusaHeads model(s);
  model.to(device);
  const amp::Preset preset = amp::Preset::parse("fp16");
  preset.apply(model);
  optim::AdamW optimizer(optim::split_by_decay(model, 0));
  optimizer.set_learning_rate(1e-3);
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));

  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(s.tokens * s.dim));
  for (float& value : values) value = normal(random);
  const Tensor hidden(Array::from(values, {1, s.tokens, s.dim}).to(DType::f16).to(device));
  std::vector<int64_t> ids(static_cast<size_t>(s.tokens));
  for (int64_t& id : ids) id = static_cast<int64_t>(random() % static_cast<uint64_t>(s.classes));
  std::vector<int64_t> shifts(static_cast<size_t>(s.heads));
  for (size_t k = 0; k < shifts.size(); ++k) shifts[k] = static_cast<int64_t>(k) + 2;
  const Tensor labels = shifted_labels(Tensor::from(ids, {1, s.tokens}, device), {}, shifts);

  constexpr int kWarmUp = 4;
  std::vector<double> times;
  const int64_t fixed = memory_stats(device).in_use;  // values, gradients, masters, moments, data
  reset_peak_memory(device);
  for (int i = 0; i < kWarmUp + steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    optimizer.zero_grad();
    {
      const amp::Autocast scope(preset, scaler);
      scaler.scale(model.loss(hidden, labels, statistics).loss).backward();
    }
    scaler.clip_norm(1.0);
    scaler.step(optimizer);
    scaler.update();
    scaler.found_inf().item();  // waits for the device
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (i >= kWarmUp) times.push_back(taken.count());
  }
  std::nth_element(times.begin(), times.begin() + steps / 2, times.end());
  const double median = times[static_cast<size_t>(steps / 2)];
  fmt::print(
      "D {:5} V {:7} K {} {:6} tokens{:17}: {:8.2f} ms {:8.1f} ktok/s, peak {:.2f} GiB, of which "
      "{:.2f} are there between steps\n",
      s.dim, s.classes, s.heads, s.tokens, statistics ? ", with statistics" : "", median * 1e3,
      static_cast<double>(s.tokens) / median * 1e-3,
      static_cast<double>(memory_stats(device).peak_in_use) / (1 << 30),
      static_cast<double>(fixed) / (1 << 30));
  std::fflush(stdout);
}

// A frozen model of random weights, in FP16 on the device.
std::shared_ptr<nn::CausalLm> make_trunk(const nn::CausalLmConfig& config,
                                         const amp::Preset& preset, Device device) {
  const auto trunk = nn::make_causal_lm(config, {.random_weights = false});
  trunk->set_trainable(false);
  trunk->eval();
  preset.apply(*trunk);
  trunk->to(device);
  for (const nn::NamedParameter& p : trunk->named_parameters()) {
    const Shape& shape = p.parameter->shape();
    const nn::Initialiser values = shape.dims() > 1 ? nn::init::normal(0.02) : nn::init::ones();
    p.parameter->assign(values(shape, device));
  }
  return trunk;
}

std::shared_ptr<const heads::decoding::PackedDocuments> random_documents(int64_t rows,
                                                                         int64_t length,
                                                                         int64_t classes) {
  std::mt19937_64 random(1);
  std::vector<heads::decoding::Document> documents;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int32_t> ids(static_cast<size_t>(length));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(classes));
    documents.push_back(heads::decoding::whole_document(std::move(ids)));
  }
  return std::make_shared<const heads::decoding::PackedDocuments>(
      std::move(documents),
      heads::decoding::PackingOptions{.batch_size = rows, .seq_len = length, .pack = false});
}

// The median of `steps` captured steps, in seconds, reports read back each time. Leaves the peak
// of memory since the start.
double median_step(train::TrainStep& step, const train::StepData& batch, int steps, Device device) {
  release_cached_memory(device);
  reset_peak_memory(device);
  constexpr int kWarmUp = 4;
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + steps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    step.run(i, batch.micro_batches, batch.normalisers, 1e-3);
    const double loss = step.take_reports(/*wait=*/true).back().loss;
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (i >= kWarmUp) times.push_back(taken.count());
    if (i == 0) fmt::print("loss of the first step {:.3f}\n", loss);
  }
  std::nth_element(times.begin(), times.begin() + steps / 2, times.end());
  return times[static_cast<size_t>(steps / 2)];
}

// Prints what a step took, and the model's pass alone.
void report_step(const std::string& what, const nn::CausalLm& trunk, const amp::Preset& preset,
                 const train::StepData& batch, double median, int64_t tokens, Device device) {
  const double peak = static_cast<double>(memory_stats(device).peak_in_use) / (1 << 30);
  const auto start = std::chrono::steady_clock::now();
  {
    const NoGrad off;
    const amp::Autocast scope(preset);
    const Tensor ids(batch.micro_batches[0].at("ids").to(device));
    trunk.hidden_states(ids);
    synchronize(device);
  }
  const std::chrono::duration<double> forward = std::chrono::steady_clock::now() - start;
  fmt::print(
      "{}: {:.1f} ms {:.2f} ktok/s, peak {:.2f} GiB; the trunk's pass alone, eagerly: {:.1f} ms\n",
      what, median * 1e3, static_cast<double>(tokens) / median * 1e-3, peak, forward.count() * 1e3);
  std::fflush(stdout);
}

// Medusa heads as finetune_medusa trains them: packed rows, captured step, FP16 throughout.
void bench_trunk(int steps, int64_t rows, int64_t length, Device device) {
  const amp::Preset preset = amp::Preset::parse("fp16");
  const nn::CausalLmConfig config = llama_31_8b();
  const auto trunk = make_trunk(config, preset, device);
  constexpr int64_t kHeads = 4;
  heads::medusa::MedusaHeads heads(trunk, {.heads = kHeads, .layers = 1});
  heads.to(device);
  preset.apply(heads);
  optim::AdamW optimizer(optim::split_by_decay(heads, 0));
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));
  const auto packed = random_documents(rows, length, config.vocab_size);
  const train::StepData batch = heads::medusa::medusa_data(packed, kHeads, 1)(0);
  train::TrainStep step(heads::medusa::medusa_loss(heads, packed->options()), optimizer, scaler,
                        preset, {});
  const double median = median_step(step, batch, steps, device);
  report_step(fmt::format("trunk of Llama-3.1-8B's shape, K {} V {}, {} x {} tokens", kHeads,
                          config.vocab_size, rows, length),
              *trunk, preset, batch, median, rows * length, device);
}

// An EAGLE-3 head as finetune_eagle trains it, with a draft vocabulary of 32,000 tokens (8,192
// behind the small model).
void bench_eagle(const std::string& size, int64_t rows, int64_t length, bool recompute,
                 Device device) {
  check(size == "small" || size == "8b", "the trunk is small or 8b, not ", size);
  const amp::Preset preset = amp::Preset::parse("fp16");
  const nn::CausalLmConfig config = size == "8b" ? llama_31_8b() : smollm2_135m();
  const auto trunk = make_trunk(config, preset, device);
  const auto packed = random_documents(rows, length, config.vocab_size);
  namespace eagle = heads::eagle;
  eagle::EagleConfig head_config = eagle::EagleConfig::eagle3(
      config, heads::decoding::DraftVocabulary::most_frequent(eagle::label_counts(*packed, config),
                                                              size == "8b" ? 32000 : 8192));
  eagle::EagleHead head(trunk, std::move(head_config));
  if (recompute) head.set_recompute(Recompute::blocks);
  head.to(device);
  preset.apply(head);
  optim::AdamW optimizer(optim::split_by_decay(head, 0));
  amp::GradScaler scaler(device, amp::GradScalerOptions::of(preset));
  const eagle::EagleLossOptions options = eagle::EagleLossOptions::of(eagle::Version::eagle3);
  const train::StepData batch =
      heads::decoding::heads_data(packed, eagle::head_set(eagle::Version::eagle3, options), 1)(0);
  train::TrainStep step(eagle::eagle_loss(head, packed->options().pack, options), optimizer, scaler,
                        preset, {});
  const double median = median_step(step, batch, 5, device);
  report_step(fmt::format("EAGLE-3 behind {}, {} steps{}, {} x {} tokens",
                          size == "8b" ? "Llama-3.1-8B's shape" : "SmolLM2-135M's shape",
                          options.steps, recompute ? ", recomputed" : "", rows, length),
              *trunk, preset, batch, median, rows * length, device);
}

}  // namespace

int main(int argc, char** argv) {
  const Device device = cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  const std::string mode = argc > 1 ? argv[1] : "";
  const auto number = [&](int place, int64_t otherwise) {
    return argc > place ? std::max<int64_t>(std::atoll(argv[place]), 1) : otherwise;
  };
  if (mode == "trunk") {
    bench_trunk(static_cast<int>(number(2, 8)), number(3, 2), number(4, 2048), device);
    return 0;
  }
  if (mode == "eagle") {
    bench_eagle(argc > 2 ? argv[2] : "small", number(3, 1), number(4, 2048),
                argc > 5 && std::string(argv[5]) == "recompute", device);
    return 0;
  }
  if (mode == "peaks") {
    for (const int64_t classes : {32000, 65536, 131072, 262144})
      for (const int64_t heads : {1, 2, 4, 8}) bench({1024, classes, heads, 8192}, device, 3, true);
    return 0;
  }
  const int steps = static_cast<int>(number(1, 12));
  std::vector<Shapes> all = {
      {4096, 32000, 4, 8192}, {4096, 128256, 4, 4096}, {576, 49152, 4, 16384}};
  if (argc > 5) all = {{number(2, 0), number(3, 0), number(4, 0), number(5, 0)}};
  for (const Shapes& shapes : all)
    for (const bool statistics : {false, true}) bench(shapes, device, steps, statistics);
  return 0;
}
