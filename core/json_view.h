// INTERNAL. Checked access to JSON from outside: every error names the place and what was expected
// there. For .cpp files only, because nlohmann's headers are heavy.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

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

namespace detail {

// Looks for a name that stands twice in one object. (Parsing with a callback would find it, too,
// but takes quadratic time.)
class RepeatedName : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::optional<std::string>& found() const { return found_; }

  bool key(std::string& name) override {
    if (names_.back().insert(name).second) return true;
    found_ = name;
    return false;
  }
  bool start_object(size_t) override {
    names_.emplace_back();
    return true;
  }
  bool end_object() override {
    names_.pop_back();
    return true;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(nlohmann::json::binary_t&) override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  std::vector<std::unordered_set<std::string>> names_;
  std::optional<std::string> found_;
};

}  // namespace detail

// Parses JSON. Whatever comes from outside goes through here, as the parser alone takes what stands
// before a NUL for the whole. Throws Error that names `name`: for text that is no JSON, with line
// and column, and for what check_json_text() refuses.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, std::string_view name,
                RepeatedNames repeated = RepeatedNames::allowed) {
  check_json_text(text, name);
  if (repeated == RepeatedNames::refused) {
    detail::RepeatedName search;
    nlohmann::json::sax_parse(text, &search);
    if (search.found()) fail(name, " names \"", *search.found(), "\" twice");
  }
  try {
    return Json::parse(text);
  } catch (const typename Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    const std::string_view what = error.what();
    fail(name, ": not valid JSON: ", what.substr(what.find("] ") + 2));
  }
}

// The same for text that may be something else: null where parse_json() throws.
template <class Json = nlohmann::json>
Json parse_json_or_null(std::string_view text) {
  try {
    return parse_json<Json>(text, "");
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace binade
