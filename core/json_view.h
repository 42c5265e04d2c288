// INTERNAL. Checked access to JSON from outside: every error names the place and what was expected
// there. For .cpp files only, because nlohmann's headers are heavy.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <binade/core/error.h>
#include <binade/core/text.h>
#include <nlohmann/json.hpp>

namespace binade {

// A value and where it stands, for example `tokenizer.json: pre_tokenizer.pretokenizers[1]`.
class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string where)
      : value_(&value), where_(std::move(where)) {}

  const nlohmann::json& raw() const { return *value_; }
  const std::string& where() const { return where_; }
  size_t size() const { return value_->size(); }

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(where_, where_.ends_with(": ") ? "" : ": ", parts...);
  }

  // Whether there is a member of this name that is not null.
  bool has(std::string_view key) const {
    if (!value_->is_object()) expected("an object");
    const auto member = value_->find(key);
    return member != value_->end() && !member->is_null();
  }
  JsonView operator[](const char* key) const {
    if (!has(key)) refuse("\"", key, "\" is missing");
    return {(*value_)[key], concat(where_, where_.ends_with(": ") ? "" : ".", key)};
  }
  JsonView operator[](size_t index) const {
    if (!value_->is_array()) expected("an array");
    if (index >= value_->size()) refuse("element ", index, " is missing");
    return {(*value_)[index], concat(where_, '[', index, ']')};
  }

  const std::string& text() const {
    if (!value_->is_string()) expected("a string");
    return value_->get_ref<const std::string&>();
  }
  bool flag() const {
    if (!value_->is_boolean()) expected("true or false");
    return value_->get<bool>();
  }
  int64_t integer(int64_t least, int64_t most) const;
  double number() const {
    if (!value_->is_number()) expected("a number");
    return value_->get<double>();
  }
  std::string text_or(const char* key, std::string_view otherwise) const {
    return has(key) ? (*this)[key].text() : std::string(otherwise);
  }
  bool flag_or(const char* key, bool otherwise) const {
    return has(key) ? (*this)[key].flag() : otherwise;
  }
  void expect_array() const {
    if (!value_->is_array()) expected("an array");
  }
  void expect_object() const {
    if (!value_->is_object()) expected("an object");
  }

 private:
  [[noreturn]] void expected(std::string_view what) const {
    refuse("expected ", what, ", found ", value_->type_name());
  }

  const nlohmann::json* value_;
  std::string where_;
};

// Whether a name may stand twice in one object; then the last one counts.
enum class RepeatedNames : uint8_t { allowed, refused };

// Parses JSON. Whatever comes from outside goes through here, as the parser alone takes what stands
// before a NUL for the whole. Throws Error that names `name`: for text that is no JSON, with line
// and column, and for what check_json_text() refuses. For json and ordered_json; their parser is
// compiled once, as each source that has its own takes three seconds longer.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, std::string_view name,
                RepeatedNames repeated = RepeatedNames::allowed);
// The same for text that may be something else: null where parse_json() throws.
template <class Json = nlohmann::json>
Json parse_json_or_null(std::string_view text);

extern template nlohmann::json parse_json(std::string_view, std::string_view, RepeatedNames);
extern template nlohmann::ordered_json parse_json(std::string_view, std::string_view,
                                                  RepeatedNames);
extern template nlohmann::json parse_json_or_null(std::string_view);
extern template nlohmann::ordered_json parse_json_or_null(std::string_view);

}  // namespace binade
