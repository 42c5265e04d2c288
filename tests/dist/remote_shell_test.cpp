#include <binade/dist/remote_shell.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <memory>
#include <string>

namespace binade::dist {
namespace {

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string text;
  std::array<char, 256> part{};
  while (const size_t count = std::fread(part.data(), 1, part.size(), pipe.get()))
    text.append(part.data(), count);
  return text;
}

TEST_CASE("dist: a shell gets every word as it is", "[dist]") {
  for (const std::string word : {"", "plain", "two words", "it's", "'", "''", "$HOME `id` \\ \"x\"",
                                 "line\nline\n", "*", "~", "-n", "a;b&&c|d>e", "\xc3\xa9\x01"}) {
    CAPTURE(word);
    CHECK(output_of("printf %s " + quoted(word)) == word);
    CHECK(output_of(shell_command("/", {{"BINADE_WORD", word}},
                                  {"sh", "-c", "printf %s \"$BINADE_WORD|$1|$PWD\"", "sh",
                                   word})) == word + '|' + word + "|/");
  }
}

TEST_CASE("dist: a host knows itself", "[dist]") {
  CHECK(is_this_host("localhost"));
  CHECK(is_this_host("127.0.0.1"));
  CHECK(is_this_host(host_name()));
  CHECK(!is_this_host("192.0.2.1"));  // for documents alone (RFC 5737)
  CHECK(!is_this_host("somebody@localhost"));
  CHECK(address_towards("127.0.0.1") == "127.0.0.1");
  CHECK(address_towards("somebody@localhost") == "127.0.0.1");
  CHECK(address_towards("no.such.host.invalid") == host_name());
}

}  // namespace
}  // namespace binade::dist
