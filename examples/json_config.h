// --config FILE.json: options by their long names, {"option": value, …}, each as the type that it
// was declared with. A list gives an option several values.
#pragma once

#include <CLI/CLI.hpp>
#include <iterator>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <binade/core/error.h>
#include <binade/core/json_view.h>
#include <binade/core/text.h>
#include <binade/core/utf8.h>

namespace binade::examples {

// The nearest option to one that does not exist, as "; did you mean --x?".
inline std::string nearest_option(const CLI::App& app, const std::string& unknown) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  const std::string word = unknown.rfind("--", 0) == 0 ? unknown : "--" + unknown;
  return did_you_mean(word.substr(0, word.find('=')), names);
}

// CLI11 takes a value "[a,b]" of an option with several values for a list. A value that is meant
// literally is marked until it is past that (prepare_values() takes the mark off again).
inline constexpr char kLiteral = '\x01';
inline std::string literal(std::string value) {
  const bool bracketed = value.size() >= 2 && value.front() == '[' && value.back() == ']';
  return bracketed ? kLiteral + value : value;
}
inline std::string without_mark(std::string value) {
  if (!value.empty() && value.front() == kLiteral) value.erase(0, 1);
  return value;
}

class JsonConfig : public CLI::Config {
 public:
  using Json = nlohmann::ordered_json;

  explicit JsonConfig(const CLI::App& app) : app_(app) {}

  // Of a flag, whose default CLI11 does not know.
  void is_on_by_default(const CLI::Option* flag) { on_.insert(flag); }

  // Throws Error for a value that is not UTF-8, which JSON cannot hold.
  std::string to_config(const CLI::App* app, bool, bool, std::string) const override {
    Json json = Json::object();
    for (const CLI::Option* option : app->get_options())
      if (is_saved(option)) json[option->get_lnames()[0]] = value_of(option);
    return json.dump(2);
  }

  // Throws Error for unknown names, names that stand twice and values of another type.
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items;
    const Json configuration = parse(input);
    for (const auto& [name, given] : configuration.items()) {
      const CLI::Option* option = app_.get_option_no_throw("--" + name);
      check(option != nullptr && is_known(option), "unknown option ", name, " in the configuration",
            resumes()
                ? concat(" of the run; go on with the version that began it, or begin another "
                         "run folder")
                : nearest_option(app_, name));
      // A default is not given: it must not stand against other options.
      if (given == default_of(option)) continue;
      CLI::ConfigItem item;
      item.name = name;
      if (given.is_array() && takes_list(option)) {
        if (given.empty()) continue;
        for (const Json& one : given) item.inputs.push_back(literal(text(option, one)));
      } else {
        item.inputs = {literal(text(option, given))};
      }
      items.push_back(std::move(item));
    }
    return items;
  }

 private:
  enum class Kind { flag, text, integer, count, number };

  static bool is_known(const CLI::Option* option) {
    const std::vector<std::string>& names = option->get_lnames();
    return !names.empty() && names[0] != "help" && names[0] != "config";
  }
  // --resume is of one start of a program, not of the run.
  static bool is_saved(const CLI::Option* option) {
    return is_known(option) && option->get_lnames()[0] != "resume";
  }
  // The configuration is then that of a run folder, which an older version may have written.
  bool resumes() const {
    const CLI::Option* resume = app_.get_option_no_throw("--resume");
    return resume != nullptr && resume->count() > 0;
  }
  static bool takes_list(const CLI::Option* option) { return option->get_expected_max() > 1; }

  // By the C++ type of the variable: CLI11's name for it is followed by those of the checks.
  static Kind kind_of(const CLI::Option* option) {
    if (option->get_expected_max() == 0) return Kind::flag;
    const std::string name = option->get_type_name();
    const std::string type = name.substr(0, name.find(':'));
    if (type == "INT") return Kind::integer;
    if (type == "UINT") return Kind::count;
    if (type == "FLOAT") return Kind::number;
    check(type == "TEXT", "--", option->get_lnames()[0], " has the type ", type,
          ", for which a configuration has no form");
    return Kind::text;
  }

  static Json to_json(const CLI::Option* option, const std::string& value) {
    const auto parsed = [&](auto number) -> Json {
      check(CLI::detail::lexical_cast(value, number), "--", option->get_lnames()[0], ": ", value,
            " is not a number");
      return number;
    };
    switch (kind_of(option)) {
      case Kind::integer:
        return parsed(int64_t{});
      case Kind::count:
        return parsed(uint64_t{});
      case Kind::number:
        return parsed(double{});
      default:
        check(utf8_valid_prefix(value) == value.size(), "--", option->get_lnames()[0], ": ", value,
              " is not UTF-8, so that no configuration can hold it; rename it");
        return value;
    }
  }

  Json value_of(const CLI::Option* option) const {
    if (option->count() == 0) return default_of(option);
    if (kind_of(option) == Kind::flag) return option->as<bool>();
    if (!takes_list(option)) return to_json(option, without_mark(option->results()[0]));
    Json list = Json::array();
    for (const std::string& one : option->results())
      list.push_back(to_json(option, without_mark(one)));
    return list;
  }

  Json default_of(const CLI::Option* option) const {
    if (kind_of(option) == Kind::flag) return on_.contains(option);
    const std::string shown = option->get_default_str();
    if (!takes_list(option)) return to_json(option, shown);
    Json list = Json::array();  // from CLI11's way to show one, "[a,b]"
    if (shown.size() < 2 || shown.front() != '[') return list;
    std::istringstream in(shown.substr(1, shown.size() - 2));
    for (std::string part; std::getline(in, part, ',');) list.push_back(to_json(option, part));
    return list;
  }

  // A value of the configuration in the form that the command line has it.
  static std::string text(const CLI::Option* option, const Json& json) {
    const auto want = [&](bool fits, const char* what) {
      check(fits, "the configuration gives --", option->get_lnames()[0], " the value ",
            json.dump().substr(0, 60), "; expected ", what);
    };
    switch (kind_of(option)) {
      case Kind::flag:
        want(json.is_boolean(), "true or false");
        break;
      case Kind::integer:
        want(json.is_number_integer(), "a whole number");
        break;
      case Kind::count:
        want(json.is_number_unsigned(), "a whole number from 0");
        break;
      case Kind::number:
        want(json.is_number(), "a number");
        break;
      case Kind::text:
        want(json.is_string(), takes_list(option) ? "a text or a list of texts" : "a text");
        return json.get<std::string>();
    }
    return json.dump();
  }

  static Json parse(std::istream& input) {
    const std::string text(std::istreambuf_iterator<char>(input), {});
    Json json = parse_json<Json>(text, "the configuration", RepeatedNames::refused);
    check(json.is_object(), "the configuration is not a JSON object");
    return json;
  }

  const CLI::App& app_;
  std::set<const CLI::Option*> on_;
};

}  // namespace binade::examples
