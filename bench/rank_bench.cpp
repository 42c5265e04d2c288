// The ranking losses alone, loss and gradient, on batches of lists of one length. Prints of each
// the time, documents and ordered pairs a second, the floor, which is what has to be read and
// written (scores and labels once, the gradient once and once more when it is scaled) at the
// device's rate of copying, and the ratio of the two.
//
//   rank_bench [cpu | cuda [documents [list length…]]]
#include <fmt/core.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <vector>

#include <binade/binade.h>
#include <binade/core/text.h>
#include <binade/heads/rank/losses.h>

using namespace binade;
using namespace binade::heads::rank;

namespace {

// Seconds a run, the best of several batches of runs.
template <class Work>
double best_time(Device device, const Work& work) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30, spent = 0;
  int runs = 1;
  work();
  while (spent < 0.5) {
    synchronize(device);
    const auto start = Clock::now();
    for (int i = 0; i < runs; ++i) work();
    synchronize(device);
    const double time = std::chrono::duration<double>(Clock::now() - start).count();
    spent += time;
    best = std::min(best, time / runs);
    if (time < 0.02) runs *= 4;
  }
  return best;
}

// Bytes a second of a large copy, read and written.
double copy_rate(Device device) {
  const Array from = Array::zeros({int64_t{1} << 26}, DType::f32, device);
  const Array to = Array::zeros(from.shape(), DType::f32, device);
  return 2 * static_cast<double>(from.bytes()) / best_time(device, [&] { to.copy_from(from); });
}

void bench(Device device, double rate, int64_t documents, int64_t length) {
  const int64_t lists = std::max<int64_t>(1, documents / length), rows = lists * length;
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> labels;
  std::vector<int64_t> offsets{0};
  for (int64_t i = 0; i < rows; ++i) {
    const double draw = static_cast<double>(random() >> 11) * 0x1p-53;
    labels.push_back(std::floor(static_cast<float>(5 * draw * draw)));
  }
  for (int64_t q = 0; q < lists; ++q) offsets.push_back(offsets.back() + length);
  Lists batch;
  batch.offsets = Array::from(offsets, {lists + 1}, device);
  batch.labels = Array::from(labels, {rows}, device);
  const Tensor normaliser = Tensor::scalar(static_cast<double>(lists), DType::f32, device);
  fmt::print("\n{} lists of {} documents\n{:<34} {:>10} {:>10} {:>10} {:>10} {:>8}\n", lists,
             length, "loss", "time us", "Mdocs/s", "Gpairs/s", "floor us", "ratio");
  for (const LossInfo& info : loss_table()) {
    std::vector<std::string> texts{std::string(info.name)};
    if (info.name == "lambdarank") texts.emplace_back("lambdarank:truncation=30");
    for (const std::string& text : texts) {
      const LossSpec spec = LossSpec::parse(text);
      const int64_t columns = output_columns(spec, 4);
      std::vector<float> values(static_cast<size_t>(rows * columns));
      for (float& value : values) value = normal(random);
      const Shape shape = info.outputs == Outputs::score ? Shape{rows} : Shape{rows, columns};
      const Tensor scores(Array::from(values, shape, device), true);
      const auto run = [&] {
        scores.zero_grad();
        rank_loss(scores, batch, spec, normaliser).backward();
      };
      const double time = best_time(device, run);
      const double bytes = static_cast<double>(rows) * (4 + 4.0 * static_cast<double>(columns) * 4);
      const double pairs = static_cast<double>(rows) * static_cast<double>(length);
      fmt::print("{:<34} {:>10.1f} {:>10.1f} {:>10.2f} {:>10.2f} {:>8.1f}\n", text, time * 1e6,
                 static_cast<double>(rows) / time * 1e-6, pairs / time * 1e-9, bytes / rate * 1e6,
                 time / (bytes / rate));
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const Device device = count > 1 ? Device::parse(arguments[1]) : Device();
    const auto number = [&](int i) {
      const std::optional<double> value = parse_number(arguments[i]);
      check(value && *value >= 1, "rank_bench: ", arguments[i], " is no number of documents");
      return static_cast<int64_t>(*value);
    };
    const int64_t documents = count > 2 ? number(2) : 100000;
    std::vector<int64_t> lengths;
    for (int i = 3; i < count; ++i) lengths.push_back(number(i));
    if (lengths.empty()) lengths = {20, 120, 1000};
    const double rate = copy_rate(device);
    fmt::print("{}: copies {:.1f} GB/s\n", count > 1 ? arguments[1] : "cpu", rate * 1e-9);
    for (const int64_t length : lengths) bench(device, rate, documents, length);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
