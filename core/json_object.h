// JsonObject: writes a JSON object, a run's configuration for example.
//
//   const std::string config = JsonObject()
//                                  .add("steps", 1000)
//                                  .add("learning_rate", 1e-3)
//                                  .add("hidden", std::vector<int64_t>{256, 64})
//                                  .text();
//   folder.check_config(config, {"steps"});
//   folder.set_config(config);
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace binade {

class JsonObject {
 public:
  // Each throws Error, with the name, where a name comes twice, a text is no UTF-8, or a number is
  // not finite or beyond 64 bits with a sign: JSON has none of these.
  template <class T>
  requires std::integral<T> JsonObject& add(std::string_view name, T value) {
    if constexpr (std::same_as<T, bool>)
      return add_json(name, value ? "true" : "false");
    else
      return add_integer(name, static_cast<int64_t>(value), value >= 0);
  }
  // The shortest digits that read back as the same double.
  JsonObject& add(std::string_view name, double value);
  JsonObject& add(std::string_view name, std::string_view value);
  JsonObject& add(std::string_view name, const char* value) {
    return add(name, std::string_view(value));
  }
  JsonObject& add(std::string_view name, const JsonObject& value);
  JsonObject& add(std::string_view name, const std::vector<int64_t>& values);
  JsonObject& add(std::string_view name, const std::vector<double>& values);
  JsonObject& add(std::string_view name, const std::vector<std::string>& values);

  // {"steps": 1000, …}, with members in the order in which they were added.
  std::string text() const;

 private:
  JsonObject& add_integer(std::string_view name, int64_t value, bool not_negative);
  JsonObject& add_json(std::string_view name, std::string json);

  std::vector<std::string> names_;    // as they are
  std::vector<std::string> members_;  // "name": value
};

}  // namespace binade
