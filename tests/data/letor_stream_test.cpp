// Files that are read piece by piece: they give the lists that reading them at once gives.
#include <random>

#include <binade/core/error.h>
#include <binade/data/letor_stream.h>

#include <catch2/catch.hpp>

#include "temporary_folder.h"

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

// All that blocks hold, one after another, and what was thrown behind them.
struct Streamed {
  std::vector<int64_t> lengths;
  std::vector<std::string> ids, comments;
  std::vector<float> features, labels;
  int64_t blocks = 0, largest_block = 0;
  std::string error;
};

void add(Streamed& all, const RankingSet& set) {
  set.check_shapes("a block");
  REQUIRE(set.queries() > 0);
  const auto offsets = set.offset_span();
  for (int64_t q = 0; q < set.queries(); ++q) {
    all.lengths.push_back(offsets[q + 1] - offsets[q]);
    all.ids.emplace_back(set.query_ids[q]);
  }
  for (int64_t i = 0; i < set.comments.size(); ++i) all.comments.emplace_back(set.comments[i]);
  all.features.insert(all.features.end(), set.feature_span().begin(), set.feature_span().end());
  all.labels.insert(all.labels.end(), set.label_span().begin(), set.label_span().end());
  all.largest_block = std::max(all.largest_block, set.documents());
  ++all.blocks;
}

Streamed stream(const std::vector<fs::path>& files, const LetorStreamOptions& options) {
  Streamed all;
  try {
    LetorStream lists(files, options);
    while (const auto set = lists.next()) {
      add(all, *set);
      CHECK(lists.documents() == static_cast<int64_t>(all.labels.size()));
      CHECK(lists.queries() == static_cast<int64_t>(all.lengths.size()));
    }
    CHECK_FALSE(lists.next());
  } catch (const Error& error) {
    all.error = error.what();
  }
  return all;
}

std::string whole_error(const std::vector<fs::path>& files, const LetorOptions& options) {
  try {
    read_letor(files, options);
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

void compare(const Streamed& pieces, const RankingSet& at_once) {
  Streamed whole;
  add(whole, at_once);
  CHECK(pieces.error.empty());
  CHECK(pieces.lengths == whole.lengths);
  CHECK(pieces.ids == whole.ids);
  CHECK(pieces.comments == whole.comments);
  CHECK(pieces.features == whole.features);
  CHECK(pieces.labels == whole.labels);
}

// Lists of 1 to 40 lines with comments, blank lines, both ends of lines, and features left out.
std::string random_lines(std::mt19937& random, int first_query, int queries) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  std::string text;
  for (int q = first_query; q < first_query + queries; ++q) {
    for (int line = below(40); line >= 0; --line) {
      if (below(8) == 0)
        text += below(2) == 0 ? "\n" : "  # qid:" + std::to_string(q + 1) + " 1:2\r\n";
      text +=
          std::to_string(below(3)) + (below(2) == 0 ? " " : "\t ") + "qid:q" + std::to_string(q);
      for (int f = 1; f <= 5; ++f)
        if (below(3) > 0) text += ' ' + std::to_string(f) + ":0." + std::to_string(below(1000));
      if (below(3) == 0) text += " #docid = " + std::to_string(below(100)) + " 9:9";
      text += below(2) == 0 ? "\n" : "\r\n";
    }
  }
  return text;
}

LetorStreamOptions options_of(int64_t features, int64_t block_bytes) {
  LetorStreamOptions options{.lines = {}, .block_bytes = block_bytes};
  options.lines.features = features;
  options.lines.first_index = LetorOptions::FirstIndex::one;
  options.lines.comments = true;
  return options;
}

}  // namespace

