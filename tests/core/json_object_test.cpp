#include <binade/core/json_object.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include <binade/core/error.h>

using namespace binade;
using Catch::Matchers::Contains;
using Json = nlohmann::ordered_json;

TEST_CASE("a JSON object reads back as what was added", "[json_object]") {
  const double tenth = 0.1, tiny = std::numeric_limits<double>::denorm_min();
  const std::string text = JsonObject()
                               .add("steps", 1000)
                               .add("least", std::numeric_limits<int64_t>::min())
                               .add("size", size_t{7})
                               .add("deterministic", true)
                               .add("rate", tenth)
                               .add("tiny", tiny)
                               .add("whole", 2.0)
                               .add("name \"x\"\n", "caf\xc3\xa9 \\ \t")
                               .add("hidden", std::vector<int64_t>{256, -64})
                               .add("betas", std::vector<double>{0.9, 1e-300})
                               .add("files", std::vector<std::string>{"a", "b\"c"})
                               .add("nothing", std::vector<double>{})
                               .add("inner", JsonObject().add("a", 1).add("b", JsonObject()))
                               .text();
  const Json json = Json::parse(text);
  CHECK(json.at("steps") == 1000);
  CHECK(json.at("least").get<int64_t>() == std::numeric_limits<int64_t>::min());
  CHECK(json.at("size") == 7);
  CHECK(json.at("deterministic") == true);
  CHECK(json.at("rate").get<double>() == tenth);
  CHECK(json.at("tiny").get<double>() == tiny);
  CHECK(json.at("whole").is_number_float());
  CHECK(json.at("name \"x\"\n") == "caf\xc3\xa9 \\ \t");
  CHECK(json.at("hidden") == Json({256, -64}));
  CHECK(json.at("betas")[1].get<double>() == 1e-300);
  CHECK(json.at("files") == Json({"a", "b\"c"}));
  CHECK(json.at("nothing") == Json::array());
  CHECK(json.at("inner").dump() == R"({"a":1,"b":{}})");
  CHECK(json.begin().key() == "steps");  // in the order of adding
  CHECK(std::prev(json.end()).key() == "inner");
  CHECK(JsonObject().text() == "{}");
}

TEST_CASE("a JSON object refuses what JSON cannot say", "[json_object][errors]") {
  CHECK_THROWS_WITH(JsonObject().add("rate", NAN), Contains("'rate'"));
  CHECK_THROWS_WITH(JsonObject().add("rates", std::vector<double>{1, INFINITY}),
                    Contains("'rates'"));
  CHECK_THROWS_WITH(JsonObject().add("name", "\xff"), Contains("'name'") && Contains("UTF-8"));
  CHECK_THROWS_WITH(JsonObject().add("names", std::vector<std::string>{"\xc3"}),
                    Contains("'names'"));
  CHECK_THROWS_WITH(JsonObject().add("\xff", 1), Contains("UTF-8"));
  CHECK_THROWS_WITH(JsonObject().add("a", 1).add("a", 2), Contains("'a'"));
  CHECK_THROWS_WITH(JsonObject().add("seed", std::numeric_limits<uint64_t>::max()),
                    Contains("'seed'") && Contains("64 bits"));
}
