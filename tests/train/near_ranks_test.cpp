// Ranks that write into each other's windows, as GPUs of one host do, but of threads: who reads
// there finds what was sent to it, whatever was tried before.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/optim/sgd.h>
#include <binade/train/gradient_exchange.h>
#include <binade/train/value_exchange.h>

#include "../dist/ranks.h"

namespace binade::test {
namespace {

constexpr int64_t kNumel = 2 * kGradientChunk;  // of a parameter: a bucket of two ranks
constexpr int kParameters = 3;                  // odd, as there are two places for what comes

class NearRanks : public dist::Communicator {
 public:
  explicit NearRanks(dist::Communicator& inner)
      : Communicator(inner.rank(), inner.size()), inner_(inner) {}
  Device device() const override { return Device::cpu(); }
  // As in a capture: what is called is not done.
  bool captures = false;

  std::shared_ptr<const Window> open_window(const Array& memory) override {
    const Array addresses = Array::zeros({size()}, DType::i64);
    addresses.data<int64_t>()[rank()] = reinterpret_cast<int64_t>(memory.data());
    inner_.all_gather(addresses);
    return std::make_shared<NearWindow>(memory, addresses.to_vector<int64_t>());
  }

 protected:
  void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) override {
    if (!captures) inner_.all_to_all(send, receive);
  }
  void exchange_into(const Window& window, int64_t offset, const std::vector<Block>& send,
                     const std::vector<Block>& receive) override {
    if (captures) return;
    const auto& places = static_cast<const NearWindow&>(window).places;
    inner_.barrier();
    for (int peer = 0; peer < size(); ++peer) {
      const auto p = static_cast<size_t>(peer);
      if (peer != rank() && send[p].bytes > 0)
        std::memcpy(reinterpret_cast<std::byte*>(places[p]) + offset, send[p].data,
                    static_cast<size_t>(send[p].bytes));
    }
    inner_.barrier();
    const Block &out = send[static_cast<size_t>(rank())],
                &in = receive[static_cast<size_t>(rank())];
    if (in.bytes > 0 && in.data != out.data)
      std::memcpy(in.data, out.data, static_cast<size_t>(in.bytes));
  }

 private:
  struct NearWindow : Window {
    NearWindow(const Array& memory, std::vector<int64_t> addresses)
        : Window(memory), places(std::move(addresses)) {}
    bool is_near() const override { return true; }
    std::vector<int64_t> places;
  };

  dist::Communicator& inner_;
};

class Parts : public nn::Module {
 public:
  Parts() {
    for (int i = 0; i < kParameters; ++i)
      parts.push_back(add_parameter(concat("p", i), Array::full({kNumel}, i, DType::f32)));
  }
  std::vector<nn::ParameterPtr> parts;
};

// A rank, its model and both exchanges.
struct Near {
  explicit Near(dist::World& world) : ranks(world.communicator()) {
    optimizer.share(ranks, {.bucket = 1, .late_values = true});
    gradients = std::make_unique<train::GradientExchange>(world, ranks, queue, queue, time,
                                                          optimizer, /*bucket=*/1);
    values = std::make_unique<train::ValueExchange>(ranks, queue, time, optimizer, /*bucket=*/1);
  }
  // A round in which parameter p has gradients of (p + 1) · factor.
  void round(bool last, float factor) {
    gradients->begin_round(last, {});
    const GradientWatch::Scope watching(gradients.get());
    Tensor loss;
    for (int p = 0; p < kParameters; ++p) {
      const Tensor weight(Array::full({}, (static_cast<float>(p) + 1) * factor, DType::f32));
      const Tensor term = sum(model.parts[static_cast<size_t>(p)]->tensor()) * weight;
      loss = loss.defined() ? loss + term : term;
    }
    loss.backward();
    gradients->end_round();
  }
  // Of the own elements.
  void check_sums(float factor) {
    const std::vector<float> sums = optimizer.groups()[0].accumulated().to_vector<float>();
    const size_t each = sums.size() / kParameters;
    for (size_t i = 0; i < sums.size(); ++i) {
      const float expected = (static_cast<float>(i / each) + 1) * factor;
      check(sums[i] == expected, "sum ", i, " is ", sums[i], ", not ", expected);
    }
  }

  NearRanks ranks;
  SideQueue queue{Device::cpu(), /*beside=*/false};
  train::ExposedTime time{Device::cpu(), false};
  Parts model;
  optim::Sgd optimizer{model, {.learning_rate = 0.1}};
  std::unique_ptr<train::GradientExchange> gradients;
  std::unique_ptr<train::ValueExchange> values;
};

void check_near(const std::function<void(Near&)>& body) {
  const auto errors = run_ranks(2, [&](dist::World& world) {
    Near near(world);
    body(near);
  });
  for (const std::string& error : errors) CHECK(error == "");
}

TEST_CASE("near ranks: gradients and values come to their places", "[dist][exchange][train]") {
  check_near([](Near& near) {
    const auto rank = static_cast<float>(near.ranks.rank());
    near.values->send();
    near.round(/*last=*/false, 1 + rank);
    near.round(/*last=*/true, 10 + rank);
    near.gradients->finish();
    near.check_sums(1 + 2 + 10 + 11);
    near.optimizer.gather_grads();
    near.optimizer.update(Array::full({}, 1, DType::f32), Array::zeros({}, DType::f32));
    near.values->send();
    for (int p = 0; p < kParameters; ++p) {
      const auto start = static_cast<float>(p);
      for (const float value :
           near.model.parts[static_cast<size_t>(p)]->tensor().to_vector<float>()) {
        const float expected = start - 0.1F * ((start + 1) * 24);
        check(std::abs(value - expected) < 1e-5F, "parameter ", p, " is ", value, ", not ",
              expected);
      }
    }
  });
}

TEST_CASE("near ranks: captures that failed at different places do no harm",
          "[dist][exchange][train]") {
  check_near([](Near& near) {
    const auto rank = static_cast<float>(near.ranks.rank());
    near.values->send();
    near.round(/*last=*/true, 1 + rank);
    near.gradients->finish();
    near.optimizer.zero_grad();
    // Rank 1 comes one parcel further than rank 0.
    near.ranks.captures = true;
    near.gradients->begin_round(/*last=*/true, {});
    TensorList leaves;
    for (const nn::ParameterPtr& part : near.model.parts) leaves.push_back(part->tensor());
    near.gradients->begin(leaves);
    for (const Tensor& leaf : leaves)
      if (near.ranks.rank() == 1) near.gradients->complete(leaf);
    near.ranks.captures = false;
    near.optimizer.zero_grad();
    near.round(/*last=*/true, 10 + rank);
    near.gradients->finish();
    near.check_sums(10 + 11);
  });
}

}  // namespace
}  // namespace binade::test
