#include <binade/core/error.h>
#include <binade/data/ranking_cache.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <string>

#include "core/unprivileged.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

const std::string kLines = "2 qid:a 1:0.5 2:7 # docid = x\n0 qid:a 1:1\n1 qid:b 2:1e8 # y\n";
const std::string kApart = "2 qid:a 1:0.5 2:7\n0 qid:b 1:1\n1 qid:a 2:4\n";

std::string content_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void check_same(const RankingSet& a, const RankingSet& b) {
  CHECK(a.offsets.to_vector<int64_t>() == b.offsets.to_vector<int64_t>());
  CHECK(a.features.to_vector<float>() == b.features.to_vector<float>());
  CHECK(a.labels.to_vector<float>() == b.labels.to_vector<float>());
  CHECK(a.first_index == b.first_index);
  REQUIRE(a.query_ids.size() == b.query_ids.size());
  for (int64_t i = 0; i < a.query_ids.size(); ++i) CHECK(a.query_ids[i] == b.query_ids[i]);
  REQUIRE(a.comments.size() == b.comments.size());
  for (int64_t i = 0; i < a.comments.size(); ++i) CHECK(a.comments[i] == b.comments[i]);
  REQUIRE(a.file_rows.defined() == b.file_rows.defined());
  if (a.file_rows.defined())
    CHECK(a.file_rows.to_vector<int64_t>() == b.file_rows.to_vector<int64_t>());
  // All but the last note, which tells of the cache.
  REQUIRE(b.notes.size() == a.notes.size() + 1);
  for (size_t i = 0; i < a.notes.size(); ++i) CHECK(a.notes[i] == b.notes[i]);
}

}  // namespace

TEST_CASE("a cache gives back what was parsed", "[data][letor]") {
  const TemporaryFolder folder;
  const auto lines = folder.write("lines.txt", kLines);
  for (const bool comments : {true, false}) {
    const LetorOptions options = {.comments = comments};
    const RankingSet plain = read_letor({lines}, options);
    const RankingSet first = read_letor_cached({lines}, options);
    check_same(plain, first);
    CHECK_THAT(first.notes.back(), Contains("kept for later in lines.txt."));
    for (const auto verify : {RankingCache::Verify::quick, RankingCache::Verify::everything}) {
      const RankingSet second = read_letor_cached({lines}, options, {.verify = verify});
      check_same(plain, second);
      CHECK_THAT(second.notes.back(), Contains("parsed before, from lines.txt."));
    }
  }
  const auto apart = folder.write("apart.txt", kApart);
  for (int time = 0; time < 2; ++time)
    check_same(read_letor({apart}, {.group_by_qid = true}),
               read_letor_cached({apart}, {.group_by_qid = true}));
  // One of its own for each set of options and files.
  int64_t caches = 0;
  for (const auto& entry : fs::directory_iterator(folder.path()))
    caches += entry.path().extension() == ".ranking" ? 1 : 0;
  CHECK(caches == 3);
}

