#include "parsed_json.h"

namespace binade::test {

nlohmann::json parsed(std::string_view text) {
  return nlohmann::json::parse(text);
}

nlohmann::json parsed(std::istream& text) {
  return nlohmann::json::parse(text);
}

nlohmann::json parsed(std::istream&& text) {
  return parsed(text);
}

nlohmann::ordered_json parsed_in_order(std::string_view text) {
  return nlohmann::ordered_json::parse(text);
}

}  // namespace binade::test
