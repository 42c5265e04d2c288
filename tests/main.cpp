// The test program. Besides what Catch2 does, it counts tests (not assertions), knows skipped ones,
// and fails a test during which the library logged a warning that nobody expected.
#define CATCH_CONFIG_RUNNER
#include <stdlib.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

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

}  // namespace
}  // namespace binade::test

int main(int argc, char* argv[]) {
  binade::test::watch_warnings();
  // What the library keeps between processes goes to a folder of this run's own.
  namespace fs = std::filesystem;
  const fs::path cache = fs::temp_directory_path() / ("binade-cache-" + std::to_string(getpid()));
  setenv("BINADE_CACHE", cache.c_str(), 1);
  const int status = Catch::Session().run(argc, argv);
  std::error_code ignored;
  fs::remove_all(cache, ignored);
  return status;
}
