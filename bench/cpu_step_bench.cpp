// The training step of a GPT with 10.9M parameters in f32 (or another preset) on the CPU, as a peer
// would run it: 6 layers, width 384, 6 heads, 256 classes, 8 x 256 random tokens, AdamW, clipping.
// Prints the median and the fastest step, in elapsed and in processor time: on a machine with other
// work the second one is what can be compared.
//
//   OMP_NUM_THREADS=2 taskset -c 0,1 build/bench/cpu_step_bench [steps [precision]]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <vector>

#include <binade/binade.h>

using namespace binade;

namespace {

constexpr int64_t kBatch = 8, kLength = 256, kClasses = 256;

double elapsed_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

double processor_ms() {  // of all threads
  return 1e3 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

Array random_tokens() {
  std::vector<int64_t> tokens(kBatch * kLength);
  for (int64_t& token : tokens) token = std::rand() % kClasses;
  return Array::from(tokens, {kBatch, kLength});
}

void print(const char* what, std::vector<double> steps) {
  std::sort(steps.begin(), steps.end());
  const double median = steps[steps.size() / 2];
  fmt::print("{}: {:.1f} ms/step (fastest {:.1f}), {:.0f} tokens/s\n", what, median, steps.front(),
             1e3 * kBatch * kLength / median);
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kWarmUp = 3;
  const int steps = argc > 1 ? std::max(std::atoi(argv[1]), 1) : 9;
  nn::CausalLmConfig config = nn::CausalLmConfig::of(nn::Family::gpt2);
  config.vocab_size = kClasses;
  config.dim = 384;
  config.layers = config.heads = 6;
  config.max_positions = kLength;
  config.tie_embeddings = false;
  const auto model = nn::make_causal_lm(config);
  const amp::Preset preset = amp::Preset::parse(argc > 2 ? argv[2] : "fp32");
  preset.apply(*model);
  optim::AdamW optimizer(optim::split_by_decay(*model, 0.01));
  amp::GradScaler scaler(Device::cpu(), amp::GradScalerOptions::of(preset));
  train::TrainStep step(heads::language_model::loss(*model), optimizer, scaler, preset, {});
  const train::Batch batch = {{"inputs", random_tokens()}, {"targets", random_tokens()}};
  std::vector<double> elapsed, processor;
  for (int i = 0; i < kWarmUp + steps; ++i) {
    const double start = elapsed_ms(), processor_start = processor_ms();
    step.run(i, {batch}, {{"targets", kBatch * kLength}}, 3e-4);
    if (i < kWarmUp) continue;
    elapsed.push_back(elapsed_ms() - start);
    processor.push_back(processor_ms() - processor_start);
  }
  print("elapsed", elapsed);
  print("processor", processor);
}
