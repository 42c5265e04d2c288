// Tokens a second of plain greedy decoding through generate(), the prompt's pass included. The
// first run warms up (matmuls are timed then); the median and the fastest of the others are
// printed.
//
//   build/bench/generate_bench MODEL_FOLDER [device [precision [batch [tokens [runs]]]]]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include <binade/binade.h>

using namespace binade;

namespace {

double seconds_now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr,
               "usage: generate_bench MODEL_FOLDER [device [precision [batch [tokens [runs]]]]]\n");
    return 2;
  }
  const auto number = [&](int i, int64_t otherwise) {
    return argc > i ? std::max<int64_t>(std::atoll(argv[i]), 1) : otherwise;
  };
  const Device device = Device::parse(argc > 2 ? argv[2] : "cpu");
  const amp::Preset preset = amp::Preset::parse(argc > 3 ? argv[3] : "fp32");
  const int64_t batch = number(4, 1), tokens = number(5, 256), runs = number(6, 9);
  const auto model = nn::load_hf(argv[1], {.device = device});
  preset.apply(*model);
  model->eval();
  const amp::Autocast scope(preset);

  const std::vector<std::vector<int32_t>> prompts(static_cast<size_t>(batch), {1});
  std::vector<double> seconds;
  for (int64_t run = 0; run <= runs; ++run) {
    const double begin = seconds_now();
    infer::generate(*model, prompts, {.max_new_tokens = tokens});
    if (run > 0) seconds.push_back(seconds_now() - begin);
  }
  std::sort(seconds.begin(), seconds.end());
  const auto rate = [&](double time) { return static_cast<double>(batch * tokens) / time; };
  fmt::print("batch {}, {} tokens a row: {:.0f} tokens/s (fastest {:.0f}), {:.3f} ms/step\n", batch,
             tokens, rate(seconds[seconds.size() / 2]), rate(seconds.front()),
             1e3 * seconds[seconds.size() / 2] / static_cast<double>(tokens));
}
