// Renders templates for scripts/long/chat_templates.sh: a line of standard input is an array of a
// template and a JSON object of variables, a line of standard output the JSON string that came of
// it, or {"error": "…"}.
#include <binade/core/error.h>
#include <binade/data/jinja/evaluator.h>

#include <iostream>
#include <nlohmann/json.hpp>

int main() {
  using namespace binade::data;
  for (std::string line; std::getline(std::cin, line);) {
    nlohmann::json result;
    try {
      const auto request = nlohmann::ordered_json::parse(line);
      std::vector<std::pair<std::string, jinja::Value>> variables;
      for (const auto& [name, value] : request[1].items()) {
        variables.emplace_back(name, jinja::from_json(value.dump(), name));
      }
      const std::function<std::tm()> now = [] {
        const std::time_t seconds = 1753142400;  // 2025-07-22
        std::tm out{};
        gmtime_r(&seconds, &out);
        return out;
      };
      result = jinja::evaluate(jinja::parse(request[0].get<std::string>(), "template"), "template",
                               std::move(variables), now)
                   .text;
    } catch (const binade::Error& error) {
      result = {{"error", error.what()}};
    }
    std::cout << result.dump() << '\n';
  }
}
