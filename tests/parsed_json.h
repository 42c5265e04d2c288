// JSON that a test reads, with the parser of nlohmann-json, which is compiled once for all tests.
#pragma once

#include <istream>
#include <string_view>

#include <nlohmann/json.hpp>

namespace binade::test {

// Each throws nlohmann::json::parse_error.
nlohmann::json parsed(std::string_view text);
nlohmann::json parsed(std::istream& text);
nlohmann::json parsed(std::istream&& text);
// With the members of objects in their order.
nlohmann::ordered_json parsed_in_order(std::string_view text);

}  // namespace binade::test
