// What the programs share on the command line: long option names, --config FILE.json with the same
// names, errors as one line and exit status 2, unknown options with the nearest name.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <binade/core/error.h>
#include <binade/core/file.h>
#include <binade/core/text.h>

namespace binade::examples {

// Lets CLI11 read {"option": value, …}; a list gives an option several values.
class JsonConfig : public CLI::Config {
 public:
  std::string to_config(const CLI::App* app, bool, bool, std::string) const override {
    nlohmann::ordered_json json;
    for (const CLI::Option* option : app->get_options()) {
      const std::vector<std::string>& names = option->get_lnames();
      if (names.empty() || names[0] == "help" || names[0] == "config") continue;
      auto& entry = json[names[0]];
      const bool set = option->count() > 0;
      if (option->get_expected_max() == 0) {
        entry = set && option->as<bool>();
      } else if (option->get_expected_max() == 1) {
        entry = value(set ? option->results()[0] : option->get_default_str());
      } else {
        entry = nlohmann::ordered_json::array();
        for (const std::string& one : set ? option->results() : listed(option->get_default_str()))
          entry.push_back(value(one));
      }
    }
    return json.dump(2);
  }

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items;
    try {
      const std::string whole((std::istreambuf_iterator<char>(input)), {});
      check_json_text(whole, "the configuration");
      const auto json = nlohmann::ordered_json::parse(whole);
      check(json.is_object(), "the configuration is not a JSON object");
      for (const auto& [name, given] : json.items()) {
        CLI::ConfigItem item;
        item.name = name;
        // What to_config() writes for options that are not set.
        if (given.empty() || (given.is_string() && given.get<std::string>().empty())) continue;
        if (given.is_array()) {
          for (const auto& one : given) item.inputs.push_back(text(one));
        } else {
          item.inputs = {text(given)};
        }
        items.push_back(std::move(item));
      }
    } catch (const nlohmann::json::exception& error) {
      throw CLI::FileError(concat("the configuration is not valid JSON: ", error.what()));
    }
    return items;
  }

 private:
  static std::string text(const nlohmann::ordered_json& json) {
    return json.is_string() ? json.get<std::string>() : json.dump();
  }
  // The parts of CLI11's way to show a list, "[a,b]".
  static std::vector<std::string> listed(const std::string& text) {
    if (text.size() < 2 || text.front() != '[') return {};
    std::vector<std::string> parts;
    std::istringstream in(text.substr(1, text.size() - 2));
    for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
    return parts;
  }
  static nlohmann::ordered_json value(const std::string& text) {
    auto json = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    return json.is_discarded() || json.is_structured() ? nlohmann::ordered_json(text) : json;
  }
};

// Defaults show in --help, and --config reads JSON.
inline void prepare(CLI::App& app) {
  app.option_defaults()->always_capture_default();
  app.set_config("--config", "", "JSON file with options by their long names")
      ->expected(1)
      ->check(CLI::ExistingFile);
  app.config_formatter(std::make_shared<JsonConfig>());
  app.allow_config_extras(CLI::config_extras_mode::error);
}

// The nearest option to one that does not exist, as "; did you mean --x?".
inline std::string nearest_option(const CLI::App& app, const std::string& unknown) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  const std::string word = unknown.rfind("--", 0) == 0 ? unknown : "--" + unknown;
  return did_you_mean(word.substr(0, word.find('=')), names);
}

// Parses the command line, runs the program, and turns every failure into one line and exit
// status 2.
inline int run_program(CLI::App& app, std::vector<std::string> arguments,
                       const std::function<void()>& body) {
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(std::move(arguments));
    body();
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ConfigError& error) {
    const std::string text = error.what(), name = text.substr(text.rfind(' ') + 1);
    std::fprintf(stderr, "error: unknown option %s in the configuration%s\n", name.c_str(),
                 nearest_option(app, name).c_str());
  } catch (const CLI::ParseError& error) {
    // A misspelt required option is both unknown and missing; the former says more.
    const std::vector<std::string> unknown = app.remaining();
    if (unknown.empty())
      std::fprintf(stderr, "error: %s\n", error.what());
    else
      std::fprintf(stderr, "error: unknown option %s%s\n", unknown[0].c_str(),
                   nearest_option(app, unknown[0]).c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  }
  return 2;
}

inline int run_program(CLI::App& app, int argc, char** argv, const std::function<void()>& body) {
  app.name(argv[0]);
  return run_program(app, std::vector<std::string>(argv + 1, argv + argc), body);
}

}  // namespace binade::examples
