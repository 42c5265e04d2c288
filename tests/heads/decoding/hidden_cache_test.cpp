// Hidden states in a file: what heads train on is what the language model's pass gives them.
#include <binade/heads/decoding/hidden_cache.h>

#include <cmath>
#include <fstream>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/heads/medusa/training.h>
#include <binade/optim/adamw.h>

#include "nn/tiny_models.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;
namespace medusa = heads::medusa;
using decoding::HiddenCache;

namespace {

constexpr uint32_t kModel = 77;
const amp::Preset kFp32 = amp::Preset::parse("fp32");

const decoding::CachedStates kStates{.what = "hidden states", .width = 32, .compute = {}};

void write_cache(const std::filesystem::path& path, const nn::CausalLm& model,
                 const decoding::PackedDocuments& documents,
                 const decoding::HiddenCacheOptions& options = {}) {
  decoding::write_hidden_cache(path, model, decoding::last_hidden_states(model), kModel, documents,
                               kFp32, options);
}

std::shared_ptr<nn::CausalLm> base_model() {
  auto model = small_model(small_config(nn::Family::llama));
  model->set_trainable(false);
  return model;
}

// Documents with long prompts and short replies.
std::shared_ptr<const decoding::PackedDocuments> documents_of(int64_t seq_len = 24,
                                                              int32_t first_id = 1) {
  std::vector<decoding::Document> documents;
  for (const int64_t length : {14, 9, 11, 20, 6, 17, 8}) {
    decoding::Document document{random_ids(1, length, 61).array().to_vector<int32_t>(), {}};
    document.ids[0] = first_id;
    for (int64_t t = 0; t < length; ++t) document.reply.push_back(t >= length / 2);
    documents.push_back(document);
  }
  return std::make_shared<const decoding::PackedDocuments>(
      documents, decoding::PackingOptions{.batch_size = 2, .seq_len = seq_len, .seed = 5});
}

train::Batch micro_batch(const std::function<train::StepData(int64_t)>& data, int64_t step) {
  return data(step).micro_batches[0];
}

// The losses of some steps of training.
std::vector<double> losses(const std::shared_ptr<nn::CausalLm>& base,
                           const std::shared_ptr<const decoding::PackedDocuments>& documents,
                           const std::shared_ptr<const HiddenCache>& cache) {
  const auto heads = std::make_shared<medusa::MedusaHeads>(base, medusa::MedusaConfig{.heads = 2});
  optim::AdamW optimizer(optim::split_by_decay(*heads, 0));
  amp::GradScaler scaler(Device::cpu(), {});
  train::TrainStep step(medusa::medusa_loss(*heads, documents->options()), optimizer, scaler, kFp32,
                        {});
  const auto data = medusa::medusa_data(documents, 2, 1, {}, cache);
  for (int64_t i = 0; i < 12; ++i) {
    const train::StepData now = data(i);
    step.run(i, now.micro_batches, now.normalisers, 5e-3);
  }
  std::vector<double> result;
  for (const train::StepReport& report : step.take_reports(true)) result.push_back(report.loss);
  return result;
}

}  // namespace

TEST_CASE("cached hidden states are the model's, rounded to f16", "[heads][hidden_cache]") {
  const auto base = base_model();
  const auto documents = documents_of();
  const TemporaryFolder folder;
  for (const int64_t ahead : {0, 1, 3}) {
    const auto path = folder / concat("cache", ahead);
    write_cache(path, *base, *documents, {.ahead = ahead});
    const HiddenCache cache(path, kStates, kModel, *documents, std::max<int64_t>(ahead, 1));
    const NoGrad off;
    int64_t kept = 0;
    for (int64_t step = 0; step < documents->steps_per_epoch(); ++step) {
      const train::Batch batch = documents->rows_from(2 * step);
      train::Named<Tensor> inputs;
      for (const auto& [name, array] : batch) inputs.add(name, Tensor(array));
      const auto expected =
          base->hidden_states(inputs.at("ids"), decoding::sequence_of(inputs, true))
              .array()
              .to(DType::f16)
              .to(DType::f32)
              .to_vector<float>();
      const auto found = cache.rows({2 * step, 2 * step + 1}).to(DType::f32).to_vector<float>();
      REQUIRE(found.size() == expected.size());
      const auto labels = batch.at("labels").to_vector<int32_t>();
      const auto numbers = batch.at("documents").to_vector<int32_t>();
      for (size_t at = 0; at < labels.size(); ++at) {
        bool wanted = numbers[at] >= 0 && ahead == 0;
        for (size_t s = 1; s <= static_cast<size_t>(ahead) && at % 24 + s < 24; ++s)
          wanted =
              wanted || (numbers[at] >= 0 && labels[at + s] >= 0 && numbers[at + s] == numbers[at]);
        kept += wanted ? 1 : 0;
        bool same = true, zero = true;
        for (size_t i = 32 * at; i < 32 * (at + 1); ++i) {
          same = same && found[i] == expected[i];
          zero = zero && found[i] == 0;
        }
        CHECK((wanted ? same : zero));
      }
    }
    CHECK(cache.positions() == kept);
  }
}