TEST_CASE("blocks of lists are the set that reading at once gives", "[letor][letor_stream]") {
  const TemporaryFolder folder;
  std::mt19937 random(3);
  const std::string first = "\xEF\xBB\xBF# a comment\n\n" + random_lines(random, 0, 60);
  // The second file goes on with the first one's last list; the third lacks its last line's end.
  std::string second = "1 qid:q59 5:1\n" + random_lines(random, 60, 3) + "# end\n\n";
  std::string third = random_lines(random, 63, 40);
  while (third.back() == '\n' || third.back() == '\r') third.pop_back();
  const std::vector<fs::path> files = {folder.write("1.txt", first), folder.write("2.txt", second),
                                       folder.write("3.txt", third)};
  int64_t blocks = 0;
  for (const int64_t bytes : {1, 50, 333, 2000, 20'000, 1 << 24}) {
    CAPTURE(bytes);
    const LetorStreamOptions options = options_of(5, bytes);
    const Streamed pieces = stream(files, options);
    compare(pieces, read_letor(files, options.lines));
    if (bytes == 1) CHECK(pieces.blocks == 103);  // a list each
    if (blocks > 0) CHECK(pieces.blocks <= blocks);
    blocks = pieces.blocks;
  }
  CHECK(blocks == 1);
}

TEST_CASE("blocks stay small whatever the file's size and width", "[letor][letor_stream]") {
  const TemporaryFolder folder;
  std::string text;
  for (int q = 0; q < 20'000; ++q)
    for (int d = 0; d < 10; ++d) text += "0 qid:" + std::to_string(q) + " 1:1 2:0.25\n";
  const auto file = folder.write("large.txt", text);  // more than one read
  REQUIRE(text.size() > (3 << 20));
  const Streamed narrow = stream({file}, options_of(2, 1 << 16));
  CHECK(narrow.lengths.size() == 20'000);
  CHECK(narrow.largest_block <= (1 << 16) / 8 + 10);
  // Lines are short, but rows are 400 bytes.
  const Streamed wide = stream({file}, options_of(100, 1 << 19));
  CHECK(wide.lengths.size() == 20'000);
  CHECK(wide.largest_block <= (1 << 19) / 400 + 10);
  LetorStreamOptions limited = options_of(2, 8);
  limited.lines.largest_bytes = 9 * 8;
  CHECK_THAT(stream({file}, limited).error, Contains("would take more than the limit"));
}

TEST_CASE("errors of a stream are those of reading at once", "[letor][letor_stream]") {
  const TemporaryFolder folder;
  const std::string good = "0 qid:1 1:1\n1 qid:1 5:2\n2 qid:2 2:1\n";
  const std::pair<const char*, const char*> cases[] = {
      {"1 1:2 2:3\n", ":5:3: expected qid:ID, found \"1:2\""},
      {"1\n", ":5:2: expected qid:ID, found nothing"},
      {"x 1:2\n", ":5:1: expected a label"},
      {"1 qid: 1:2\n", ":5:3: expected a query id behind qid:"},
      {"-1 qid:3 1:2\n", ":5:1: expected a label from 0"},
      {"1 qid:3 2:1 2:1\n", ":5:13: expected a feature index larger than 2"},
      {"1 qid:3 6:1\n", ":5:9: expected a feature index of at most 5"},
      {"1 qid:3 0:1\n", ":5:9: expected a feature index from 1"},
      {"1 qid:3 1:0.5.1\n", ":5:11: expected a value, a number, found \"0.5.1\""},
      {"1 qid:3 1:nan\n", ":5:11: expected a value; missing says"},
      {"1 qid:3 1:1e300\n", ":5:11: expected a value within f32"},
      {"1 qid:3 qid:4\n", ":5:9: expected index:value"},
      {"1 qid:1 1:1\n", ":5: query 1 is here again; its other lines begin at "},
  };
  for (const auto& [line, expected] : cases)
    for (const int64_t bytes : {1, 1 << 20}) {
      CAPTURE(line, bytes);
      const auto file = folder.write("bad.txt", good + "\n" + line + good);
      const LetorStreamOptions options = options_of(5, bytes);
      const Streamed pieces = stream({file}, options);
      CHECK_THAT(pieces.error, Contains("bad.txt" + std::string(expected)));
      const std::string whole = whole_error({file}, options.lines);
      CHECK(whole.starts_with(pieces.error));
      // What came before is handed out, where the block is not the same.
      if (bytes == 1) CHECK(pieces.lengths == std::vector<int64_t>{2, 1});
    }
  const auto empty = folder.write("empty.txt", "\n# nothing\n"),
             fine = folder.write("good.txt", good);
  CHECK_THAT(stream({empty}, options_of(5, 1)).error, Contains("empty.txt has no documents"));
  CHECK_THAT(stream({fine, empty}, options_of(5, 1)).error, Contains("empty.txt has no documents"));
  CHECK_THAT(stream({folder / "none"}, options_of(5, 1)).error, Contains("cannot open"));
  CHECK_THAT(stream({folder.path()}, options_of(5, 1)).error, Contains("it is a folder"));
  CHECK_THAT(stream({}, options_of(5, 1)).error, Contains("no file of ranked lists"));
  CHECK_THAT(stream({fine}, options_of(0, 1)).error, Contains("give their number"));
  LetorStreamOptions grouped = options_of(5, 1);
  grouped.lines.group_by_qid = true;
  CHECK_THAT(stream({fine}, grouped).error, Contains("piece by piece"));
  // A group file beside the lines does not turn lines without ids into lists.
  folder.write("plain.txt.query", "2\n");
  const auto plain = folder.write("plain.txt", "1 1:1\n0 1:2\n");
  CHECK_THAT(stream({plain}, options_of(5, 1)).error, Contains("plain.txt:1:3: expected qid:ID"));
}

TEST_CASE("damaged lines are read, or refused, as when all are read at once",
          "[letor][letor_stream]") {
  const TemporaryFolder folder;
  std::mt19937 random(11);
  const std::string good = random_lines(random, 8, 5);
  const std::string bytes("\0 \t\r\n#:qid19.-+xe\xEF", 18);
  int refused = 0;
  for (int trial = 0; trial < 400; ++trial) {
    std::string text = good;
    for (int change = trial % 3; change >= 0; --change) {
      const size_t at = random() % text.size();
      const char byte = bytes[random() % bytes.size()];
      if (random() % 3 == 0)
        text.erase(at, 1);
      else if (random() % 2 == 0)
        text.insert(at, 1, byte);
      else
        text[at] = byte;
    }
    const std::vector<fs::path> file = {folder.write("damaged.txt", text)};
    const LetorStreamOptions options = options_of(5, trial % 2 == 0 ? 1 : 1000);
    const Streamed pieces = stream(file, options);
    const std::string whole = whole_error(file, options.lines);
    CAPTURE(text, pieces.error, whole);
    if (whole.empty()) {
      compare(pieces, read_letor(file, options.lines));
      continue;
    }
    ++refused;
    // A query in two places is found in the order of the lines, not after them all.
    if (pieces.error.find("is here again") == std::string::npos) CHECK(pieces.error == whole);
  }
  CHECK(refused > 50);
  CHECK(refused < 350);
}

TEST_CASE("a query in two places is refused while its id is remembered", "[letor][letor_stream]") {
  const TemporaryFolder folder;
  for (const int between : {1, 4, 5, 9}) {
    std::string text = "0 qid:a 1:1\n";
    for (int q = 0; q < between; ++q) text += "0 qid:" + std::to_string(q) + " 1:1\n";
    text += "0 qid:a 1:1\n";
    LetorStreamOptions options = options_of(1, 20);
    options.remembered = 4;
    const Streamed pieces = stream({folder.write("apart.txt", text)}, options);
    CAPTURE(between);
    if (between <= 4)
      CHECK_THAT(pieces.error, Contains("apart.txt:" + std::to_string(between + 2) +
                                        ": query a is here again; its other lines begin at ") &&
                                   Contains("apart.txt:1."));
    else
      CHECK(pieces.lengths == std::vector<int64_t>(static_cast<size_t>(between) + 2, 1));
  }
}

TEST_CASE("the first block says which number the first feature has", "[letor][letor_stream]") {
  const TemporaryFolder folder;
  LetorStreamOptions options = options_of(3, 1);
  options.lines.first_index = LetorOptions::FirstIndex::detect;
  const auto zero = folder.write("zero.txt", "0 qid:1 0:7\n0 qid:2 1:8\n");
  CHECK(stream({zero}, options).features == std::vector<float>{7, 0, 0, 0, 8, 0});
  LetorStream seen({zero}, options);
  while (seen.next()) {
  }
  CHECK(seen.features_seen() == 2);
  const auto late = folder.write("late.txt", "0 qid:1 1:7\n0 qid:2 0:8\n");
  CHECK_THAT(stream({late}, options).error,
             Contains("late.txt:2:9: expected a feature index from 1"));
}
