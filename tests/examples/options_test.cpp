// Options of the programs through the command line, a configuration file, and back.
#include <catch2/catch.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "examples/finetune_mtp/options.h"
#include "examples/train_gpt/options.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using examples::TrainGptOptions;
using Json = nlohmann::ordered_json;

namespace {

using Arguments = std::vector<std::string>;

// The saved configuration of these arguments.
std::string saved(const Arguments& arguments) {
  examples::CommandLine command;
  TrainGptOptions options;
  examples::add_options(command, options);
  command.parse(arguments);
  return command.configuration();
}

// What a program reads of this file.
std::string reread(const std::string& config) {
  const TemporaryFolder folder;
  return saved({"--config=" + folder.write("config.json", config).string()});
}

const std::vector<std::string> kNasty = {
    "1.10", "1.20", "1e3", "true", "false", "null",     "007",   "0x10", " a",    "a ", "-x",
    "--",   "[x]",  "[]",  "{x}",  "a,b",   "[a,b]",    "\"q\"", "'",    "a\nb",  "\\", "#",
    "%%",   "nan",  "-1",  "é",    "日本",  "\x7f\x1b", "inf",   "a=b",  "[[x]]", "\t"};

}  // namespace

TEST_CASE("the configuration keeps the type of every option", "[examples][options]") {
  const Json config = Json::parse(saved({}));
  const TrainGptOptions o;
  CHECK(config.at("text") == Json(o.text));
  CHECK(config.at("extensions") == Json::array());
  CHECK(config.at("save-hf") == "");
  CHECK(config.at("steps") == o.steps);
  CHECK(config.at("seed").is_number_unsigned());
  CHECK(config.at("eps") == o.eps);
  CHECK(config.at("learning-rate").is_number_float());
  CHECK(config.at("lora-alpha").is_number_float());
  CHECK(config.at("quiet") == false);
  CHECK(!config.contains("resume"));
  CHECK(!config.contains("config"));
  CHECK(Json::parse(reread(saved({}))) == config);
}

TEST_CASE("every option survives saving and reading, whatever its text looks like",
          "[examples][options]") {
  examples::CommandLine command;
  TrainGptOptions options;
  examples::add_options(command, options);
  int texts = 0, others = 0;
  for (const auto& [name, type, flag, list] : command.options()) {
    if (name == "help" || name == "config" || name == "resume") continue;
    INFO(name);
    if (flag) {
      ++others;
      const std::string once = saved({"--" + name});
      CHECK(Json::parse(once).at(name) == true);
      CHECK(reread(once) == once);
    } else if (type.rfind("TEXT", 0) != 0) {
      ++others;
      for (const char* number : {"1", "1e-3", "0x3", "0.3333333333333333", "1099511627775", "0.1",
                                 "18446744073709551615", "07"}) {
        std::string once;
        try {
          once = saved({"--" + name, number});
        } catch (const std::exception&) {
          continue;  // outside the option's range
        }
        INFO(number);
        CHECK(Json::parse(once).at(name).is_number());
        CHECK(reread(once) == once);
      }
    } else if (type == "TEXT") {  // any text
      ++texts;
      for (const std::string& text : kNasty) {
        INFO('"' << text << '"');
        const std::string once = saved({"--" + name + "=" + text});
        CHECK(Json::parse(once).at(name) == (list ? Json(Arguments{text}) : Json(text)));
        CHECK(reread(once) == once);
      }
      if (!list) {
        const std::string once = saved({"--" + name, ""});
        CHECK(Json::parse(once).at(name) == "");
        CHECK(reread(once) == once);
      } else {
        Arguments all = {"--" + name};
        for (const std::string& text : kNasty)
          if (text[0] != '-') all.push_back(text);
        const std::string once = saved(all);
        CHECK(Json::parse(once).at(name) == Json(Arguments(all.begin() + 1, all.end())));
        CHECK(reread(once) == once);
      }
    }
  }
  CHECK(texts >= 10);
  CHECK(others >= 30);
}

