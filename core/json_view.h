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
  int64_t integer(int64_t least, int64_t most) const {
    if (!value_->is_number_integer()) expected("an integer");
    const bool too_large =
        value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(most);
    const auto number = value_->get<int64_t>();
    if (too_large || number < least || number > most) {
      refuse(value_->dump(), " is not between ", least, " and ", most);
    }
    return number;
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

// Parses JSON; the error gives line and column.
inline nlohmann::json parse_json(std::string_view text, std::string_view name) {
  check_json_text(text, name);
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string_view what = error.what();
    fail(name, ": not valid JSON: ", what.substr(what.find("] ") + 2));
  }
}

}  // namespace binade
