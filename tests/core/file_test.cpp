#include <binade/core/file.h>

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <unistd.h>

#include <catch2/catch.hpp>

#include <binade/core/error.h>

#include "core/unprivileged.h"
#include "temporary_folder.h"

using namespace binade;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

void put(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), {}));
}

// While it lives, no file can grow beyond so many bytes: what a full disk looks like to write().
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_DFL)) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before_) == 0);
    const rlimit tight{bytes, before_.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("a file is read whole, as text and as a mapping", "[file]") {
  const test::TemporaryFolder folder;
  const std::string text("two\nlines and a \0 byte", 22);
  put(folder / "file", text);
  CHECK(read_text_file(folder / "file") == text);
  std::shared_ptr<void> owner;
  std::span<const std::byte> bytes;
  {
    const MappedFile mapped(folder / "file");
    bytes = mapped.bytes();
    owner = mapped.owner();
  }
  fs::remove(folder / "file");  // the mapping stays
  CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == text);
}

TEST_CASE("an empty file is read as nothing", "[file]") {
  const test::TemporaryFolder folder;
  put(folder / "empty", "");
  CHECK(read_text_file(folder / "empty").empty());
  CHECK(MappedFile(folder / "empty").bytes().empty());
}

TEST_CASE("file: missing", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  const auto message = Contains("missing: No such file");
  CHECK_THROWS_WITH(read_text_file(folder / "missing"), message);
  CHECK_THROWS_WITH(MappedFile(folder / "missing"), message);
}

TEST_CASE("file: a folder", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(read_text_file(folder.path()), Contains("it is a folder"));
  CHECK_THROWS_WITH(MappedFile(folder.path()), Contains("it is a folder"));
}

TEST_CASE("file: a name that goes on behind a NUL is refused", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  write_text_file(folder / "file", "text");
  const std::string name = (folder / "file").string() + std::string("\0 and more", 10);
  CHECK_THROWS_WITH(read_text_file(name), Contains("file: its name goes on behind a NUL"));
  CHECK_THROWS_WITH(MappedFile(name), Contains("behind a NUL"));
  CHECK_THROWS_WITH(write_text_file(name, "other"), Contains("behind a NUL"));
  CHECK(read_text_file(folder / "file") == "text");
}

TEST_CASE("file: a named pipe is refused at once", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(read_text_file(folder / "pipe"), Contains("not a regular file"));
  CHECK_THROWS_WITH(MappedFile(folder / "pipe"), Contains("not a regular file"));
}

TEST_CASE("file: unreadable", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  fs::permissions(folder.path(), fs::perms::all);
  put(folder / "secret", "text");
  fs::permissions(folder / "secret", fs::perms::none);
  const test::Unprivileged user;
  const auto message = Contains("secret: Permission denied");
  CHECK_THROWS_WITH(read_text_file(folder / "secret"), message);
  CHECK_THROWS_WITH(MappedFile(folder / "secret"), message);
}

TEST_CASE("file: larger than the limit", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  put(folder / "file", "12345");
  CHECK(read_text_file(folder / "file", 5) == "12345");
  CHECK_THROWS_WITH(read_text_file(folder / "file", 4), Contains("5 bytes") && Contains("4"));
}

