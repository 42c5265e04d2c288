// The acceptance loss as a share of what heads of any kind learn.
#include <binade/heads/decoding/heads_loss.h>

#include <cmath>

#include <catch2/catch.hpp>

#include <binade/heads/medusa/training.h>
#include <binade/heads/mtp/training.h>

#include "heads/mtp/heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;

namespace {

constexpr int64_t kLength = 12;

// Two rows, a document each.
train::LossInputs inputs(int64_t heads) {
  train::LossInputs in;
  const Tensor ids = random_ids(2, kLength + 1, 61);
  in.batch.add("ids", contiguous(slice(ids, 1, 0, kLength)));
  in.batch.add("labels", contiguous(slice(ids, 1, 1)));
  for (int64_t k = 1; k <= heads; ++k)
    in.normalisers.add("head" + std::to_string(k),
                       Tensor::scalar(static_cast<double>(2 * (kLength - k)), DType::f32));
  return in;
}

std::vector<double> probabilities(const std::vector<double>& logits, size_t row) {
  std::vector<double> p(logits.begin() + static_cast<int64_t>(row) * 61,
                        logits.begin() + static_cast<int64_t>(row + 1) * 61);
  double total = 0;
  for (double& x : p) total += x = std::exp(x);
  for (double& x : p) x /= total;
  return p;
}

// By the formula, from logits (2, T, V) of each head and of the model.
double expected_loss(const std::vector<std::vector<double>>& heads,
                     const std::vector<double>& model, const std::vector<int32_t>& labels,
                     const std::vector<double>& coefficients, double share) {
  double loss = 0;
  for (size_t k = 0; k < heads.size(); ++k)
    for (size_t row = 0; row < 2; ++row)
      for (size_t t = 0; t + k + 1 < kLength; ++t) {
        const size_t at = row * kLength + t, ahead = at + k + 1;
        const auto q = probabilities(heads[k], at), p = probabilities(model, ahead);
        double accepted = 0;
        for (size_t v = 0; v < 61; ++v) accepted += std::min(p[v], q[v]);
        const double nats = -std::log(q[static_cast<size_t>(labels[ahead])]);
        loss += coefficients[k] * ((1 - share) * nats - share * accepted) /
                static_cast<double>(2 * (kLength - static_cast<int64_t>(k) - 1));
      }
  return loss;
}

}  // namespace

TEST_CASE("heads of every kind can learn the chance that their drafts are accepted", "[heads]") {
  const auto base = mtp_base(nn::Family::llama, 64);
  for (const double share : {0.0, 0.25, 1.0}) {
    INFO("share " << share);
    {
      heads::medusa::MedusaHeads medusa(base, {.heads = 3, .layers = 1});
      for (const nn::NamedParameter& named : medusa.named_parameters())
        named.parameter->assign(nn::init::normal(0.2)(named.parameter->shape(), Device::cpu()));
      const train::LossInputs in = inputs(3);
      const heads::medusa::MedusaLossOptions options{.acceptance = share};
      const double loss =
          heads::medusa::medusa_loss(medusa, {.pack = false}, options)(in).value.item();
      const NoGrad off;
      const Tensor hidden = base->hidden_states(in.batch.at("ids"));
      std::vector<std::vector<double>> logits;
      for (int64_t k = 0; k < 3; ++k)
        logits.push_back(medusa.logits(k, hidden).to_vector<double>());
      CHECK(loss == Approx(expected_loss(logits, base->logits(hidden).to_vector<double>(),
                                         in.batch.at("labels").to_vector<int32_t>(),
                                         {0.8, 0.64, 0.512}, share))
                        .epsilon(1e-4));
    }
    for (const heads::mtp::MtpConfig& config : kMtpConfigs) {
      const auto heads = mtp_heads(base, config);
      const train::LossInputs in = inputs(config.depth);
      const heads::mtp::MtpLossOptions options{.acceptance = share};
      const double loss = heads::mtp::mtp_loss(*heads, false, options)(in).value.item();
      const NoGrad off;
      const Tensor& ids = in.batch.at("ids");
      const auto trunk = heads->trunk(ids, {});
      std::vector<std::vector<double>> logits;
      for (const Tensor& output : heads->outputs(trunk, ids, {}, {}))
        logits.push_back(base->logits(output).to_vector<double>());
      CHECK(loss == Approx(expected_loss(logits, base->logits(trunk.hidden).to_vector<double>(),
                                         in.batch.at("labels").to_vector<int32_t>(),
                                         heads::mtp::coefficients(config, options), share))
                        .epsilon(1e-4));
    }
  }
}

TEST_CASE("a share of the acceptance loss that is none is refused", "[heads][errors]") {
  const auto base = mtp_base();
  const auto heads = mtp_heads(base, kMtpConfigs[1]);
  for (const double share : {-0.5, 1.5})
    CHECK_THROWS_WITH(heads::mtp::mtp_loss(*heads, false, {.acceptance = share})(inputs(2)),
                      Contains("share of the acceptance loss"));
}
