#include <binade/core/log.h>

#include <memory>
#include <mutex>
#include <utility>

#include <binade/core/text.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace binade {
namespace {

std::mutex sink_mutex;

// Never destroyed: threads and static objects may log until the very end of the program.
LogSink& sink() {
  static auto* sink = new LogSink;
  return *sink;
}

std::shared_ptr<spdlog::logger> spdlog_logger() {
  auto logger = spdlog::get("binade");
  if (!logger) {
    logger = spdlog::stderr_color_mt("binade");
    logger->set_pattern("%^%l%$: %v");
  }
  return logger;
}

}  // namespace

LogSink set_log_sink(LogSink new_sink) {
  const std::lock_guard lock(sink_mutex);
  return std::exchange(sink(), std::move(new_sink));
}

void write_log(LogLevel level, std::string_view text) {
  const std::string message = valid_utf8(text);
  const std::lock_guard lock(sink_mutex);
  if (sink()) {
    sink()(level, message);
    return;
  }
  const auto spdlog_level = level == LogLevel::kWarning ? spdlog::level::warn : spdlog::level::info;
  spdlog_logger()->log(spdlog_level, spdlog::string_view_t(message.data(), message.size()));
}

}  // namespace binade
