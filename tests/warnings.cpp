#include "warnings.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include <binade/core/log.h>

namespace binade::test {
namespace {

// Warnings may come from any thread, so the lists below are guarded.
std::mutex mutex;
std::vector<std::string> unexpected;
std::vector<ExpectWarning*> expectations;

}  // namespace

ExpectWarning::ExpectWarning(std::string text) : text_(std::move(text)) {
  const std::lock_guard lock(mutex);
  expectations.push_back(this);
}

ExpectWarning::~ExpectWarning() {
  {
    const std::lock_guard lock(mutex);
    std::erase(expectations, this);
  }
  // A test that is failing already need not be told so twice.
  if (seen_ == 0 && std::uncaught_exceptions() == 0)
    FAIL_CHECK("the warning \"" << text_ << "\" was expected and did not come");
}

bool ExpectWarning::accept(const std::string& warning) {
  bool accepted = false;
  for (ExpectWarning* expectation : expectations) {
    if (warning.find(expectation->text_) == std::string::npos) continue;
    ++expectation->seen_;
    accepted = true;
  }
  return accepted;
}

void watch_warnings() {
  set_log_sink([](LogLevel level, std::string_view message) {
    if (level != LogLevel::kWarning) return;
    const std::lock_guard lock(mutex);
    std::string warning(message);
    if (!ExpectWarning::accept(warning)) unexpected.push_back(std::move(warning));
  });
}

std::vector<std::string> take_unexpected_warnings() {
  const std::lock_guard lock(mutex);
  return std::exchange(unexpected, {});
}

}  // namespace binade::test
