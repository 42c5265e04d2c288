// What the programs share on the command line: long option names, --config FILE.json with the same
// names, errors as one line and exit status 2, unknown options with the nearest name.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>
#include <binade/train/signals.h>

#include "json_config.h"

namespace binade::examples {

// What a program writes to standard output.
enum class Output {
  product,    // what it is run for: a failed write is an error, a reader that goes away ends it
  narration,  // news of its work, which goes on when nobody reads it
};

// Adds options under the heading that `name` has at the time.
struct OptionGroup {
  CLI::App& app;
  std::string name;

  template <class T>
  CLI::Option* add(const char* option, T& value, const char* help) const {
    return app.add_option(option, value, help)->group(name);
  }
  CLI::Option* flag(const char* option, bool& value, const char* help) const {
    return app.add_flag(option, value, help)->group(name);
  }
};
// What options hold numbers to.
inline CLI::Range at_least(int64_t least) {
  return {least, int64_t{1} << 40};
}
inline CLI::Range fraction() {
  return {0.0, 1.0};
}
inline CLI::Range rate() {
  return {0.0, 1e6};
}

// Defaults show in --help, and --config reads JSON.
inline void prepare(CLI::App& app) {
  app.option_defaults()->always_capture_default();
  app.set_config("--config", "", "JSON file with options by their long names")
      ->expected(1)
      ->check(CLI::ExistingFile);
  app.config_formatter(std::make_shared<JsonConfig>(app));
  app.allow_config_extras(CLI::config_extras_mode::error);
}

// Throws Error for what CLI11 takes as a number of the option's type but has to bend: NaN and
// infinity, -1 as a count, whole numbers beyond 64 bits.
inline void check_number(const CLI::Option& option, const std::string& value) {
  const std::string type = option.get_type_name();
  const auto expect = [&](bool fits, const char* what) {
    check(fits, option.get_name(), " ", value, ": expected ", what);
  };
  errno = 0;
  if (type.starts_with("FLOAT")) expect(std::isfinite(option.as<double>()), "a finite number");
  if (type.starts_with("INT"))
    expect((std::strtoll(value.c_str(), nullptr, 0), errno != ERANGE), "a number of 64 bits");
  if (type.starts_with("UINT"))
    expect((std::strtoull(value.c_str(), nullptr, 0), errno != ERANGE) &&
               value.find('-') == std::string::npos,
           "a whole number from 0, of 64 bits");
}

// Parses the command line into the variables of the options.
inline void parse(CLI::App& app, std::vector<std::string> arguments) {
  for (CLI::Option* option : app.get_options())
    if (option->get_expected_max() > 0)
      option->transform(CLI::Validator(
          [](std::string& value) {
            value = without_mark(std::move(value));
            return std::string();
          },
          ""));
  for (std::string& argument : arguments) {
    const size_t value = argument.starts_with("--") ? argument.find('=') + 1 : 0;
    argument = argument.substr(0, value) + literal(argument.substr(value));
  }
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  app.parse(std::move(arguments));
  for (const CLI::Option* option : app.get_options())
    if (option->count() > 0 && option->get_expected_max() > 0)
      for (const std::string& value : option->results()) check_number(*option, value);
}

// The text as one line that a terminal shows as it is: control characters and bytes that are not
// UTF-8, which file names may have, appear as \n and \xNN.
inline std::string one_line(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(std::string_view(text).substr(at));
    const bool control =
        step.code_point < 0x20 || (step.code_point >= 0x7f && step.code_point < 0xa0);
    if (text[at] == '\n') {
      out += "\\n";
    } else if (step.valid && !control) {
      out += text.substr(at, static_cast<size_t>(step.length));
    } else {
      for (int i = 0; i < step.length; ++i)
        out +=
            fmt::format("\\x{:02x}", static_cast<unsigned char>(text[at + static_cast<size_t>(i)]));
    }
    at += static_cast<size_t>(step.length);
  }
  return out;
}

// News on standard output, at once; nobody may be reading it any more.
template <class... Args>
void say(fmt::format_string<Args...> text, Args&&... args) {
  std::fputs(fmt::format(text, std::forward<Args>(args)...).c_str(), stdout);
  std::fflush(stdout);
}

// A closed standard stream would leave its number to the next file that is opened, and what is
// printed would end up in there. Writing to its stand-in fails as it should.
inline void fill_standard_streams() {
  for (int stream = 0; stream <= 2; ++stream)
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF) [[maybe_unused]]
      const int stand_in = ::open("/dev/null", O_RDONLY);
}

// Parses the command line, runs the program, and turns every failure into one line and exit
// status 2.
inline int run_program(CLI::App& app, const std::string& program,
                       std::vector<std::string> arguments, const std::function<void()>& body,
                       Output output = Output::product) {
  fill_standard_streams();
  std::signal(SIGXFSZ, SIG_IGN);  // at the limit of file sizes, writes fail with a reason
  std::optional<train::FailingWrites> writes;
  if (output == Output::narration) writes.emplace();
  const auto complain = [](const std::string& problem) {
    std::fprintf(stderr, "error: %s\n", one_line(problem).c_str());
    return 2;
  };
  try {
    app.name(std::filesystem::path(program).filename().string());
    parse(app, std::move(arguments));
    body();
    if (output == Output::product) {
      const int reason = std::fflush(stdout) == 0 ? 0 : errno;
      check(reason == 0 && std::ferror(stdout) == 0, "cannot write to standard output",
            reason == 0 ? "" : concat(": ", std::strerror(reason)));
    }
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    // A misspelt required option is both unknown and missing; the former says more.
    const std::vector<std::string> unknown = app.remaining();
    if (unknown.empty()) return complain(error.what());
    return complain("unknown option " + unknown[0] + nearest_option(app, unknown[0]));
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}

inline int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& body,
                       Output output = Output::product) {
  return run_program(app, argv[0], std::vector<std::string>(argv + 1, argv + argc), body, output);
}

}  // namespace binade::examples