TEST_CASE("training from a cache of hidden states is training behind the model",
          "[heads][hidden_cache][medusa]") {
  const auto base = base_model();
  const auto documents = documents_of();
  const TemporaryFolder folder;
  std::vector<std::shared_ptr<const HiddenCache>> caches;
  for (const int64_t ahead : {0, 2, 5}) {
    const auto path = folder / concat("cache", ahead);
    write_cache(path, *base, *documents, {.ahead = ahead});
    caches.push_back(std::make_shared<const HiddenCache>(path, kStates, kModel, *documents, 2));
  }
  const std::vector<double> behind = losses(base, documents, nullptr);
  const std::vector<double> from_cache = losses(base, documents, caches[0]);
  REQUIRE(from_cache.size() == behind.size());
  for (size_t i = 0; i < behind.size(); ++i)
    CHECK(from_cache[i] == Approx(behind[i]).epsilon(2e-3));  // hidden states are rounded to f16
  CHECK(from_cache.back() < 0.95 * from_cache.front());
  // The positions that are left out count for nothing.
  CHECK(losses(base, documents, caches[1]) == from_cache);
  CHECK(losses(base, documents, caches[2]) == from_cache);
  CHECK(caches[1]->positions() < caches[2]->positions());
  CHECK(caches[2]->positions() < caches[0]->positions());
  CHECK(micro_batch(medusa::medusa_data(documents, 2, 1), 0).contains("hidden") == false);
}

TEST_CASE("a cache of hidden states of something else is refused",
          "[heads][hidden_cache][bad-input]") {
  const auto base = base_model();
  const auto documents = documents_of();
  const TemporaryFolder folder;
  const auto path = folder / "cache";
  write_cache(path, *base, *documents, {.ahead = 2});
  const auto open = [&](uint32_t model, int64_t dim, const decoding::PackedDocuments& of,
                        int64_t ahead) {
    return HiddenCache(path, {.what = "hidden states", .width = dim, .compute = {}}, model, of,
                       ahead);
  };
  CHECK_NOTHROW(open(kModel, 32, *documents, 1));
  CHECK_THROWS_WITH(open(kModel + 1, 32, *documents, 2), Contains("other weights"));
  CHECK_THROWS_WITH(open(kModel, 16, *documents, 2), Contains("(32 numbers)") && Contains("(16)"));
  CHECK_THROWS_WITH(
      HiddenCache(path, {.what = "streams", .width = 32, .compute = {}}, kModel, *documents, 2),
      Contains("holds hidden states") && Contains("not streams"));
  CHECK_THROWS_WITH(open(kModel, 32, *documents_of(24, 2), 2), Contains("other documents"));
  CHECK_THROWS_WITH(open(kModel, 32, *documents_of(25), 2), Contains("other documents"));
  CHECK_THROWS_WITH(open(kModel, 32, *documents, 3), Contains("2 heads, not for 3"));
  CHECK_THROWS_WITH(open(kModel, 32, *documents, 0), Contains("2 heads, not for 0"));
}

TEST_CASE("a damaged cache of hidden states is refused", "[heads][hidden_cache][bad-input]") {
  const auto base = base_model();
  const auto documents = documents_of();
  const TemporaryFolder folder;
  const auto path = folder / "cache";
  write_cache(path, *base, *documents, {.ahead = 2});
  const std::string good = read_text_file(path);
  // Reads all of a file; what is wrong with it.
  const auto problem_of = [&](const std::string& content) -> std::string {
    const auto file = folder.write("damaged", content);
    try {
      const HiddenCache cache(file, kStates, kModel, *documents, 2);
      std::vector<int64_t> rows;
      for (int64_t row = 0; row < documents->row_count(); ++row) rows.push_back(row);
      cache.rows(rows);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(problem_of(good).empty());
  for (size_t size = 0; size < good.size(); size += size < 300 ? 1 : 397) {
    INFO(size << " of " << good.size() << " bytes");
    CHECK_THAT(problem_of(good.substr(0, size)), Contains("damaged"));  // the file's name
  }
  CHECK_THAT(problem_of(good + "x"), Contains("behind its end"));
  for (size_t at = 0; at < good.size(); at += at < 300 ? 1 : 211) {
    INFO("a bit of byte " << at);
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    CHECK(!problem_of(flipped).empty());
  }
}

TEST_CASE("hidden states beyond f16 are not cached", "[heads][hidden_cache][bad-input]") {
  const auto base = base_model();
  for (const nn::NamedParameter& named : base->named_parameters())
    if (named.name == "model.norm.weight")
      named.parameter->assign(Array::full({32}, 1e6, DType::f32));
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(write_cache(folder / "cache", *base, *documents_of()),
                    Contains("not finite in f16"));
  CHECK(!std::filesystem::exists(folder / "cache"));
}

TEST_CASE("a cache says how large it will be before it is written", "[heads][hidden_cache]") {
  const auto base = base_model();
  const TemporaryFolder folder;
  const auto path = folder / "cache";
  uint64_t announced = 0;
  write_cache(path, *base, *documents_of(), {.ahead = 2, .announce = [&](uint64_t bytes) {
                                               announced = bytes;
                                               CHECK(!std::filesystem::exists(path));
                                             }});
  CHECK(announced == std::filesystem::file_size(path));
}

TEST_CASE("a cache of an earlier version is refused", "[heads][hidden_cache][bad-input]") {
  // As version 1 began: f16 hidden states alone.
  const std::string header = R"({"version":1,"dim":32})";
  const TemporaryFolder folder;
  std::string content = "BINADEHC";
  const uint32_t numbers[2] = {static_cast<uint32_t>(header.size()),
                               crc32c(header.data(), header.size())};
  content.append(reinterpret_cast<const char*>(numbers), sizeof(numbers));
  const auto path = folder.write("old", content + header);
  CHECK_THROWS_WITH(HiddenCache(path, kStates, kModel, *documents_of(), 2),
                    Contains("version 1, not 2") && Contains("remove it"));
}
