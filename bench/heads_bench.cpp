// A training step of Medusa heads alone (one residual block each) on given hidden states: FP16
// weights with FP32 masters, dynamic loss scaling, clipping, AdamW. Prints tokens/s and the peak
// of the GPU's memory for several shapes, with and without statistics.
//
//   heads_bench [steps [dim classes heads tokens]]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include <binade/binade.h>

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
  fmt::print("D {:5} V {:7} K {} {:6} tokens{:17}: {:8.2f} ms {:8.1f} ktok/s, peak {:.2f} GiB\n",
             s.dim, s.classes, s.heads, s.tokens, statistics ? ", with statistics" : "",
             median * 1e3, static_cast<double>(s.tokens) / median * 1e-3,
             static_cast<double>(memory_stats(device).peak_in_use) / (1 << 30));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const Device device = cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  const int steps = argc > 1 ? std::max(std::atoi(argv[1]), 1) : 12;
  std::vector<Shapes> all = {
      {4096, 32000, 4, 8192}, {4096, 128256, 4, 4096}, {576, 49152, 4, 16384}};
  if (argc > 5)
    all = {{std::atoll(argv[2]), std::atoll(argv[3]), std::atoll(argv[4]), std::atoll(argv[5])}};
  for (const Shapes& shapes : all)
    for (const bool statistics : {false, true}) bench(shapes, device, steps, statistics);
  return 0;
}
