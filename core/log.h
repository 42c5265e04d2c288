// Log lines of the library. They go to standard error through spdlog's logger "binade" (a program
// that registers a logger of that name decides where they go), or to a sink set here.
#pragma once

#include <functional>
#include <string_view>

#include <binade/core/error.h>

namespace binade {

enum class LogLevel { kInfo, kWarning };

// Receives every line in place of spdlog. Calls are serialised; a sink must not log itself.
using LogSink = std::function<void(LogLevel, std::string_view)>;

// Sets the sink and returns the one before; an empty sink stands for spdlog.
LogSink set_log_sink(LogSink sink);

// Writes one line, without a newline at its end; valid_utf8() is applied to it.
void write_log(LogLevel level, std::string_view text);

// Joins the parts as concat() does and logs them.
template <class... Parts>
void log_info(const Parts&... parts) {
  write_log(LogLevel::kInfo, concat(parts...));
}

// For what the user should know and can act on: say what happened and what to do.
template <class... Parts>
void log_warning(const Parts&... parts) {
  write_log(LogLevel::kWarning, concat(parts...));
}

}  // namespace binade
