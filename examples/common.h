// What the programs share on the command line: long option names, --config FILE.json with the same
// names, errors as one line and exit status 2, unknown options with the nearest name.
#pragma once

#include <fmt/format.h>

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <binade/core/error.h>

// Parsed by CLI11, which only command_line.cpp includes: it takes longer to compile than any
// program here.
namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace binade::examples {

class JsonConfig;

// What a program writes to standard output.
enum class Output {
  product,    // what it is run for: a failed write is an error, a reader that goes away ends it
  narration,  // news of its work, which goes on when nobody reads it
};

// One option, and what it is held to.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  const Option& group(const std::string& heading) const;  // of --help
  const Option& describe(const std::string& help) const;
  const Option& required() const;
  const Option& needs(const Option& other) const;
  const Option& excludes(const Option& other) const;
  const Option& range(double least, double most) const;
  template <std::integral A, std::integral B>
  const Option& range(A least, B most) const {
    return integers(least, most);
  }
  const Option& at_least(int64_t least) const { return integers(least, int64_t{1} << 40); }
  // Of what is made or held at a time.
  const Option& count(int64_t least = 0) const { return integers(least, int64_t{1} << 30); }
  const Option& fraction() const { return range(0.0, 1.0); }
  const Option& rate() const { return range(0.0, 1e6); }
  const Option& one_of(std::vector<std::string> names) const;
  const Option& existing_file() const;

 private:
  const Option& integers(int64_t least, int64_t most) const;

  CLI::Option* option_;
};

// The options of a program. Defaults show in --help, and --config reads JSON.
class CommandLine {
 public:
  explicit CommandLine(const std::string& description = "");
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  ~CommandLine();

  // Of bool (without a value), int, int64_t, uint64_t, float, double, std::string, an optional
  // int64_t or double, or a vector of int64_t or std::string (several values). `value` holds the
  // default, and must outlive this.
  template <class T>
  Option add(const std::string& name, T& value, const std::string& help);
  Option option(const std::string& name) const;
  void remove(const std::string& name);
  void set_footer(const std::string& text);  // of --help

  // Parses into the variables of the options.
  void parse(std::vector<std::string> arguments);
  bool given(const std::string& name) const;
  // All options as the JSON that --config reads.
  std::string configuration() const;

  struct Facts {
    std::string name;  // without "--"
    std::string type;  // TEXT, INT, UINT or FLOAT, and what it is held to
    bool flag = false, list = false;
  };
  std::vector<Facts> options() const;
  CLI::App& cli() { return *app_; }

 private:
  std::unique_ptr<CLI::App> app_;
  std::shared_ptr<JsonConfig> config_;
};

// Adds options under the heading that `name` has at the time.
struct OptionGroup {
  CommandLine& command;
  std::string name;

  template <class T>
  Option add(const std::string& option, T& value, const std::string& help) const {
    return command.add(option, value, help).group(name);
  }
};

// The text as one line that a terminal shows as it is: control characters and bytes that are not
// UTF-8, which file names may have, appear as \n and \xNN.
std::string one_line(const std::string& text);

// Whether this process keeps its news to itself: of several ranks one speaks.
inline bool& silent() {
  static bool is_silent = false;
  return is_silent;
}

// News on standard output, at once; nobody may be reading it any more.
template <class... Args>
void say(fmt::format_string<Args...> text, Args&&... args) {
  if (silent()) return;
  std::fputs(fmt::format(text, std::forward<Args>(args)...).c_str(), stdout);
  std::fflush(stdout);
}

// Parses the command line, runs the program, and turns every failure into one line and exit
// status 2.
int run_program(CommandLine& command, const std::string& program,
                std::vector<std::string> arguments, const std::function<void()>& body,
                Output output = Output::product);
int run_program(CommandLine& command, int argc, char** argv, const std::function<void()>& body,
                Output output = Output::product);

}  // namespace binade::examples