TEST_CASE("a flag that is on by default can be turned off for good", "[examples][options]") {
  const auto configuration = [](const Arguments& arguments) {
    examples::CommandLine command;
    examples::FinetuneMtpOptions options;
    examples::add_options(command, options);
    command.parse(arguments);
    const Json config = Json::parse(command.configuration());
    CHECK(config.at("pack") == options.pack);
    return command.configuration();
  };
  const Arguments needed = {"--model", "m", "--chats", "c.json"};
  const auto with = [&](const std::string& argument) {
    Arguments all = needed;
    if (!argument.empty()) all.push_back(argument);
    return all;
  };
  const TemporaryFolder folder;
  for (const char* flag : {"", "--pack", "--no-pack"}) {
    INFO(flag);
    const std::string once = configuration(with(flag));
    CHECK(Json::parse(once).at("pack") == (std::string(flag) != "--no-pack"));
    const std::string file = folder.write("config.json", once).string();
    CHECK(configuration({"--config=" + file}) == once);
  }
  const std::string off = folder.write("config.json", configuration(with("--no-pack"))).string();
  CHECK(Json::parse(configuration({"--config=" + off, "--pack"})).at("pack") == true);
}

TEST_CASE("a text that is not UTF-8 is refused by the option's name", "[examples][options]") {
  CHECK_THROWS_WITH(saved({"--run-dir", "caf\xe9"}),
                    Contains("--run-dir") && Contains("not UTF-8"));
  CHECK_THROWS_WITH(saved({"--text", "a", "caf\xe9"}), Contains("--text"));
}

TEST_CASE("a configuration with unknown names, names twice or other types is refused",
          "[examples][options]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"learning-rat": 1})", "did you mean --learning-rate"},
      {R"({"help": true})", "unknown option help"},
      {R"({"config": "a"})", "unknown option config"},
      {R"({"": 1})", "unknown option"},
      {R"({"--": 1})", "unknown option"},
      {R"({"++": 1})", "unknown option"},
      {R"({"steps": 1, "dim": 2, "steps": 3})", "names \"steps\" twice"},
      {R"({"steps": "4"})", "--steps the value \"4\"; expected a whole number"},
      {R"({"steps": 1.5})", "expected a whole number"},
      {R"({"steps": true})", "expected a whole number"},
      {R"({"steps": [4]})", "expected a whole number"},
      {R"({"steps": null})", "expected a whole number"},
      {R"({"seed": -1})", "expected a whole number from 0"},
      {R"({"learning-rate": "0.1"})", "expected a number"},
      {R"({"learning-rate": {}})", "expected a number"},
      {R"({"quiet": "true"})", "expected true or false"},
      {R"({"quiet": 1})", "expected true or false"},
      {R"({"save-hf": 1.2})", "expected a text"},
      {R"({"save-hf": ["a"]})", "expected a text"},
      {R"({"text": [1.1]})", "expected a text or a list of texts"},
      {R"({"text": [["a"]]})", "expected a text or a list of texts"},
      {R"([1])", "not a JSON object"},
      {"", "not valid JSON"},
      {"{\"text\": \"\xff\"}", "not valid JSON"},
      {std::string(200, '['), "levels deep"}};
  for (const auto& [config, expected] : cases) {
    INFO(config);
    CHECK_THROWS_WITH(reread(config), Contains(expected));
  }
}

TEST_CASE("numbers that are none are refused on the command line", "[examples][options]") {
  for (const char* value : {"nan", "inf", "-inf", "1e999"})
    for (const char* name : {"--learning-rate", "--clip", "--init-scale", "--eps"}) {
      INFO(name << ' ' << value);
      CHECK_THROWS(saved({name, value}));
    }
  for (const char* value : {"99999999999999999999", "-1", "1.5", ""}) {
    INFO(value);
    CHECK_THROWS(saved({"--steps", value}));
    CHECK_THROWS(saved({"--seed", value}));
  }
}

TEST_CASE("an error is one line, whatever names are in it", "[examples][options]") {
  CHECK(examples::one_line("a\nb\x1b[31m caf\xe9 é\x7f") == "a\\nb\\x1b[31m caf\\xe9 é\\x7f");
}
