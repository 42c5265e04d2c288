// Computes ranking losses for scripts/long/rank_losses.sh: a line of standard input is an object
// with a "loss" ("ranknet:sigma=2"), and "scores", "labels" and "weights" of one list; a line of
// standard output is [loss, gradient], in f64.
#include <binade/heads/rank/losses.h>

#include <iostream>
#include <nlohmann/json.hpp>

int main() {
  using namespace binade;
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = nlohmann::json::parse(line);
    const auto numbers = [&](const char* name) {
      return request.at(name).get<std::vector<double>>();
    };
    const std::vector<double> scores = numbers("scores");
    const auto n = static_cast<int64_t>(scores.size());
    heads::rank::Lists lists;
    lists.offsets = Array::from(std::vector<int64_t>{0, n}, {2});
    lists.labels = Array::from(numbers("labels"), {n}).to(DType::f32);
    lists.weights = Array::from(numbers("weights"), {n}).to(DType::f32);
    const Tensor x(Array::from(scores, {n}), true);
    const Tensor loss = heads::rank::rank_loss(
        x, lists, heads::rank::LossSpec::parse(request.at("loss").get<std::string>()));
    loss.backward();
    std::cout << nlohmann::json{loss.item(), x.grad().to_vector<double>()}.dump() << '\n';
  }
}
