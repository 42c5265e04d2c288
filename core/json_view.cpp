#include <binade/core/json_view.h>

#include <optional>
#include <unordered_set>
#include <vector>

namespace binade {

namespace {

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

}  // namespace

int64_t JsonView::integer(int64_t least, int64_t most) const {
  if (!value_->is_number_integer()) expected("an integer");
  const bool too_large =
      value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(most);
  const auto number = value_->get<int64_t>();
  if (too_large || number < least || number > most) {
    refuse(value_->dump(), " is not between ", least, " and ", most);
  }
  return number;
}

template <class Json>
Json parse_json(std::string_view text, std::string_view name, RepeatedNames repeated) {
  check_json_text(text, name);
  if (repeated == RepeatedNames::refused) {
    RepeatedName search;
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

template <class Json>
Json parse_json_or_null(std::string_view text) {
  try {
    return parse_json<Json>(text, "");
  } catch (const Error&) {
    return nullptr;
  }
}

template nlohmann::json parse_json(std::string_view, std::string_view, RepeatedNames);
template nlohmann::ordered_json parse_json(std::string_view, std::string_view, RepeatedNames);
template nlohmann::json parse_json_or_null(std::string_view);
template nlohmann::ordered_json parse_json_or_null(std::string_view);

}  // namespace binade
