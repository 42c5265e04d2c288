// INTERNAL. Runs a chat template.
#pragma once

#include <binade/data/jinja/ast.h>

#include <array>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace binade::data::jinja {

struct Scope {
  std::map<std::string, Value, std::less<>> names;
  std::shared_ptr<Scope> parent;
};

struct Macro {
  const Stmt* stmt;
  std::shared_ptr<Scope> scope;  // where it was defined
};

// The variable `loop` of a `for`. Filtered elements are found when they are needed.
struct Loop {
  std::function<bool(Value&)> next;  // the next element that the filter takes, or false
  std::vector<Value> ahead;          // elements that were found before their turn
  Value previous, current;
  int64_t index0 = -1;
  bool peek();  // whether there is a further element
  bool advance();
};

// What a function, filter or test is called with.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  // The arguments in the order of the parameters' names; Error for one too many or unknown.
  // `required` is how many must be given.
  template <size_t N>
  std::array<const Value*, N> bind(const std::array<std::string_view, N>& names,
                                   size_t required) const {
    std::array<const Value*, N> out{};
    check(positional.size() <= N, "got ", positional.size(), " arguments where ", N, " fit");
    for (size_t i = 0; i < positional.size(); ++i) out[i] = &positional[i];
    for (const auto& [name, value] : named) {
      size_t i = 0;
      while (i < N && names[i] != name) ++i;
      check(i < N && !out[i], "the argument ", name, " is not known, or given twice");
      out[i] = &value;
    }
    for (size_t i = 0; i < required; ++i) check(out[i], "the argument ", names[i], " is missing");
    return out;
  }
};

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments);
bool apply_test(const std::string& name, const Value& value, const Arguments& arguments);
Value call_method(const Value& self, const std::string& name, const Arguments& arguments);
// Whether values of this type have such a member function, in Python if not here.
bool has_method(const Value& self, std::string_view name);
Value arithmetic(std::string_view op, const Value& a, const Value& b);
Value item_of(const Value& of, const Value& key);
Value attribute_of(const Value& of, const std::string& name);
Value slice_of(const Value& of, const Value* begin, const Value* end, const Value* step);
// strftime() under the C locale; Error for a directive that is not known.
std::string format_time(std::string_view format, const std::tm& time);

struct Output {
  std::string text;
  std::vector<std::pair<size_t, size_t>> generated;  // bytes of the generation blocks
};

// Renders with these variables. Errors give `name` and the line. Error for what runs or
// recurses for too long and for too much output. `now` gives the time when a template asks for it.
Output evaluate(const Template& tree, std::string_view name,
                std::vector<std::pair<std::string, Value>> variables,
                const std::function<std::tm()>& now);

}  // namespace binade::data::jinja
