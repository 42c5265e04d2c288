#include <binade/train/named.h>

#include <catch2/catch.hpp>

using namespace binade;
using Catch::Matchers::Contains;
using train::Named;

TEST_CASE("named values keep their order and are found by name", "[train][named]") {
  Named<double> values = {{"b", 2}, {"a", 1}};
  values.add("c", 3);
  CHECK(values.size() == 3);
  CHECK(!values.empty());
  CHECK(values.names() == "b, a, c");
  CHECK(values.at("a") == 1);
  values.at("a") = 5;
  CHECK(std::as_const(values).at("a") == 5);
  CHECK(values.contains("c"));
  CHECK(!values.contains("d"));
  std::string order;
  for (const auto& [name, value] : values) order += name + std::to_string(static_cast<int>(value));
  CHECK(order == "b2a5c3");
}

TEST_CASE("a name that is not there is refused with the names that are", "[train][named]") {
  const Named<int> values = {{"inputs", 1}, {"targets", 2}};
  CHECK_THROWS_WITH(values.at("labels"), Contains("'labels'") && Contains("inputs, targets"));
  CHECK_THROWS_WITH(Named<int>().at("x"), Contains("there are: none"));
}

TEST_CASE("a name twice is refused", "[train][named]") {
  Named<int> values = {{"a", 1}};
  CHECK_THROWS_WITH(values.add("a", 2), Contains("two values named 'a'"));
  CHECK(values.at("a") == 1);
  CHECK_THROWS_WITH((Named<int>{{"x", 1}, {"x", 2}}), Contains("'x'"));
}

TEST_CASE("the same names in another order are the same names", "[train][named]") {
  const Named<int> values = {{"a", 1}, {"b", 2}};
  CHECK(values.has_names_of(Named<double>{{"b", 0}, {"a", 0}}));
  CHECK(!values.has_names_of(Named<double>{{"a", 0}}));
  CHECK(!values.has_names_of(Named<double>{{"a", 0}, {"c", 0}}));
  CHECK(!values.has_names_of(Named<double>{{"a", 0}, {"b", 0}, {"c", 0}}));
}