TEST_CASE("an atomic file appears whole at commit", "[file]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "file";
  put(path, "before");
  AtomicFile file(path);
  file.write("one ");
  file.write(std::string(100'000, 'x'));
  CHECK(content(path) == "before");
  file.commit();
  CHECK(content(path) == "one " + std::string(100'000, 'x'));
  CHECK(entries(folder.path()) == 1);
  CHECK_THROWS_AS(file.commit(), Error);
  CHECK_THROWS_AS(file.write("more"), Error);
  CHECK(content(path).size() == 100'004);
}

TEST_CASE("an atomic file that is not committed leaves nothing behind", "[file]") {
  const test::TemporaryFolder folder;
  put(folder / "old", "before");
  for (const char* name : {"old", "new"}) {
    AtomicFile file(folder / name);
    file.write("half");
  }
  CHECK(entries(folder.path()) == 1);
  CHECK(content(folder / "old") == "before");
}

TEST_CASE("a file in the current folder has no folder in its name", "[file]") {
  const test::TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  write_text_file("here", "text");
  fs::current_path(before);
  CHECK(content(folder / "here") == "text");
}

TEST_CASE("file: a write that the disk refuses keeps the old file", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "file";
  put(path, "before");
  {
    const FileSizeLimit limit(64 << 10);
    CHECK_THROWS_WITH(write_text_file(path, std::string(1 << 20, 'x')),
                      Contains("cannot write") && Contains(path.string()));
    // Refused in the middle of a large write, or at the first byte of a later one.
    AtomicFile file(path);
    file.write(std::string(64 << 10, 'x'));
    CHECK_THROWS_AS(file.write("y"), Error);
  }
  CHECK(content(path) == "before");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("file: written where there is no folder", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  CHECK_THROWS_WITH(write_text_file(folder / "none" / "file", "x"),
                    Contains("none/file") && Contains("No such file"));
}

TEST_CASE("file: written in place of a folder", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  create_folder(folder / "inner");
  CHECK_THROWS_WITH(write_text_file(folder / "inner", "x"), Contains("it is a folder"));
  CHECK(entries(folder.path()) == 1);
  CHECK(fs::is_directory(folder / "inner"));
}

TEST_CASE("file: written in place of something else", "[file][bad-input]") {
  // As a device would, it stays what it is: a rename would put a file in its place.
  const test::TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0644) == 0);
  fs::create_symlink(folder / "pipe", folder / "link");
  for (const char* name : {"pipe", "link"}) {
    CHECK_THROWS_WITH(AtomicFile(folder / name), Contains("it is not a regular file"));
    CHECK_THROWS_WITH(write_text_file(folder / name, "text"), Contains("cannot write"));
  }
  CHECK(fs::is_fifo(folder / "pipe"));
  CHECK(entries(folder.path()) == 2);
  put(folder / "file", "before");
  fs::create_symlink(folder / "file", folder / "other");
  write_text_file(folder / "other", "after");
  CHECK(content(folder / "other") == "after");
}

TEST_CASE("file: written into a folder of somebody else's", "[file][bad-input]") {
  const test::TemporaryFolder folder;
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec |
                                     fs::perms::others_read | fs::perms::others_exec);
  {
    const test::Unprivileged user;
    CHECK_THROWS_WITH(write_text_file(folder / "file", "x"), Contains("Permission denied"));
  }
  fs::permissions(folder.path(), fs::perms::owner_all);
}

TEST_CASE("folders are made with those above them", "[file]") {
  const test::TemporaryFolder folder;
  create_folder(folder / "a" / "b");
  create_folder(folder / "a" / "b");
  CHECK(fs::is_directory(folder / "a" / "b"));
  put(folder / "file", "");
  CHECK_THROWS_WITH(create_folder(folder / "file" / "b"), Contains("file/b"));
}

TEST_CASE("CRC-32C has its check value and continues", "[file]") {
  const std::string digits = "123456789";
  CHECK(crc32c(digits.data(), digits.size()) == 0xe3069283u);
  CHECK(crc32c(nullptr, 0) == 0);
  // RFC 3720 B.4: 32 bytes of zeros, of ones, counting up.
  std::vector<uint8_t> bytes(32, 0);
  CHECK(crc32c(bytes.data(), 32) == 0x8a9136aau);
  bytes.assign(32, 0xff);
  CHECK(crc32c(bytes.data(), 32) == 0x62a8ab43u);
  for (uint8_t i = 0; i < 32; ++i) bytes[i] = i;
  CHECK(crc32c(bytes.data(), 32) == 0x46dd794eu);

  std::string text(1000, 'a');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i);
  const uint32_t whole = crc32c(text.data(), text.size());
  for (const size_t cut : {1u, 7u, 8u, 500u, 999u})
    CHECK(crc32c(text.data() + cut, text.size() - cut, crc32c(text.data(), cut)) == whole);
}
