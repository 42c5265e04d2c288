#include <binade/core/error.h>
#include <binade/data/letor.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

using namespace binade;
using namespace binade::data;
using Catch::Matchers::Contains;

namespace {

RankingSet read(std::string_view text, const LetorOptions& options = {}) {
  return parse_letor(text, "lines", options);
}

std::vector<float> features(const RankingSet& set) {
  return set.features.to_vector<float>();
}
std::vector<std::string> texts(const Texts& all) {
  std::vector<std::string> out;
  for (int64_t i = 0; i < all.size(); ++i) out.emplace_back(all[i]);
  return out;
}

bool has_note(const RankingSet& set, const std::string& part) {
  return std::any_of(set.notes.begin(), set.notes.end(),
                     [&](const std::string& note) { return note.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("names of documents are found in every form of comment", "[data][letor]") {
  CHECK(document_name("docid = GX008-86-4444840 inc = 1 prob = 0.086622") == "GX008-86-4444840");
  CHECK(document_name(" docid = clueweb09-en0006-78-20618 ") == "clueweb09-en0006-78-20618");
  CHECK(document_name("docid=a") == "a");
  CHECK(document_name("docid: a b") == "a");
  CHECK(document_name("GX000-00-0000000 relevant") == "GX000-00-0000000");
  CHECK(document_name("docid") == "docid");
  CHECK(document_name("docid =").empty());
  CHECK(document_name("docid7 x") == "docid7");
  CHECK(document_name("").empty());
  CHECK(document_name("  ").empty());
}

TEST_CASE("a split by query depends on the query alone", "[data][letor]") {
  std::string text;
  for (int q = 0; q < 2000; ++q) text += "1 qid:" + std::to_string(q) + " 1:1\n";
  const RankingSet set = read(text);
  const std::vector<double> shares = {0.7, 0.1, 0.2};
  const auto parts = split_by_query(set, shares, 5);
  std::set<int64_t> all;
  for (size_t p = 0; p < 3; ++p) {
    // 4.5 standard deviations of a binomial count.
    const double deviation = std::sqrt(2000 * shares[p] * (1 - shares[p]));
    CHECK(std::abs(static_cast<double>(parts[p].size()) - 2000 * shares[p]) < 4.5 * deviation);
    CHECK(std::is_sorted(parts[p].begin(), parts[p].end()));
    all.insert(parts[p].begin(), parts[p].end());
  }
  CHECK(all.size() == 2000);
  CHECK(split_by_query(set, shares, 6) != parts);
  // Half of the queries, backwards: each falls where it fell.
  std::vector<int64_t> chosen;
  for (int64_t q = 1999; q >= 0; q -= 2) chosen.push_back(q);
  const RankingSet some = select_queries(set, chosen);
  const auto again = split_by_query(some, shares, 5);
  for (size_t p = 0; p < 3; ++p) {
    const std::set<int64_t> before(parts[p].begin(), parts[p].end());
    for (const int64_t q : again[p])
      CHECK(before.count(std::stoll(std::string(some.query_ids[q]))) == 1);
  }
  CHECK(split_by_query(set, std::vector<double>{0, 1, 0}, 5)[1].size() == 2000);
  CHECK_THROWS_WITH(split_by_query(set, std::vector<double>{0.5, 0.4}, 5), Contains("0.9"));
  CHECK_THROWS_WITH(split_by_query(set, std::vector<double>{1.5, -0.5}, 5), Contains("1.5"));
  CHECK_THROWS_WITH(split_by_query(set, {}, 5), Contains("not to 1"));
}

TEST_CASE("queries are selected with all that belongs to them", "[data][letor]") {
  const RankingSet set =
      read("1 qid:a 1:1 # x\n2 qid:b 1:2 # y\n3 qid:b 1:3\n", {.comments = true});
  const RankingSet some = select_queries(set, std::vector<int64_t>{1, 0, 1});
  CHECK(some.offsets.to_vector<int64_t>() == std::vector<int64_t>{0, 2, 3, 5});
  CHECK(features(some) == std::vector<float>{2, 3, 1, 2, 3});
  CHECK(some.labels.to_vector<float>() == std::vector<float>{2, 3, 1, 2, 3});
  CHECK(texts(some.comments) == std::vector<std::string>{"y", "", "x", "y", ""});
  CHECK(texts(some.query_ids) == std::vector<std::string>{"b", "a", "b"});
  CHECK(select_queries(set, {}).queries() == 0);
  CHECK_THROWS_WITH(select_queries(set, std::vector<int64_t>{2}), Contains("there is no list 2"));
}

TEST_CASE("long lists are sampled, and the set says so", "[data][letor]") {
  std::string text;
  for (int q = 0; q < 400; ++q)
    for (int i = 0; i < (q % 2 == 0 ? 20 : 3); ++i)
      text += std::to_string(i % 10 == 9 ? 1 : 0) + " qid:" + std::to_string(q) +
              " 1:" + std::to_string(i) + "\n";
  const RankingSet set = read(text);
  const RankingSet cut = sample_long_lists(set, {.longest = 5, .seed = 1});
  std::vector<int64_t> chosen(20);
  for (int64_t q = 0; q < 400; ++q) {
    const int64_t length = cut.offset_span()[q + 1] - cut.offset_span()[q];
    REQUIRE(length == (q % 2 == 0 ? 5 : 3));
    float before = -1;
    for (int64_t row = cut.offset_span()[q]; row < cut.offset_span()[q + 1]; ++row) {
      const float value = cut.feature_span()[row];
      CHECK(value > before);  // the order of the file
      before = value;
      if (q % 2 == 0) ++chosen[static_cast<size_t>(value)];
    }
  }
  // Each of 20 documents stays with probability 1/4 in 200 lists.
  for (const int64_t count : chosen) CHECK(std::abs(count - 50) < 4.5 * std::sqrt(200 * 3 / 16.0));
  CHECK(
      has_note(cut, "200 of 400 lists were cut to 5 documents (3000 of 4600 documents left out)"));
  CHECK(features(sample_long_lists(set, {.longest = 5, .seed = 1})) == features(cut));
  CHECK(features(sample_long_lists(set, {.longest = 5, .seed = 2})) != features(cut));
  const RankingSet relevant =
      sample_long_lists(set, {.longest = 5, .keep = ListSampling::Keep::relevant_first, .seed = 1});
  for (int64_t q = 0; q < 400; q += 2) {
    float sum = 0;
    for (int64_t row = relevant.offset_span()[q]; row < relevant.offset_span()[q + 1]; ++row)
      sum += relevant.label_span()[row];
    CHECK(sum == 2);
  }
  CHECK(has_note(relevant, "relevant ones kept first"));
  CHECK(sample_long_lists(set, {.longest = 20}).notes == set.notes);
  CHECK_THROWS_WITH(sample_long_lists(set, {.longest = 0}), Contains("cannot be cut to 0"));
}
