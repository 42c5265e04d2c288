#include <fcntl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>

#include <binade/core/file.h>
#include <binade/core/utf8.h>
#include <binade/train/signals.h>

#include "../common.h"
#include "../json_config.h"

namespace binade::examples {

const Option& Option::group(const std::string& heading) const {
  option_->group(heading);
  return *this;
}
const Option& Option::describe(const std::string& help) const {
  option_->description(help);
  return *this;
}
const Option& Option::required() const {
  option_->required();
  return *this;
}
const Option& Option::needs(const Option& other) const {
  option_->needs(other.option_);
  return *this;
}
const Option& Option::excludes(const Option& other) const {
  option_->excludes(other.option_);
  return *this;
}
const Option& Option::integers(int64_t least, int64_t most) const {
  option_->check(CLI::Range(least, most));
  return *this;
}
const Option& Option::range(double least, double most) const {
  option_->check(CLI::Range(least, most));
  return *this;
}
const Option& Option::one_of(std::vector<std::string> names) const {
  option_->check(CLI::IsMember(std::move(names)));
  return *this;
}
const Option& Option::existing_file() const {
  option_->check(CLI::ExistingFile);
  return *this;
}

CommandLine::CommandLine(const std::string& description)
    : app_(std::make_unique<CLI::App>(description)), config_(std::make_shared<JsonConfig>(*app_)) {
  app_->option_defaults()->always_capture_default();
  app_->set_config("--config", "", "JSON file with options by their long names")
      ->expected(1)
      ->check(CLI::ExistingFile);
  app_->config_formatter(config_);
  app_->allow_config_extras(CLI::config_extras_mode::error);
}
CommandLine::~CommandLine() = default;

template <class T>
Option CommandLine::add(const std::string& name, T& value, const std::string& help) {
  if constexpr (std::is_same_v<T, bool>) {
    CLI::Option* const flag = app_->add_flag(name, value, help);
    if (value) config_->is_on_by_default(flag);
    return Option(flag);
  } else {
    return Option(app_->add_option(name, value, help));
  }
}
#define BINADE_ADD(...) \
  template Option CommandLine::add(const std::string&, __VA_ARGS__&, const std::string&);
BINADE_ADD(bool)
BINADE_ADD(int)
BINADE_ADD(int64_t)
BINADE_ADD(uint64_t)
BINADE_ADD(float)
BINADE_ADD(double)
BINADE_ADD(std::optional<int64_t>)
BINADE_ADD(std::optional<double>)
BINADE_ADD(std::string)
BINADE_ADD(std::vector<int64_t>)
BINADE_ADD(std::vector<std::string>)
#undef BINADE_ADD

Option CommandLine::option(const std::string& name) const {
  return Option(app_->get_option(name));
}
void CommandLine::remove(const std::string& name) {
  app_->remove_option(app_->get_option(name));
}
void CommandLine::set_footer(const std::string& text) {
  app_->footer(text);
}
bool CommandLine::given(const std::string& name) const {
  return app_->count(name) > 0;
}
std::string CommandLine::configuration() const {
  return app_->config_to_str(true);
}

std::vector<CommandLine::Facts> CommandLine::options() const {
  std::vector<Facts> facts;
  for (const CLI::Option* option : std::as_const(*app_).get_options())
    facts.push_back({option->get_lnames().front(), option->get_type_name(),
                     option->get_expected_max() == 0, option->get_expected_max() > 1});
  return facts;
}

namespace {

// Throws Error for what CLI11 takes as a number of the option's type but has to bend: NaN and
// infinity, -1 as a count, whole numbers beyond 64 bits.
void check_number(const CLI::Option& option, const std::string& value) {
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

}  // namespace

void CommandLine::parse(std::vector<std::string> arguments) {
  for (CLI::Option* option : app_->get_options())
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
  app_->parse(std::move(arguments));
  for (const CLI::Option* option : app_->get_options())
    if (option->count() > 0 && option->get_expected_max() > 0)
      for (const std::string& value : option->results()) check_number(*option, value);
}

std::string one_line(const std::string& text) {
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

namespace {

// A closed standard stream would leave its number to the next file that is opened, and what is
// printed would end up in there. Writing to its stand-in fails as it should.
void fill_standard_streams() {
  for (int stream = 0; stream <= 2; ++stream)
    if (::fcntl(stream, F_GETFD) < 0 && errno == EBADF) [[maybe_unused]]
      const int stand_in = ::open("/dev/null", O_RDONLY);
}

}  // namespace

int run_program(CommandLine& command, const std::string& program,
                std::vector<std::string> arguments, const std::function<void()>& body,
                Output output) {
  CLI::App& app = command.cli();
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
    command.parse(std::move(arguments));
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
  } catch (const std::bad_alloc&) {
    return complain("out of memory; ask for less at a time");
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}

int run_program(CommandLine& command, int argc, char** argv, const std::function<void()>& body,
                Output output) {
  return run_program(command, argv[0], std::vector<std::string>(argv + 1, argv + argc), body,
                     output);
}

}  // namespace binade::examples
