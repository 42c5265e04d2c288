// INTERNAL. Typed access to a JSON object from a file; every error names the file and the key. For
// .cpp files only: nlohmann/json stays out of public headers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <binade/core/json_view.h>
#include <nlohmann/json.hpp>

namespace binade::nn {

class JsonReader {
 public:
  // Throws Error for JSON errors (with their position) and for anything but an object.
  static JsonReader parse(std::string_view text, const std::string& source) {
    JsonReader reader(std::make_shared<const nlohmann::json>(parse_json(text, source)), source);
    if (!reader.object().is_object()) reader.refuse("not a JSON object");
    return reader;
  }

  const nlohmann::json& object() const { return *object_; }
  const nlohmann::json& operator[](const char* key) const { return (*object_)[key]; }
  // Whether the key is there with a value other than null.
  bool has(const char* key) const { return view_.has(key); }

  template <class T>
  std::optional<T> find(const char* key) const {
    if (!has(key)) return std::nullopt;
    return convert<T>((*this)[key], key);
  }
  template <class T>
  T get(const char* key, T otherwise) const {
    return find<T>(key).value_or(otherwise);
  }
  template <class T>
  T require(const char* key) const {
    const std::optional<T> value = find<T>(key);
    if (!value) refuse("'", key, "' is missing");
    return *value;
  }
  // The object under a key, if it is there.
  std::optional<JsonReader> child(const char* key) const {
    if (!has(key)) return std::nullopt;
    if (!(*this)[key].is_object()) refuse("'", key, "' must be an object");
    return JsonReader({object_, &(*this)[key]}, view_.where());
  }
  // None, one or a list of values.
  template <class T>
  std::vector<T> list(const char* key) const {
    std::vector<T> values;
    if (!has(key)) return values;
    const nlohmann::json& value = (*this)[key];
    if (!value.is_array()) return {convert<T>(value, key)};
    for (const nlohmann::json& element : value) values.push_back(convert<T>(element, key));
    return values;
  }
  // Throws unless the value, where the key is there, is `only`.
  template <class T>
  void supports_only(const char* key, const T& only) const {
    if (has(key) && convert<T>((*this)[key], key) != only)
      refuse("'", key, "': ", (*this)[key].dump(), " is not supported, only ",
             nlohmann::json(only).dump());
  }
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    view_.refuse(parts...);
  }

 private:
  JsonReader(std::shared_ptr<const nlohmann::json> object, std::string source)
      : object_(std::move(object)), view_(*object_, std::move(source)) {}

  template <class T>
  T convert(const nlohmann::json& value, const char* key) const {
    const bool fits = std::is_same_v<T, bool>          ? value.is_boolean()
                      : std::is_same_v<T, std::string> ? value.is_string()
                      : std::is_same_v<T, int64_t>     ? value.is_number_integer()
                                                       : value.is_number();
    const bool too_large = std::is_same_v<T, int64_t> && value.is_number_unsigned() &&
                           value.get<uint64_t>() > uint64_t{INT64_MAX};
    if (too_large) refuse("'", key, "' is ", value.dump(), ", which no size or id can be");
    if (!fits) refuse("'", key, "' has the value ", value.dump(), ", which is of the wrong type");
    return value.get<T>();
  }

  std::shared_ptr<const nlohmann::json> object_;
  JsonView view_;
};

}  // namespace binade::nn
