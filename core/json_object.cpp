#include <binade/core/json_object.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <binade/core/error.h>
#include <nlohmann/json.hpp>

namespace binade {

namespace {

using Json = nlohmann::json;

// The text of a value under `name`; Error for what JSON cannot say.
std::string json_of(std::string_view name, const Json& value) {
  try {
    return value.dump();
  } catch (const Json::type_error&) {
    fail("the JSON value '", name, "' is no UTF-8 text");
  }
}

Json number(std::string_view name, double value) {
  check(std::isfinite(value), "the JSON value '", name, "' is ", value,
        ", for which JSON has no number");
  return value;
}

template <class T, class Convert>
std::string list_of(std::string_view name, const std::vector<T>& values, const Convert& convert) {
  std::string text;
  for (const T& value : values) text += (text.empty() ? "" : ", ") + json_of(name, convert(value));
  return '[' + text + ']';
}

}  // namespace

JsonObject& JsonObject::add(std::string_view name, double value) {
  return add_json(name, json_of(name, number(name, value)));
}

JsonObject& JsonObject::add(std::string_view name, std::string_view value) {
  return add_json(name, json_of(name, value));
}

JsonObject& JsonObject::add(std::string_view name, const JsonObject& value) {
  return add_json(name, value.text());
}

JsonObject& JsonObject::add(std::string_view name, const std::vector<int64_t>& values) {
  return add_json(name, list_of(name, values, [](int64_t value) { return Json(value); }));
}

JsonObject& JsonObject::add(std::string_view name, const std::vector<double>& values) {
  return add_json(name,
                  list_of(name, values, [name](double value) { return number(name, value); }));
}

JsonObject& JsonObject::add(std::string_view name, const std::vector<std::string>& values) {
  return add_json(name,
                  list_of(name, values, [](const std::string& value) { return Json(value); }));
}

JsonObject& JsonObject::add_integer(std::string_view name, int64_t value, bool not_negative) {
  check(value >= 0 || !not_negative, "the JSON value '", name,
        "' does not fit into 64 bits with a ", "sign");
  return add_json(name, std::to_string(value));
}

JsonObject& JsonObject::add_json(std::string_view name, std::string json) {
  check(std::find(names_.begin(), names_.end(), name) == names_.end(),
        "a JSON object has two members named '", name, "'");
  names_.emplace_back(name);
  members_.push_back(json_of("(a name)", name) + ": " + std::move(json));
  return *this;
}

std::string JsonObject::text() const {
  std::string text;
  for (const std::string& member : members_) text += (text.empty() ? "" : ", ") + member;
  return '{' + text + '}';
}

}  // namespace binade
