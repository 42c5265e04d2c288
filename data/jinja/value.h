// INTERNAL. What the variables of a chat template hold: Python's values, as far as templates see
// them.
#pragma once

#include <binade/core/error.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace binade::data::jinja {

class Value;
struct Macro;
struct Loop;

// Names that were not set, and members that are not there. It renders as nothing and is false.
struct Undefined {
  std::string name;
};
struct None {};

// A generator can be gone through once: `taken` elements are behind it.
enum class ListKind : uint8_t { list, tuple, view, range, generator };
struct List {
  ListKind kind = ListKind::list;
  std::vector<Value> items;
  int depth = 1;  // of lists and dicts inside one another
  mutable size_t taken = 0;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in order of insertion; keys differ
  int depth = 1;
  const Value* find(const Value& key) const;
  void set(Value key, Value value);
};
struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};
struct Method {  // a member function and what it is a member of
  std::shared_ptr<const Value> self;
  std::string name;
};
struct Function {  // one of the template language
  std::string name;
};

// Immutable, but for namespaces, generators and loops; cheap to copy.
class Value {
 public:
  using Text = std::shared_ptr<const std::string>;
  using Variant =
      std::variant<Undefined, None, bool, int64_t, double, Text, std::shared_ptr<const List>,
                   std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                   std::shared_ptr<const Macro>, std::shared_ptr<Loop>, Method, Function>;
  Value() : data_(Undefined{}) {}
  template <class T>
  explicit Value(T data) : data_(std::move(data)) {}
  static Value undefined(std::string name) { return Value(Undefined{std::move(name)}); }
  static Value none() { return Value(None{}); }
  static Value text(std::string text);
  // What the filter `safe` makes of a value, a string of Python's class Markup: others are escaped
  // when they are added to it.
  static Value safe_text(std::string text);
  // Error if lists and dicts nest more than 100 deep or the list is longer than a million.
  static Value list(std::vector<Value> items, ListKind kind = ListKind::list);
  static Value dict(Dict dict);

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(data_);
  }
  bool is_text() const { return is<Text>(); }
  bool is_safe() const { return safe_; }                           // a text of safe_text()
  bool is_integer() const { return is<bool>() || is<int64_t>(); }  // as in Python
  bool is_number() const { return is_integer() || is<double>(); }

  template <class T>
  const T& get() const {
    return std::get<T>(data_);
  }
  const std::string& text() const { return *get<Text>(); }
  const List* as_list() const;  // nullptr if it is none
  const Dict* as_dict() const;
  int64_t integer() const;  // of a bool or integer
  double number() const;    // of any number

  bool truth() const;
  std::string str() const;   // Python's str(); Error for what has none that is worth printing
  std::string repr() const;  // Python's repr()
  std::string type() const;  // for messages: "a string"
  // What a `for` goes through: elements, characters, keys. Error for what cannot be iterated.
  std::vector<Value> elements() const;
  bool iterable() const;
  int64_t length() const;
  bool contains(const Value& element) const;  // element in *this

 private:
  Variant data_;
  bool safe_ = false;
};

bool equal(const Value& a, const Value& b);
int compare(const Value& a, const Value& b);  // -1, 0, 1, 2 for NaN; Error for unordered types
std::string float_text(double value);         // Python's repr
std::string quote(std::string_view text);     // Python's repr

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  int64_t indent = -1;  // -1: on one line
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json(const Value& value, const JsonStyle& style);
Value from_json(std::string_view text, std::string_view name);  // Error as of parse_json()

constexpr size_t kMaxText = size_t{1} << 26;  // bytes of a string or of the output
constexpr size_t kMaxElements = 1'000'000;    // of a list

}  // namespace binade::data::jinja
