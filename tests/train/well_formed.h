// Whether a text is XML, as far as a chart goes: every tag is closed in order.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace binade::test {

inline void check_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at + 1)) {
    const size_t end = xml.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string tag = xml.substr(at + 1, end - at - 1);
    REQUIRE(tag.find('<') == std::string::npos);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    CHECK(std::count(tag.begin(), tag.end(), '\'') % 2 == 0);
    if (tag[0] == '/') {
      REQUIRE(!open.empty());
      CHECK(tag.substr(1) == open.back());
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
  }
  CHECK(open.empty());
  for (size_t at = xml.find('&'); at != std::string::npos; at = xml.find('&', at + 1)) {
    const std::string entity = xml.substr(at, xml.find(';', at) - at + 1);
    CHECK((entity == "&amp;" || entity == "&lt;" || entity == "&gt;"));
  }
  CHECK(xml.find("nan") == std::string::npos);
  CHECK(xml.find("inf") == std::string::npos);
}

}  // namespace binade::test
