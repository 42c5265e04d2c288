// The test program. Besides what Catch2 does, it counts tests (not assertions), knows skipped ones,
// and fails a test during which the library logged a warning that nobody expected. `--shard 1/2`
// runs every second test of those chosen, `--shard 2/2` the others, so two processes can share the
// work.
#define CATCH_CONFIG_RUNNER
#include <stdlib.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <charconv>
#include <filesystem>
#include <string>
#include <vector>

#include <binade/core/error.h>

#include "results.h"
#include "warnings.h"

namespace binade::test {
namespace {

class Listener : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo& info) override {
    TestEventListenerBase::testCaseStarting(info);
    Results::get().test_started();
  }

  bool assertionEnded(const Catch::AssertionStats& stats) override {
    const Catch::AssertionResult& result = stats.assertionResult;
    if (!result.isOk()) {
      std::string text = result.getSourceInfo().file;
      text += ':' + std::to_string(result.getSourceInfo().line) + ": " + result.getExpression();
      if (result.hasExpandedExpression()) text += ", with " + result.getExpandedExpression();
      if (result.hasMessage()) text += ": " + std::string(result.getMessage());
      for (const Catch::MessageInfo& info : stats.infoMessages) text += "; " + info.message;
      Results::get().note_failure(text);
    }
    return TestEventListenerBase::assertionEnded(stats);
  }

  // The last moment at which a failure still belongs to the running test.
  void sectionEnded(const Catch::SectionStats& stats) override {
    for (const std::string& warning : take_unexpected_warnings())
      FAIL_CHECK("unexpected warning: " << warning);
    TestEventListenerBase::sectionEnded(stats);
  }

  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    const bool failed = stats.totals.testCases.failed > 0;
    Results::get().test_ended(stats.testInfo.name, failed, stats.totals.assertions.total() > 0);
    TestEventListenerBase::testCaseEnded(stats);
  }

  // Comes after a crash, too.
  void testRunEnded(const Catch::TestRunStats& stats) override {
    TestEventListenerBase::testRunEnded(stats);
    Results::get().print();
  }
};

CATCH_REGISTER_LISTENER(Listener)

// Which part of the tests to run: the `index`th of `count`, from 1.
struct Shard {
  size_t index = 1, count = 1;

  // "2/3"; says why where that is none.
  Catch::clara::ParserResult read(const std::string& text) {
    const char* end = text.data() + text.size();
    const auto [slash, no_index] = std::from_chars(text.data(), end, index);
    const auto [rest, no_count] = slash == end
                                      ? std::from_chars_result{end, std::errc::invalid_argument}
                                      : std::from_chars(slash + 1, end, count);
    if (no_index != std::errc() || no_count != std::errc() || *slash != '/' || rest != end ||
        index < 1 || index > count)
      return Catch::clara::ParserResult::runtimeError("--shard wants I/N, for example 1/2, got " +
                                                      text);
    return Catch::clara::ParserResult::ok(Catch::clara::ParseResultType::Matched);
  }

  // How many of the chosen tests are in this part; the session then runs only those.
  size_t apply(Catch::Session& session) const {
    const std::vector<Catch::TestCase> all = chosen(session);
    Catch::ConfigData part = session.configData();
    part.testsOrTags.clear();
    size_t tests = 0;
    for (size_t i = index - 1; i < all.size(); i += count, ++tests) {
      if (tests > 0) part.testsOrTags.emplace_back(",");
      part.testsOrTags.push_back(quoted(all[i].name));
    }
    session.useConfigData(part);
    binade::check(tests == 0 || chosen(session).size() == tests,
                  "Catch2 does not find the tests of a shard by their names");
    return tests;
  }

 private:
  static std::vector<Catch::TestCase> chosen(Catch::Session& session) {
    const Catch::Config& config = session.config();
    return filterTests(Catch::getAllTestCasesSorted(config), config.testSpec(), config);
  }

  // As Catch2 reads a name on its command line.
  static std::string quoted(const std::string& name) {
    std::string text = "\"";
    for (const char c : name) {
      if (c == ',' || c == '"' || c == '\\') text += '\\';
      text += c;
    }
    return text + '"';
  }
};

}  // namespace
}  // namespace binade::test

int main(int argc, char* argv[]) {
  binade::test::watch_warnings();
  // What the library keeps between processes goes to a folder of this run's own.
  namespace fs = std::filesystem;
  const fs::path cache = fs::temp_directory_path() / ("binade-cache-" + std::to_string(getpid()));
  setenv("BINADE_CACHE", cache.c_str(), 1);
  Catch::Session session;
  binade::test::Shard shard;
  session.cli(session.cli() |
              Catch::clara::Opt([&shard](const std::string& text) { return shard.read(text); },
                                "I/N")["--shard"]("run only the Ith of N parts of the tests"));
  int status = session.applyCommandLine(argc, argv);
  if (status == 0 && (shard.count == 1 || shard.apply(session) > 0)) status = session.run();
  std::error_code ignored;
  fs::remove_all(cache, ignored);
  return status;
}
