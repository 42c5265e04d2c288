#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/data/letor.h>

#include <catch2/catch.hpp>
#include <charconv>
#include <cmath>
#include <map>
#include <sstream>

#include "ranking_data.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;

namespace {

using FirstIndex = LetorOptions::FirstIndex;
using Missing = LetorOptions::Missing;
using OutOfRange = LetorOptions::OutOfRange;

RankingSet read(std::string_view text, const LetorOptions& options = {}) {
  return parse_letor(text, "lines", options);
}

std::vector<float> features(const RankingSet& set) {
  return set.features.to_vector<float>();
}
std::vector<float> labels(const RankingSet& set) {
  return set.labels.to_vector<float>();
}
std::vector<int64_t> offsets(const RankingSet& set) {
  return set.offsets.to_vector<int64_t>();
}
std::vector<std::string> texts(const Texts& all) {
  std::vector<std::string> out;
  for (int64_t i = 0; i < all.size(); ++i) out.emplace_back(all[i]);
  return out;
}

// Says what the reader throws for a text, or nothing.
std::string complaint(std::string_view text, const LetorOptions& options = {}) {
  try {
    read(text, options);
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

bool has_note(const RankingSet& set, const std::string& part) {
  for (const std::string& note : set.notes)
    if (note.find(part) != std::string::npos) return true;
  return false;
}

// ---- an independent reader of well-formed lines, by streams
struct Plain {
  std::vector<std::vector<std::pair<int64_t, double>>> rows;
  std::vector<double> labels;
  std::vector<std::string> queries;
};

Plain read_plainly(const std::string& text) {
  Plain plain;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line = line.substr(0, line.find('#'));
    std::istringstream words(line);
    std::string word;
    if (!(words >> word)) continue;
    plain.labels.push_back(std::stod(word));
    words >> word;
    plain.queries.push_back(word.substr(4));
    plain.rows.emplace_back();
    while (words >> word) {
      const size_t colon = word.find(':');
      plain.rows.back().emplace_back(std::stol(word.substr(0, colon)),
                                     std::stod(word.substr(colon + 1)));
    }
  }
  return plain;
}

void check_same(const RankingSet& set, const Plain& plain) {
  REQUIRE(set.documents() == static_cast<int64_t>(plain.rows.size()));
  const auto values = set.feature_span();
  const auto starts = set.offset_span();
  int64_t query = -1, wrong = 0;
  for (int64_t row = 0; row < set.documents(); ++row) {
    while (starts[query + 1] <= row) ++query;
    wrong += set.query_ids[query] == plain.queries[row] ? 0 : 1;
    wrong += set.label_span()[row] == static_cast<float>(plain.labels[row]) ? 0 : 1;
    std::vector<float> expected(static_cast<size_t>(set.feature_count()), 0.0F);
    for (const auto& [index, value] : plain.rows[row])
      expected[index - set.first_index] = static_cast<float>(value);
    for (int64_t c = 0; c < set.feature_count(); ++c)
      wrong += values[row * set.feature_count() + c] == expected[c] ? 0 : 1;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("LETOR lines become lists", "[data][letor]") {
  const RankingSet set = read(
      "2 qid:7 1:0.5 2:-3 3:1e2 # docid = A inc = 1\n"
      "0 qid:7 1:1 3:.25 #docid = B\n"
      "1.5 qid:x 2:+4.\n",
      {.comments = true});
  CHECK(set.queries() == 2);
  CHECK(set.documents() == 3);
  CHECK(set.feature_count() == 3);
  CHECK(offsets(set) == std::vector<int64_t>{0, 2, 3});
  CHECK(labels(set) == std::vector<float>{2, 0, 1.5});
  CHECK(features(set) == std::vector<float>{0.5, -3, 100, 1, 0, 0.25, 0, 4, 0});
  CHECK(texts(set.query_ids) == std::vector<std::string>{"7", "x"});
  CHECK(texts(set.comments) == std::vector<std::string>{"docid = A inc = 1", "docid = B", ""});
  CHECK(set.first_index == 1);
  CHECK(has_note(set, "numbered from 1: no line has a feature 0"));
  CHECK(read("1 qid:1 1:2\n").comments.empty());
}

TEST_CASE("LETOR lines are read in every spelling of them", "[data][letor]") {
  const auto expected = std::vector<float>{1, 0, 2, 0, 3, 4};
  for (const std::string text : {
           "1 qid:1 1:1 3:2\n0 qid:1 2:3 3:4\n",
           "1 qid:1 1:1 3:2\n0 qid:1 2:3 3:4",                         // no last end
           "1 qid:1 1:1 3:2\r\n0 qid:1 2:3 3:4\r\n",                   // CRLF
           "1 qid:1 1:1 3:2\r\n0 qid:1 2:3 3:4\r",                     // … half of one
           "1 qid:1 1:1 3:2  \t \n0 qid:1 2:3 3:4 \t",                 // trailing blanks
           "\n  \n1\tqid:1\t1:1\t3:2\n\r\n   0  qid:1   2:3 3:4\n\n",  // blank lines, tabs
           "# head\n1 qid:1 1:1 3:2# a\n  # between\n0 qid:1 2:3 3:4#\n#",
           "\xEF\xBB\xBF\x31 qid:1 1:1 3:2\n0 qid:1 2:3 3:4\n",  // a byte order mark
           "1.0 qid:1 1:1.000 2:0 3:2e0 #docid=a # b\n0e0 qid:1 1:-0 2:30e-1 3:0.4E+1\n",
       }) {
    CAPTURE(text);
    const RankingSet set = read(text);
    CHECK(features(set) == expected);
    CHECK(labels(set) == std::vector<float>{1, 0});
    CHECK(set.queries() == 1);
  }
}

TEST_CASE("the first feature is 0 or 1, as told or as found", "[data][letor]") {
  const std::string zero = "1 qid:1 0:5 2:6\n0 qid:1 1:7\n";
  const RankingSet found = read(zero);
  CHECK(found.first_index == 0);
  CHECK(found.feature_count() == 3);
  CHECK(features(found) == std::vector<float>{5, 0, 6, 0, 7, 0});
  CHECK(has_note(found, "numbered from 0: there is a feature 0"));
  // Where only a late line says so.
  const RankingSet late = read("1 qid:1 1:7\n0 qid:1 0:5 2:6\n");
  CHECK(features(late) == std::vector<float>{0, 7, 0, 5, 0, 6});
  // … and where one has more features than those before.
  CHECK(features(read("1 qid:1 1:7\n0 qid:1 3:5\n")) == std::vector<float>{7, 0, 0, 0, 0, 5});

  CHECK(read("1 qid:1 1:7\n", {.first_index = FirstIndex::zero}).feature_count() == 2);
  CHECK(read("1 qid:1 1:7\n", {.first_index = FirstIndex::zero}).notes.empty());
  CHECK_THAT(complaint(zero, {.first_index = FirstIndex::one}),
             Contains("lines:1:9: expected a feature index from 1, found \"0:5\""));
  CHECK(read("1 qid:1 2:7\n", {.features = 5}).feature_count() == 5);
  CHECK(read("1 qid:1 0:7\n", {.features = 5}).feature_count() == 5);
  CHECK_THAT(complaint("1 qid:1 6:7\n", {.features = 5}),
             Contains("expected a feature index of at most 5, found \"6:7\""));
  CHECK_THAT(complaint("1 qid:1 1:7\n1 qid:1 0:1 5:7\n", {.features = 5}),
             Contains("lines:2:13: expected a feature index of at most 4"));
  // Further files are read as the first one.
  const LetorOptions like = LetorOptions().like(found);
  CHECK(features(read("1 qid:1 1:7\n", like)) == std::vector<float>{0, 7, 0});
  CHECK(read("1 qid:3\n").feature_count() == 0);
}

TEST_CASE("a bad LETOR line is named with its place", "[data][letor]") {
  const std::string good = "1 qid:1 1:1 2:2\n";
  const std::map<std::string, std::string> bad = {
      {"x qid:1 1:1", ":1: expected a label, a number from 0, found \"x\""},
      {"-1 qid:1 1:1", ":1: expected a label from 0, found \"-1\""},
      {"nan qid:1 1:1", ":1: expected a label, a number from 0, found \"nan\""},
      {"inf qid:1 1:1", ":1: expected a label of at most 31, found \"inf\""},
      {"32 qid:1 1:1", ":1: expected a label of at most 31, found \"32\""},
      {"1e400 qid:1 1:1", ":1: expected a label of at most 31"},
      {"qid:1 1:1", ":1: expected a label"},
      {"1:1 2:2", ":1: expected a label"},
      {"1", ":2: expected qid:ID, found nothing"},
      {"1 1:1 2:2", ":3: expected qid:ID, found \"1:1\""},
      {"1 qid: 1:1", ":3: expected a query id behind qid:"},
      {"1 query:1 1:1", ":3: expected qid:ID"},
      {"1 qid:1 1", ":9: expected a feature, index:value, found \"1\""},
      {"1 qid:1 a:1", ":9: expected a feature"},
      {"1 qid:1 :1", ":9: expected a feature"},
      {"1 qid:1 -1:1", ":9: expected a feature"},
      {"1 qid:1 1 :1", ":9: expected a feature"},
      {"1 qid:1 1:1,2:2", ":11: expected a value, a number, found \"1,2:2\""},
      {"1 qid:1 1: 2", ":11: expected a value, a number, found nothing"},
      {"1 qid:1 1:0x10", ":11: expected a value"},
      {"1 qid:1 1:1.2.3", ":11: expected a value"},
      {"1 qid:1 1:--1", ":11: expected a value"},
      {"1 qid:1 1:+-1", ":11: expected a value"},
      {"1 qid:1 1:1e", ":11: expected a value"},
      {"1 qid:1 1:1 1:2", ":13: expected a feature index larger than 1, the one before it"},
      {"1 qid:1 2:1 1:2", ":13: expected a feature index larger than 2"},
      {"1 qid:1 99999999999:1", ":9: expected a feature"},
      {"1 qid:1 92233720368547758080:1", ":9: expected a feature"},
      {"1 qid:1 1:NULL", ":11: expected a value; missing says what else to do with it"},
      {"1 qid:1 1:nan", ":11: expected a value; missing"},
      {"1 qid:1 1:1.797e308", ":11: expected a value within f32; out_of_range"},
      {"1 qid:1 1:-1e39", ":11: expected a value within f32"},
      {"1 qid:1 1:inf", ":11: expected a value within f32"},
      {"1 qid:1 1:1 qid:1", ":13: expected index:value"},
      {std::string("1 qid:1 1:1\0 2:2", 16), ":12: expected a feature"},
      {"1 qid:1 1:1\r2:2", ":12: expected a feature"},
  };
  for (const auto& [line, what] : bad) {
    CAPTURE(line, what);
    CHECK_THAT(complaint(concat(line, '\n', good)), Contains("lines:1" + what));
    CHECK_THAT(complaint(concat(good, "\n# x\n", line, '\n', good)), Contains("lines:4" + what));
    CHECK_THAT(complaint(concat(good, line)), Contains("lines:2" + what));
  }
  CHECK_THAT(complaint(""), Contains("lines has no documents"));
  CHECK_THAT(complaint("\n \r\n"), Contains("lines has no documents"));
  CHECK_THAT(complaint("# only words\n"), Contains("lines has no documents"));
  CHECK_THAT(complaint("1 qid:1 2000000000:1\n", {.largest_bytes = 1 << 20}),
             Contains("would take more than the limit of"));
}

TEST_CASE("the first bad line is told, however many threads read", "[data][letor]") {
  // Two bad lines, megabytes apart.
  std::string text;
  for (int i = 0; i < 60'000; ++i) text += "1 qid:1 1:0.123456 2:0.654321 3:0.5 4:0.25 5:0.125\n";
  const std::string bad = "1 qid:1 1:x\n";
  text.insert(text.size() / 51 / 3 * 2 * 51, bad);
  text.insert(text.size() / 51 / 4 * 51, bad);
  for (const int threads : {1, 2, 3, 8})
    for (int time = 0; time < 3; ++time)
      CHECK_THAT(complaint(text, {.threads = threads}), Contains("lines:15001:11:"));
}

TEST_CASE("values keep every bit that f32 has", "[data][letor]") {
  // Against strtod, which rounds correctly: random digits, exponents, halves between floats.
  std::vector<std::string> numbers = {"0",
                                      "-0.0",
                                      "1",
                                      "0.1",
                                      "16777217",
                                      "9007199254740993",
                                      "123456789012345678",
                                      "1e-45",
                                      "1e-46",
                                      "3.4028234e38",
                                      "3.40282356e38",
                                      "0.000000000000000000000000000012345",
                                      "1.00000005960464477539062",
                                      "1.00000017881393432617187500001",
                                      "1e22",
                                      "1e23",
                                      "1e-400",
                                      "-1e-400",
                                      "4.5e-4",
                                      "00012",
                                      "0.00000000000000000000001",
                                      "1.17549435e-38"};
  for (uint64_t i = 0; i < 3000; ++i) {
    const PhiloxBlock draw = philox(11, 0, 0, i);
    std::string number = draw.word[0] % 2 != 0 ? "-" : "";
    const size_t digits = 1 + draw.word[1] % 19;
    for (size_t d = 0; d < digits; ++d)
      number += static_cast<char>('0' + philox(12, i, 0, d).word[0] % 10);
    if (draw.word[2] % 3 != 0) number.insert(number.size() - draw.word[2] / 3 % digits, ".");
    if (draw.word[3] % 4 == 0) number += "e" + std::to_string(int(draw.word[3] / 4 % 50) - 30);
    numbers.push_back(number);
  }
  std::string text;
  std::vector<float> expected;
  for (const std::string& number : numbers) {
    const auto value = static_cast<float>(std::strtod(number.c_str(), nullptr));
    if (!std::isfinite(value)) continue;
    text += "0 qid:1 1:" + number + "\n";
    expected.push_back(value);
  }
  const auto actual = features(read(text));
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i]) continue;
    CAPTURE(i, actual[i], expected[i]);
    CHECK(actual[i] == expected[i]);
  }
}

TEST_CASE("missing values become what is asked for", "[data][letor]") {
  // MQ2007-agg's form.
  const std::string text =
      "1 qid:1 1:NULL 2:0.5 3:null\n0 qid:1 1:0.25 2:nan 3:NULL\n"
      "0 qid:2 1:NULL 2:-2 3:4\n0 qid:2 1:3 2:NULL 3:5\n";
  const RankingSet zero = read(text, {.missing = Missing::zero});
  CHECK(features(zero) == std::vector<float>{0, 0.5, 0, 0.25, 0, 0, 0, -2, 4, 3, 0, 5});
  CHECK(has_note(zero, "6 missing values became 0"));
  const RankingSet least = read(text, {.missing = Missing::query_min});
  CHECK(features(least) == std::vector<float>{0.25, 0.5, 0, 0.25, 0.5, 0, 3, -2, 4, 3, -2, 5});
  CHECK(has_note(least, "became the smallest of their feature in the query"));
}

TEST_CASE("values beyond f32 become what is asked for", "[data][letor]") {
  // Istella writes the largest f64 for "none".
  const std::string text = "1 qid:1 1:1.797693134862315708e+308 2:1\n0 qid:1 1:7 2:-inf\n";
  constexpr float kLargest = std::numeric_limits<float>::max();
  const RankingSet clamped = read(text, {.out_of_range = OutOfRange::clamp});
  CHECK(features(clamped) == std::vector<float>{kLargest, 1, 7, -kLargest});
  CHECK(has_note(clamped, "2 values were beyond f32 and count as its largest"));
  const RankingSet missing =
      read(text, {.missing = Missing::query_min, .out_of_range = OutOfRange::missing});
  CHECK(features(missing) == std::vector<float>{7, 1, 7, 1});
  CHECK_THAT(complaint(text, {.out_of_range = OutOfRange::missing}), Contains("missing says"));
  // f16 ends much earlier.
  CHECK(has_note(read("1 qid:1 1:1.6e8\n"), "beyond f16's 65504"));
  CHECK_FALSE(has_note(read("1 qid:1 1:65504\n"), "f16"));
}

TEST_CASE("a query in two places is refused or brought together", "[data][letor]") {
  const std::string text =
      "1 qid:a 1:1 # 1\n0 qid:b 1:2 # 2\n2 qid:a 1:3 # 3\n0 qid:b 1:4 # 4\n1 qid:c 1:5 # 5\n"
      "1 qid:b 1:6 # 6\n";
  const std::string what = complaint(text);
  CHECK_THAT(what, Contains("lines:3: query a is here again; its other lines begin at lines:1"));
  CHECK_THAT(what, Contains("--group-by-qid"));
  const RankingSet set = read(text, {.group_by_qid = true, .comments = true});
  CHECK(offsets(set) == std::vector<int64_t>{0, 2, 5, 6});
  CHECK(features(set) == std::vector<float>{1, 3, 2, 4, 6, 5});
  CHECK(labels(set) == std::vector<float>{1, 2, 0, 0, 1, 1});
  CHECK(texts(set.query_ids) == std::vector<std::string>{"a", "b", "c"});
  CHECK(texts(set.comments) == std::vector<std::string>{"1", "3", "2", "4", "6", "5"});
  CHECK(set.file_rows.to_vector<int64_t>() == std::vector<int64_t>{0, 2, 1, 3, 5, 4});
  const RankingSet some = select_queries(set, std::vector<int64_t>{2, 0});
  CHECK(some.file_rows.to_vector<int64_t>() == std::vector<int64_t>{4, 0, 2});
  CHECK(has_note(set, "the lines of 2 queries were apart"));
  CHECK_FALSE(has_note(read("1 qid:a 1:1\n", {.group_by_qid = true}), "apart"));
}

TEST_CASE("several files are one set", "[data][letor]") {
  const TemporaryFolder folder;
  const auto a = folder.write("a.txt", "1 qid:1 1:1 2:2\n0 qid:2 1:3 2:4");
  const auto b = folder.write("b.txt", "\n1 qid:2 1:5 2:6\n0 qid:3 2:7\n");
  const RankingSet set = read_letor({a, b});
  CHECK(offsets(set) == std::vector<int64_t>{0, 1, 3, 4});
  CHECK(features(set) == std::vector<float>{1, 2, 3, 4, 5, 6, 0, 7});
  const auto c = folder.write("c.txt", "1 qid:1 1:5 2:6\n");
  CHECK_THROWS_WITH(read_letor({a, b, c}), Contains("c.txt:1: query 1 is here again; its other "
                                                    "lines begin at " +
                                                    a.string() + ":1"));
  const auto d = folder.write("d.txt", "1 qid:9 1:5 3:6\n");
  CHECK_THROWS_WITH(read_letor({a, d}),
                    Contains("d.txt has features up to 3, " + a.string() + " up to 2"));
  CHECK(read_letor({a, d}, {.features = 3}).feature_count() == 3);
  const auto e = folder.write("e.txt", "# nothing\n");
  CHECK_THROWS_WITH(read_letor({a, e}), Contains("e.txt has no documents"));
  CHECK_THROWS_WITH(read_letor({a, folder / "none"}), Contains("cannot open"));
  CHECK_THROWS_WITH(read_letor({}), Contains("no file"));
}

TEST_CASE("group files give the lengths of lists", "[data][letor]") {
  const TemporaryFolder folder;
  const auto lines = folder.write("train.txt", "1 1:1 2:2\n0 1:3\n2 1:5 2:6\n");
  CHECK_THROWS_WITH(read_letor({lines}), Contains("train.txt:1:3: expected qid:ID, found \"1:1\""));
  const auto groups = folder.write("groups", "2\r\n\n0\n1\n");
  const RankingSet set = read_letor({lines}, {.group_files = {groups}});
  CHECK(offsets(set) == std::vector<int64_t>{0, 2, 2, 3});
  CHECK(texts(set.query_ids) == std::vector<std::string>{"1", "2", "3"});
  for (const char* ending : {"query", "group"}) {
    folder.write(std::string("train.txt.") + ending, "1\n2\n");
    const RankingSet beside = read_letor({lines});
    CHECK(offsets(beside) == std::vector<int64_t>{0, 1, 3});
    CHECK(has_note(beside, std::string("come from train.txt.") + ending));
    std::filesystem::remove(folder / (std::string("train.txt.") + ending));
  }
  const auto refused = [&](const char* text, const char* what) {
    CHECK_THROWS_WITH(read_letor({lines}, {.group_files = {folder.write("g", text)}}),
                      Contains(what));
  };
  refused("2\n2\n", "g:2: the queries so far have 4 documents");
  refused("2\n", "the queries have 2 documents, ");
  refused("", "the queries have 0 documents");
  refused("1\nx\n2\n", "g:2: expected how many documents a query has, found \"x\"");
  refused("-1\n4\n", "g:1: expected how many");
  refused("1.5\n1.5\n", "g:1: expected how many");
  refused("nan\n", "g:1: expected how many");
  CHECK_THROWS_WITH(read_letor({lines}, {.group_files = {groups, groups}}),
                    Contains("2 group files were given for 1 files"));
  const auto with_ids = folder.write("ids.txt", "1 qid:1 1:1\n");
  CHECK_THROWS_WITH(read_letor({with_ids}, {.group_files = {groups}}),
                    Contains("the lists' lengths come from a group file"));
}

TEST_CASE("a large file is what a plain reader says, with any number of threads", "[data][letor]") {
  std::string text;
  for (uint64_t row = 0; row < 40'000; ++row) {
    const PhiloxBlock draw = philox(3, 0, 0, row);
    text += std::to_string(draw.word[0] % 5) + " qid:" + std::to_string(row / 37);
    for (uint64_t f = 1; f <= 12; ++f) {
      const uint32_t word = philox(4, f, 0, row).word[0];
      if (word % 3 == 0) continue;
      char value[32];
      std::snprintf(value, sizeof(value), " %d:%.*f", static_cast<int>(f),
                    static_cast<int>(word % 9), word * 1e-7 - 100);
      text += value;
    }
    if (draw.word[1] % 4 == 0) text += " # docid = " + std::to_string(row);
    text += draw.word[1] % 8 == 1 ? "\r\n" : "\n";
    if (draw.word[2] % 100 == 0) text += "\n# a line without a document\n";
  }
  const Plain plain = read_plainly(text);
  for (const int threads : {1, 2, 5}) {
    const RankingSet set = read(text, {.threads = threads});
    check_same(set, plain);
    CHECK(set.queries() == (40'000 + 36) / 37);
  }
}

TEST_CASE("the shared data sets are what a plain reader says", "[data][letor][shared]") {
  const std::map<std::string, std::vector<int64_t>> sizes = {// documents, queries, features
                                                             {"MQ2008", {15211, 784, 46}},
                                                             {"ClueWeb09-LTR", {26646, 61, 42}},
                                                             {"MSLR-sample", {9122, 89, 136}}};
  for (const auto& [name, size] : sizes) {
    CAPTURE(name);
    const TemporaryFolder folder;
    const auto files = test::ranking_files(name, folder);
    if (files.empty()) return;
    const RankingSet set = read_letor(files);
    CHECK(set.documents() == size[0]);
    CHECK(set.queries() == size[1]);
    CHECK(set.feature_count() == size[2]);
    std::string text;
    for (const auto& file : files) {
      std::ifstream stream(file, std::ios::binary);
      text.append(std::istreambuf_iterator<char>(stream), {});
    }
    check_same(set, read_plainly(text));
  }
}