TEST_CASE("a cache of something else is written anew", "[data][letor]") {
  const TemporaryFolder folder;
  const auto lines = folder.write("lines.txt", kLines);
  const RankingCache cache = {.file = folder / "cache"};
  const auto note = [&](const LetorOptions& options = {}) {
    return read_letor_cached({lines}, options, cache).notes.back();
  };
  CHECK_THAT(note(), Contains("kept for later"));
  CHECK_THAT(note(), Contains("parsed before"));
  SECTION("other options") {
    for (const LetorOptions& options :
         {LetorOptions{.first_index = LetorOptions::FirstIndex::zero}, LetorOptions{.features = 3},
          LetorOptions{.group_by_qid = true}, LetorOptions{.comments = true},
          LetorOptions{.missing = LetorOptions::Missing::zero},
          LetorOptions{.out_of_range = LetorOptions::OutOfRange::clamp},
          LetorOptions{.largest_label = 4}}) {
      CHECK_THAT(note(options), Contains("of other content or options"));
      CHECK_THAT(note(options), Contains("parsed before"));
    }
  }
  SECTION("a file that was touched") {
    fs::last_write_time(lines, fs::last_write_time(lines) + std::chrono::seconds(1));
    CHECK_THAT(note(), Contains("of other content or options"));
  }
  SECTION("a file of the same size and time") {
    const auto time = fs::last_write_time(lines);
    std::string other = kLines;
    other[0] = '1';
    folder.write("lines.txt", other);
    fs::last_write_time(lines, time);
    const RankingSet set = read_letor_cached({lines}, {}, cache);
    CHECK(set.label_span()[0] == 1);
    CHECK_THAT(set.notes.back(), Contains("of other content or options"));
  }
  SECTION("a file that grew") {
    std::ofstream(lines, std::ios::app) << "0 qid:c 1:4\n";
    CHECK(read_letor_cached({lines}, {}, cache).documents() == 4);
  }
  SECTION("a group file that came") {
    const auto bare = folder.write("bare.txt", "1 1:2\n0 1:3\n");
    folder.write("bare.txt.query", "2\n");
    CHECK(read_letor_cached({bare}).queries() == 1);
    folder.write("bare.txt.query", "1\n1");
    CHECK(read_letor_cached({bare}).queries() == 2);
  }
  SECTION("further threads are no other option") {
    CHECK_THAT(note({.threads = 1}), Contains("parsed before"));
  }
}

TEST_CASE("a damaged cache is noticed wherever the damage is", "[data][letor]") {
  const TemporaryFolder folder;
  const auto lines = folder.write("lines.txt", kLines);
  const RankingCache cache = {.file = folder / "cache"};
  const RankingSet plain = read_letor({lines}, {.comments = true});
  read_letor_cached({lines}, {.comments = true}, cache);
  const std::string whole = content_of(cache.file);
  int64_t trusted = 0;
  for (size_t at = 0; at < whole.size(); at += 11) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    folder.write("cache", damaged);
    const RankingSet set = read_letor_cached({lines}, {.comments = true}, cache);
    const bool same = set.features.to_vector<float>() == plain.features.to_vector<float>() &&
                      set.labels.to_vector<float>() == plain.labels.to_vector<float>() &&
                      set.offsets.to_vector<int64_t>() == plain.offsets.to_vector<int64_t>() &&
                      set.query_ids[0] == "a" && set.query_ids[1] == "b" &&
                      set.comments[0] == "docid = x" && set.first_index == plain.first_index;
    if (!same) {
      CAPTURE(at);
      CHECK(same);
    }
    trusted += set.notes.back().find("parsed before") != std::string::npos ? 1 : 0;
  }
  CHECK(trusted == 0);
  for (const size_t length : {size_t{0}, size_t{7}, whole.size() / 2, whole.size() - 1}) {
    folder.write("cache", whole.substr(0, length));
    CHECK_THAT(read_letor_cached({lines}, {.comments = true}, cache).notes.back(),
               Contains("as the one there was damaged"));
  }
}

TEST_CASE("where no cache can be written, the lists are read all the same", "[data][letor]") {
  const TemporaryFolder folder;
  const auto lines = folder.write("lines.txt", kLines);
  using fs::perms;
  const perms reading = perms::owner_read | perms::owner_exec | perms::group_read |
                        perms::group_exec | perms::others_read | perms::others_exec;
  fs::permissions(folder.path(), reading);
  fs::permissions(lines, reading);
  {
    const test::Unprivileged user;
    CHECK_THAT(read_letor_cached({lines}).notes.back(),
               Contains("not kept for later: cannot write"));
    CHECK_THROWS_WITH(read_letor_cached({lines}, {}, {.file = folder / "cache"}),
                      Contains("cannot write"));
  }
  fs::permissions(folder.path(), perms::owner_all);
}
