// A table of numbers, a network that predicts its last column, and a stop when it gets no better.
//
//   mlp_regression [TABLE.csv]        without one it makes a table of its own
//
// The next rung is char_gpt.cpp.
#include <fstream>
#include <iostream>
#include <limits>

#include <binade/binade.h>

using namespace binade;

struct Mlp : nn::Module {
  explicit Mlp(int64_t inputs)
      : first(add<nn::Linear>("first", inputs, 64)),
        second(add<nn::Linear>("second", 64, 64)),
        last(add<nn::Linear>("last", 64, 1)) {}

  Tensor forward(const Tensor& x) const {  // (N, inputs) → (N)
    return squeeze(last->forward(relu(second->forward(relu(first->forward(x))))), -1);
  }

  std::shared_ptr<nn::Linear> first, second, last;
};

// Columns a, b, c and y = sin(3a) + bc, with noise of standard deviation 0.1.
void write_example(const std::filesystem::path& path) {
  const Tensor a = randn({2000}), b = randn({2000}), c = randn({2000});
  const Tensor y = sin(3.0 * a) + b * c + 0.1 * randn({2000});
  const auto values = stack({a, b, c, y}, 1).to_vector<float>();
  std::ofstream file(path);
  file << "a,b,c,y\n";
  for (size_t i = 0; i < values.size(); ++i) file << values[i] << (i % 4 == 3 ? '\n' : ',');
}

// Every column with mean 0 and standard deviation 1, as it is in `reference`.
Tensor standardized(const Tensor& x, const Tensor& reference) {
  return (x - mean(reference, {0})) / (stddev(reference, {0}) + 1e-6);
}

void run(const std::filesystem::path& path) {
  const data::CsvTable table = data::read_csv(path);
  const int64_t rows = table.values.size(0), inputs = table.values.size(1) - 1;
  check(rows >= 10 && inputs > 0, path.string(), " needs 10 rows and 2 columns at least");

  check(all(is_finite(Tensor(table.values))).item() != 0, path.string(), " has missing values");

  // A fifth of the rows, drawn at random, is only looked at to see how good the network is.
  const int64_t held_out = rows / 5;
  const Tensor shuffled = index_select(Tensor(table.values), 0, randperm(rows));
  const Tensor scaled = standardized(shuffled, /*reference=*/slice(shuffled, 0, held_out));
  const Tensor x = slice(scaled, 1, 0, inputs), y = select(scaled, 1, inputs);
  const Tensor train_x = slice(x, 0, held_out), train_y = slice(y, 0, held_out);
  const Tensor test_x = slice(x, 0, 0, held_out), test_y = slice(y, 0, 0, held_out);

  Mlp net(inputs);
  optim::AdamW optimizer(optim::split_by_decay(net, /*weight_decay=*/0.01));
  optimizer.set_learning_rate(3e-3);

  constexpr int64_t kBatch = 64, kPatience = 10;
  double best = std::numeric_limits<double>::infinity();
  int64_t best_epoch = 0;
  nn::StateDict best_state;
  for (int64_t epoch = 1; epoch <= 200 && epoch - best_epoch <= kPatience; ++epoch) {
    for (const Tensor& batch : split(randperm(train_y.numel()), kBatch, 0)) {
      optimizer.zero_grad();
      const Tensor predicted = net.forward(index_select(train_x, 0, batch));
      mse_loss(predicted, index_select(train_y, 0, batch)).backward();
      optimizer.step();
    }
    const NoGrad off;  // nothing is kept for a backward pass
    const double loss = mse_loss(net.forward(test_x), test_y).item();
    if (loss < best) {
      best = loss;
      best_epoch = epoch;
      best_state = nn::copy_of(net.state());  // state() alone is what training goes on to change
      std::cout << "epoch " << epoch << ": held-out loss " << loss << '\n';
    }
  }
  net.load_state(best_state);
  write_safetensors("mlp_regression.safetensors", net.state());
  std::cout << "best after epoch " << best_epoch << ": R² " << 1 - best / var(test_y, {}, 0).item()
            << '\n';
}

int main(int argc, char** argv) try {
  RandomState::current().set_seed(1);  // of all that is drawn: weights, order, the table
  const std::filesystem::path path = argc > 1 ? argv[1] : "mlp_regression.csv";
  if (argc < 2) write_example(path);
  run(path);
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << '\n';
  return 1;
}
