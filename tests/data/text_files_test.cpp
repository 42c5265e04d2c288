#include "temporary_folder.h"

#include <binade/core/error.h>
#include <binade/data/byte_tokenizer.h>
#include <binade/data/text_files.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

std::vector<std::string> names(const std::vector<fs::path>& files, const fs::path& folder) {
  std::vector<std::string> out;
  for (const fs::path& file : files) out.push_back(fs::relative(file, folder).generic_string());
  return out;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("files are listed in sorted order", "[data][text_files]") {
  const TemporaryFolder folder;
  for (const char* name : {"b.txt", "a/z.txt", "a/y.md", "a.txt", "c/d/e.txt", "c/none"}) {
    folder.write(name, name);
  }
  CHECK(names(list_text_files({folder.path()}, {{".txt"}}), folder.path()) ==
        Strings{"a.txt", "a/z.txt", "b.txt", "c/d/e.txt"});
  CHECK(names(list_text_files({folder.path()}, {{".md", ".txt"}}), folder.path()).size() == 5);
  CHECK(list_text_files({folder.path()}).size() == 6);
  // What is named itself needs no ending; what is named twice counts once.
  CHECK(names(list_text_files({folder.path() / "c/none", folder.path() / "c"}), folder.path()) ==
        Strings{"c/d/e.txt", "c/none"});
}

TEST_CASE("an ending may have several dots", "[data][text_files]") {
  const TemporaryFolder folder;
  for (const char* name : {"index.d.ts", "index.ts", "a.d.ts/inner.txt", ".d.ts", "README"})
    folder.write(name, name);
  CHECK(names(list_text_files({folder.path()}, {{".d.ts"}}), folder.path()) ==
        Strings{"index.d.ts"});
  CHECK(names(list_text_files({folder.path()}, {{".ts"}}), folder.path()) ==
        Strings{".d.ts", "index.d.ts", "index.ts"});
  CHECK_THROWS_WITH(list_text_files({folder.path()}, {{"README"}}), Contains("no text files"));
}

TEST_CASE("a limit takes the files that still fit", "[data][text_files]") {
  const TemporaryFolder folder;
  folder.write("a", std::string(100, 'a'));  // too large by itself: those after it still count
  folder.write("b", std::string(30, 'b'));
  folder.write("c", std::string(30, 'c'));
  folder.write("d", std::string(10, 'd'));
  const auto within = [&](int64_t limit) {
    return names(list_text_files({folder.path()}, {.limit = limit}), folder.path());
  };
  CHECK(within(170) == Strings{"a", "b", "c", "d"});
  CHECK(within(169) == Strings{"a", "b", "c"});
  CHECK(within(60) == Strings{"b", "c"});
  CHECK(within(45) == Strings{"b", "d"});
  CHECK(within(10) == Strings{"d"});
  CHECK_THROWS_WITH(within(9), Contains("beyond the limit of 9 bytes") &&
                                   Contains((folder.path() / "d").string()) &&
                                   Contains("raise the limit"));
  // A file that is named itself does not count.
  CHECK(names(list_text_files({folder.path() / "a", folder.path()}, {.limit = 45}),
              folder.path()) == Strings{"a", "b", "d"});
}

TEST_CASE("links are followed once", "[data][text_files]") {
  const TemporaryFolder folder;
  folder.write("a/one.txt", "1");
  folder.write("b/two.txt", "2");
  fs::create_directory_symlink(folder.path(), folder.path() / "a/loop");
  fs::create_directory_symlink("../b", folder.path() / "a/to_b");
  fs::create_symlink("one.txt", folder.path() / "a/same.txt");
  CHECK(names(list_text_files({folder.path()}, {{".txt"}}), folder.path()) ==
        Strings{"a/one.txt", "b/two.txt"});
}

TEST_CASE("what cannot be read is named", "[data][text_files][bad_input]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(list_text_files({folder.path() / "absent"}),
                    Contains("absent") && Contains("No such file"));
  CHECK_THROWS_WITH(list_text_files({folder.path()}, {{".txt"}}),
                    Contains(folder.path().string()) && Contains("that end in .txt"));
  CHECK_THROWS_WITH(list_text_files({}), Contains("no text files"));
  folder.write("good.txt", "x");
  fs::create_symlink("nowhere.md", folder.path() / "broken.md");
  CHECK(list_text_files({folder.path()}, {{".txt"}}).size() == 1);  // does not concern it
  CHECK_THROWS_WITH(list_text_files({folder.path()}, {{".txt", ".md"}}), Contains("broken.md"));
  fs::remove(folder.path() / "broken.md");
  fs::create_symlink("self.md", folder.path() / "self.md");
  CHECK_THROWS_WITH(list_text_files({folder.path()}, {{".md"}}),
                    Contains("self.md") && Contains("symbolic links"));
  const fs::path pipe = folder.path() / "pipe.txt";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(list_text_files({folder.path()}, {{".txt"}}).size() ==
        1);  // a folder's pipe is passed over
  CHECK_THROWS_WITH(list_text_files({pipe}), Contains("neither a file nor a folder"));
  CHECK_THROWS_WITH(read_text(folder.path()), Contains(folder.path().string()));
  if (::geteuid() != 0) {  // root may read everything
    const fs::path secret = folder.write("secret.txt", "x");
    fs::permissions(secret, fs::perms::none);
    CHECK_THROWS_WITH(read_text(secret), Contains("Permission denied"));
  }
}

TEST_CASE("documents are encoded in order, whatever the threads", "[data][text_files]") {
  const TemporaryFolder folder;
  std::vector<int32_t> expected;
  for (int i = 0; i < 150; ++i) {
    std::string text(static_cast<size_t>(i * 7 % 50), static_cast<char>('a' + i % 26));
    text += "\xFF<|endoftext|>";
    char name[16];
    std::snprintf(name, sizeof name, "%03d.txt", i);
    folder.write(name, text);
    for (const char c : text) expected.push_back(static_cast<unsigned char>(c));
    expected.push_back(256);
  }
  const auto files = list_text_files({folder.path()});
  const ByteTokenizer tokenizer;
  for (const int threads : {1, 4}) {
    EncodeProgress last;
    int calls = 0;
    const auto tokens =
        encode_files(tokenizer, files, {.threads = threads, .progress = [&](auto& p) {
                                          last = p;
                                          ++calls;
                                        }});
    CHECK(tokens == expected);
    CHECK(calls == 150);
    CHECK(last.files == 150);
    CHECK(last.files_in_all == 150);
    CHECK(last.tokens == static_cast<int64_t>(expected.size()));
    CHECK(last.bytes == static_cast<int64_t>(expected.size()) - 150);
  }
  const auto marked = encode_files(tokenizer, {files[0]}, {.begin_with_bos = true});
  CHECK(marked.front() == 256);
  CHECK(marked.size() == 1 + 14 + 1);
  CHECK_THROWS_WITH(encode_files(ByteTokenizer(false), {files[0]}, {.begin_with_bos = true}),
                    Contains("BOS"));
  CHECK(encode_files(ByteTokenizer(false), {files[0]}).size() == 14);
  // A file that vanished in between.
  fs::remove(files[77]);
  CHECK_THROWS_WITH(encode_files(tokenizer, files), Contains("077.txt"));
}
