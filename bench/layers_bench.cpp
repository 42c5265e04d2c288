// Steps of layers beside what they replace, on the CPU: a sparse table beside a dense one, and
// recurrent layers in steps a second.
//
//   layers_bench [table rows] [touched rows]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include <binade/binade.h>

using namespace binade;

namespace {

// Milliseconds of the median call, behind one to warm up.
double median_ms(int calls, const std::function<void(int64_t step)>& call) {
  std::vector<double> times;
  for (int64_t step = 0; step <= calls; ++step) {
    const auto start = std::chrono::steady_clock::now();
    call(step);
    const std::chrono::duration<double, std::milli> spent =
        std::chrono::steady_clock::now() - start;
    if (step > 0) times.push_back(spent.count());
  }
  std::nth_element(times.begin(), times.begin() + calls / 2, times.end());
  return times[static_cast<size_t>(calls / 2)];
}

Tensor draw_ids(int64_t step, int64_t count, int64_t rows) {
  std::vector<int64_t> ids;
  const data::Permutation order(rows, 1, static_cast<uint64_t>(step));
  for (int64_t i = 0; i < count; ++i) ids.push_back(order(i));
  return Tensor::from(ids, {count});
}

void bench_tables(int64_t rows, int64_t touched) {
  constexpr int64_t kDim = 64;
  const auto step_of = [&](const auto& table, auto& optimizer, int64_t step) {
    optimizer.zero_grad();
    sum(square(table.forward(draw_ids(step, touched, rows)))).backward();
    optimizer.step();
  };
  double sparse_ms, dense_ms;
  {
    const nn::SparseEmbedding table(rows, kDim, nn::init::zeros());
    optim::SparseAdamW optimizer(table);
    optimizer.set_learning_rate(1e-3);
    sparse_ms = median_ms(20, [&](int64_t step) { step_of(table, optimizer, step); });
  }
  {
    const nn::Embedding table(rows, kDim, nn::init::zeros());
    optim::AdamW optimizer(optim::split_by_decay(table, 0));
    optimizer.set_learning_rate(1e-3);
    dense_ms = median_ms(5, [&](int64_t step) { step_of(table, optimizer, step); });
  }
  fmt::print("table of {} x {}, {} rows touched: sparse AdamW {:.2f} ms a step, AdamW {:.1f} ms\n",
             rows, kDim, touched, sparse_ms, dense_ms);
}

template <class Layer>
void bench_recurrent(const char* name, int64_t batch, int64_t steps, int64_t width) {
  Layer layer(width, width);
  optim::Sgd optimizer(optim::split_by_decay(layer, 0));
  optimizer.set_learning_rate(1e-3);
  const Tensor x(nn::init::normal()({batch, steps, width}, Device::cpu()));
  const double ms = median_ms(20, [&](int64_t) {
    optimizer.zero_grad();
    sum(layer.forward(x).first).backward();
    optimizer.step();
  });
  fmt::print("{} of {}, batch {}, {} steps: {:.2f} ms forward, backward and update\n", name, width,
             batch, steps, ms);
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int place, int64_t otherwise) {
    const auto value = argc > place ? parse_number(argv[place]) : std::nullopt;
    return value ? static_cast<int64_t>(*value) : otherwise;
  };
  bench_recurrent<nn::Gru>("GRU", 32, 64, 128);
  bench_recurrent<nn::Lstm>("LSTM", 32, 64, 128);
  bench_recurrent<nn::Lstm>("LSTM", 64, 32, 512);
  bench_tables(argument(1, 4'000'000), argument(2, 4096));
  return 0;
}
