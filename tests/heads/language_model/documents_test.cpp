// Training a language model on packed conversations, with labels or a teacher.
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/heads/language_model/documents.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace lm = heads::language_model;

namespace {

// Documents of some lengths, of which some tokens are replies.
std::vector<decoding::Document> documents() {
  std::vector<decoding::Document> all;
  int64_t seed = 0;
  for (const int64_t length : {14, 9, 11, 20, 7}) {
    const std::vector<int32_t> ids = random_ids(1, length, 61).array().to_vector<int32_t>();
    decoding::Document document{ids, std::vector<bool>(ids.size(), false)};
    for (size_t t = 0; t < ids.size(); ++t)
      document.reply[t] = t > 2 && (t + static_cast<size_t>(seed)) % 3 != 0;
    all.push_back(document);
    ++seed;
  }
  return all;
}

std::shared_ptr<const decoding::PackedDocuments> packed() {
  return std::make_shared<const decoding::PackedDocuments>(
      documents(), decoding::PackingOptions{.batch_size = 2, .seq_len = 32, .seed = 5});
}

train::LossInputs inputs(const decoding::PackedDocuments& rows, int64_t index) {
  const auto shared = std::make_shared<const decoding::PackedDocuments>(rows);
  const train::StepData data = lm::document_batches(shared, 1)(index);
  train::LossInputs in;
  for (const auto& [name, array] : data.micro_batches[0]) in.batch.add(name, Tensor(array));
  for (const auto& [name, count] : data.normalisers)
    in.normalisers.add(name, Tensor::scalar(count));
  in.step = Tensor::scalar(0);
  return in;
}

// f64 log-softmax of a row of logits.
std::vector<double> log_probabilities(const std::vector<double>& logits) {
  double largest = logits[0], sum = 0;
  for (const double x : logits) largest = std::max(largest, x);
  for (const double x : logits) sum += std::exp(x - largest);
  std::vector<double> result;
  for (const double x : logits) result.push_back(x - largest - std::log(sum));
  return result;
}

// The rows of logits that predict replies, document by document, each in a pass of its own.
struct Predicted {
  std::vector<std::vector<double>> logits;
  std::vector<int32_t> labels;
};
Predicted predictions(const nn::CausalLm& model) {
  const NoGrad off;
  Predicted result;
  for (const decoding::Document& document : documents()) {
    const Tensor logits = model.forward(Tensor::from(document.ids, {1, document.size()}));
    const std::vector<double> all = logits.to_vector<double>();
    const size_t classes = all.size() / document.ids.size();
    for (size_t t = 0; t + 1 < document.ids.size(); ++t) {
      if (!document.reply[t + 1]) continue;
      const auto row = all.begin() + static_cast<int64_t>(t * classes);
      result.logits.emplace_back(row, row + static_cast<int64_t>(classes));
      result.labels.push_back(document.ids[t + 1]);
    }
  }
  return result;
}

}  // namespace

TEST_CASE("a language model learns what the assistant wrote, each document by itself",
          "[heads][language_model]") {
  const auto model = small_model(small_config(nn::Family::llama));
  const auto rows = packed();
  REQUIRE(rows->row_count() == 2);  // one batch holds every document
  const Predicted expected = predictions(*model);
  double sum = 0;
  for (size_t i = 0; i < expected.labels.size(); ++i)
    sum -= log_probabilities(expected.logits[i])[static_cast<size_t>(expected.labels[i])];
  const double mean = sum / static_cast<double>(expected.labels.size());

  const train::LossInputs in = inputs(*rows, 0);
  CHECK(in.normalisers.at("main").item() == static_cast<double>(expected.labels.size()));
  const train::Loss loss = lm::document_loss(*model, rows->options())(in);
  CHECK(loss.value.item() == Approx(mean).epsilon(1e-5));
  CHECK(loss.scalars.at("main_loss").item() == Approx(mean).epsilon(1e-5));
  CHECK(lm::validation_loss(*model, *rows, amp::Preset::parse("fp32"), 9) ==
        Approx(mean).epsilon(1e-5));
  loss.value.backward();
  CHECK(model->head_weight().grad().defined());
}

TEST_CASE("a language model learns a teacher's distribution where there are labels",
          "[heads][language_model]") {
  const auto model = small_model(small_config(nn::Family::llama));
  nn::CausalLmConfig other = small_config(nn::Family::gpt2);
  other.layers = 1;
  const auto teacher = small_model(other);
  teacher->set_trainable(false);
  const auto rows = packed();
  const Predicted student = predictions(*model), target = predictions(*teacher);
  double sum = 0;
  for (size_t i = 0; i < student.labels.size(); ++i) {
    const std::vector<double> q = log_probabilities(student.logits[i]),
                              p = log_probabilities(target.logits[i]);
    for (size_t v = 0; v < p.size(); ++v) sum += std::exp(p[v]) * (p[v] - q[v]);
  }
  const train::Loss loss = lm::document_loss(*model, rows->options(), teacher)(inputs(*rows, 0));
  CHECK(loss.value.item() ==
        Approx(sum / static_cast<double>(student.labels.size())).epsilon(1e-5));
  loss.value.backward();
  for (const nn::NamedParameter& named : teacher->named_parameters())
    CHECK_FALSE(named.parameter->tensor().grad().defined());

  // Its own teacher has nothing to tell.
  CHECK(std::abs(lm::document_loss(*model, rows->options(), model)(inputs(*rows, 0)).value.item()) <
        1e-6);
}

TEST_CASE("a teacher with another vocabulary is refused", "[heads][language_model][bad_input]") {
  const auto model = small_model(small_config(nn::Family::llama));
  nn::CausalLmConfig other = small_config(nn::Family::llama);
  other.vocab_size = 62;
  CHECK_THROWS_WITH(lm::document_loss(*model, packed()->options(), small_model(other)),
                    Contains("a vocabulary of 62, the model one of 61"));
}
