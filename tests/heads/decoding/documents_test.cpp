// Documents that decoding heads are trained on, packed into rows.
#include <binade/heads/decoding/documents.h>

#include <set>

#include <catch2/catch.hpp>

#include <binade/core/random.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace decoding = heads::decoding;

namespace {

// Documents of these lengths with ids that occur once in all; every third token is no reply.
std::vector<decoding::Document> documents_of(const std::vector<int64_t>& lengths) {
  std::vector<decoding::Document> documents;
  int32_t id = 1;
  for (const int64_t length : lengths) {
    decoding::Document document;
    for (int64_t t = 0; t < length; ++t) {
      document.ids.push_back(id++);
      document.reply.push_back(t % 3 != 0);
    }
    documents.push_back(std::move(document));
  }
  return documents;
}

}  // namespace

TEST_CASE("packing keeps every token once, in order, with its document's positions",
          "[heads][decoding]") {
  const std::vector<int64_t> lengths = {7, 3, 16, 1, 9, 4, 5, 2, 16, 8};
  for (const bool pack : {true, false}) {
    const decoding::PackedDocuments packed(documents_of(lengths),
                                           {.batch_size = 3, .seq_len = 16, .pack = pack});
    INFO(packed.row_count() << " rows");
    CHECK(packed.row_count() == (pack ? 5 : 10));  // 71 tokens: 4.4 rows of 16
    std::set<int32_t> seen;
    int64_t labels_seen = 0;
    for (int64_t first = 0; first < packed.row_count(); first += 3) {
      const train::Batch batch = packed.rows_from(first);
      const auto ids = batch.at("ids").to_vector<int32_t>();
      const auto labels = batch.at("labels").to_vector<int32_t>();
      const auto numbers = batch.at("documents").to_vector<int32_t>();
      const auto positions = batch.at("positions").to_vector<int32_t>();
      for (size_t i = 0; i < ids.size(); ++i) {
        const bool at_end = i % 16 == 15;
        if (numbers[i] < 0) {
          CHECK(ids[i] == 0);
          CHECK(labels[i] == -100);
          continue;
        }
        CHECK(seen.insert(ids[i]).second);
        const bool goes_on = !at_end && numbers[i + 1] == numbers[i];
        if (goes_on) {
          CHECK(ids[i + 1] == ids[i] + 1);
          CHECK(positions[i + 1] == positions[i] + 1);
        } else if (!at_end && numbers[i + 1] >= 0) {
          CHECK(positions[i + 1] == 0);
        }
        // Position t + 1 is a reply unless it is a multiple of 3.
        CHECK(labels[i] == (goes_on && (positions[i] + 1) % 3 != 0 ? ids[i] + 1 : -100));
        labels_seen += labels[i] != -100;
      }
    }
    CHECK(seen.size() == 71);
    CHECK(labels_seen == packed.reply_tokens());
  }
}

TEST_CASE("an epoch of packed documents visits every row, in another order each time",
          "[heads][decoding]") {
  const decoding::PackedDocuments packed(documents_of(std::vector<int64_t>(12, 5)),
                                         {.batch_size = 4, .seq_len = 5, .seed = 3});
  REQUIRE(packed.steps_per_epoch() == 3);
  std::vector<std::vector<int32_t>> orders;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<int32_t> firsts;
    for (int64_t step = 0; step < 3; ++step)
      for (int64_t b = 0; b < 4; ++b)
        firsts.push_back(
            packed.batch(3 * epoch + step).at("ids").slice(0, b, b + 1).to_vector<int32_t>()[0]);
    CHECK(std::set<int32_t>(firsts.begin(), firsts.end()).size() == 12);
    orders.push_back(firsts);
  }
  CHECK(orders[0] != orders[1]);
}

TEST_CASE("labels are counted within documents", "[heads][decoding]") {
  const decoding::PackedDocuments packed(documents_of({4, 3}), {.batch_size = 1, .seq_len = 8});
  const train::Batch batch = packed.rows_from(0);
  // Documents a b c d | e f g: labels b c - | f g -, then -.
  CHECK(decoding::count_labels(batch, 0) == 4);
  CHECK(decoding::count_labels(batch, 1) == 2);  // c of a, g of e
  CHECK(decoding::count_labels(batch, 2) == 0);
}

TEST_CASE("a packed row has the hidden states of its documents alone", "[heads][decoding]") {
  for (const nn::Family family : kFamilies) {
    INFO(nn::name_of(family));
    const auto model = small_model(small_config(family));
    std::vector<decoding::Document> documents;
    for (const int64_t length : {9, 5, 6}) {
      const Tensor ids = random_ids(1, length, 61);
      documents.push_back(decoding::whole_document(ids.array().to_vector<int32_t>()));
    }
    const decoding::PackedDocuments packed(documents, {.batch_size = 1, .seq_len = 20});
    REQUIRE(packed.row_count() == 1);
    train::Named<Tensor> batch;
    for (const auto& [name, array] : packed.rows_from(0)) batch.add(name, Tensor(array));
    const NoGrad off;
    const Tensor together =
        model->hidden_states(batch.at("ids"), decoding::sequence_of(batch, true));
    int64_t at = 0;
    for (const int64_t i : {0, 2, 1}) {  // the longest first
      const std::vector<int32_t>& ids = documents[static_cast<size_t>(i)].ids;
      const auto size = static_cast<int64_t>(ids.size());
      const Tensor alone = model->hidden_states(Tensor::from(ids, {1, size}));
      CHECK(relative_difference(slice(together, 1, at, at + size).array(), alone.array()) < 1e-5);
      at += size;
    }
  }
}

TEST_CASE("documents longer than a row are cut and counted", "[heads][decoding]") {
  const decoding::PackedDocuments packed(documents_of({20, 5}), {.batch_size = 1, .seq_len = 8});
  CHECK(packed.cut_documents() == 1);
  CHECK(packed.row_count() == 2);
}

TEST_CASE("documents that cannot be packed are refused", "[heads][decoding][errors]") {
  const auto pack = [](std::vector<decoding::Document> documents, int64_t length = 8) {
    decoding::PackedDocuments(std::move(documents), {.batch_size = 1, .seq_len = length});
  };
  CHECK_THROWS_WITH(pack({}), Contains("no document"));
  CHECK_THROWS_WITH(pack({decoding::Document{}}), Contains("document 0 has 0 tokens"));
  CHECK_THROWS_WITH(pack({decoding::Document{{1, 2}, {true}}}), Contains("2 tokens and 1 marks"));
  CHECK_THROWS_WITH(pack({decoding::Document{{1, 2}, {true, false}}}),
                    Contains("counts as a label"));
  CHECK_THROWS_WITH(pack(documents_of({5}), 1), Contains("at least 2 tokens"));
}

TEST_CASE("packed documents have a fingerprint of ids and marks", "[heads][decoding]") {
  const auto of = [](std::vector<decoding::Document> documents) {
    return decoding::PackedDocuments(std::move(documents), {.batch_size = 1, .seq_len = 8})
        .fingerprint();
  };
  const std::string before = of(documents_of({4, 3}));
  CHECK(before == of(documents_of({4, 3})));
  auto other = documents_of({4, 3});
  other[0].reply[3] = true;
  CHECK(before != of(other));
  other = documents_of({4, 3});
  other[1].ids[0] = 99;
  CHECK(before != of(other));
  CHECK(before != of(documents_of({3, 4})));
}
