// Arithmetic, subscripts, and the members of strings, dicts, lists, loops and namespaces.
#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/data/jinja/evaluator.h>
#include <binade/data/jinja/text.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace binade::data::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

bool among(std::string_view name, Names names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Where Markup's own version of what is asked for is not here.
void refuse_safe(const Value& value, std::string_view what) {
  check(!value.is_safe(), what, " of a \"safe\" string is not supported");
}

Value repeated(const Value& value, int64_t times) {
  times = std::max<int64_t>(times, 0);
  const size_t size = value.is_text() ? value.text().size() : value.as_list()->items.size();
  const size_t limit = value.is_text() ? kMaxText : kMaxElements;
  check(size == 0 || static_cast<size_t>(times) <= limit / size, "a repetition is too long");
  if (size == 0) times = 0;
  if (value.is_text()) {
    std::string text;
    for (int64_t i = 0; i < times; ++i) text += value.text();
    return Value::text(std::move(text));
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < times; ++i) {
    items.insert(items.end(), value.as_list()->items.begin(), value.as_list()->items.end());
  }
  return Value::list(std::move(items), value.as_list()->kind);
}

Value integers(std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    out = 1;
    // Beyond 64 factors only -1, 0 and 1 stay small.
    const int64_t factors = a >= -1 && a <= 1 ? (b > 0 ? 2 - b % 2 : 0) : b;
    for (int64_t i = 0; i < factors && !overflow; ++i) {
      overflow = __builtin_mul_overflow(out, a, &out);
    }
  } else {  // rounding down, as Python does
    check(b != 0, "division by zero");
    overflow = a == std::numeric_limits<int64_t>::min() && b == -1;
    if (!overflow) {
      const bool uneven = a % b != 0 && ((a < 0) != (b < 0));
      out = op == "//" ? a / b - uneven : a % b + (uneven ? b : 0);
    }
  }
  check(!overflow, "an integer is too large: ", a, " ", op, " ", b);
  return Value(out);
}

Value floats(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    check(a != 0 || b >= 0, "division by zero");
    check(a >= 0 || b == std::floor(b), "the root of a negative number");
    const double power = std::pow(a, b);
    check(std::isfinite(power) || !std::isfinite(a) || !std::isfinite(b), "a float is too large");
    return Value(power);
  }
  check(b != 0, "division by zero");
  if (op == "/") return Value(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (rest == 0) rest = std::copysign(0.0, b);
  if (op == "%") return Value(rest);
  const double quotient = (a - rest) / b;
  double down = std::floor(quotient);
  if (quotient - down > 0.5) down += 1;
  return Value(quotient == 0 ? std::copysign(0.0, a / b) : down);
}

// The method's receiver, its arguments, and how texts are taken from them.
struct TextCall {
  const std::string& self;
  const Arguments& arguments;

  const std::string& text(const Value* value) const {
    check(value->is_text(), "expected a string, found ", value->type());
    return value->text();
  }
  static bool absent(const Value* value) { return !value || value->is<None>(); }
  static int64_t number(const Value* value, int64_t otherwise) {
    return value ? value->integer() : otherwise;
  }

  Value stripped(bool left, bool right) const {
    const Value* set = arguments.bind<1>({"chars"}, 0)[0];
    return Value::text(std::string(strip(self, left, right, absent(set) ? nullptr : &text(set))));
  }
  Value parts(bool from_right) const {
    const auto [separator, limit] = arguments.bind<2>({"sep", "maxsplit"}, 0);
    const int64_t most = number(limit, -1);
    return list(absent(separator) ? split(self, most, from_right)
                                  : split(self, text(separator), most, from_right));
  }
  static Value list(std::vector<std::string> texts) {
    std::vector<Value> items;
    for (std::string& item : texts) items.push_back(Value::text(std::move(item)));
    return Value::list(std::move(items));
  }
  bool has_affix(bool at_start) const {
    const Value* affix = arguments.bind<1>({"prefix"}, 1)[0];
    const auto has = [&](const Value& value) {
      const std::string& part = text(&value);
      return at_start ? self.starts_with(part) : self.ends_with(part);
    };
    if (const List* list = affix->as_list()) {
      check(list->kind == ListKind::tuple, "expected a string or a tuple of strings");
      return std::any_of(list->items.begin(), list->items.end(), has);
    }
    return has(*affix);
  }
  Value found(bool from_right, bool must) const {
    const std::string& part = text(arguments.bind<1>({"sub"}, 1)[0]);
    const size_t at = from_right ? self.rfind(part) : self.find(part);
    check(at != std::string::npos || !must, "index: the substring is not there");
    return Value(at == std::string::npos ? int64_t{-1}
                                         : static_cast<int64_t>(count_characters(
                                               std::string_view(self).substr(0, at))));
  }
  Value counted() const {
    const std::string& part = text(arguments.bind<1>({"sub"}, 1)[0]);
    int64_t count = 0;
    if (part.empty()) return Value(static_cast<int64_t>(count_characters(self)) + 1);
    for (size_t at = 0; (at = self.find(part, at)) != std::string::npos; at += part.size()) ++count;
    return Value(count);
  }
  Value partitioned(bool from_right) const {
    const std::string& separator = text(arguments.bind<1>({"sep"}, 1)[0]);
    check(!separator.empty(), "partition: the separator is empty");
    const size_t at = from_right ? self.rfind(separator) : self.find(separator);
    std::vector<Value> items;
    if (at == std::string::npos) {
      items = {Value::text(from_right ? "" : self), Value::text(""),
               Value::text(from_right ? self : "")};
    } else {
      items = {Value::text(self.substr(0, at)), Value::text(separator),
               Value::text(self.substr(at + separator.size()))};
    }
    return Value::list(std::move(items), ListKind::tuple);
  }
};

// str.format() without conversions: "{}", "{0}" and "{name}".
class Formatter {
 public:
  Formatter(const std::string& format, const Arguments& arguments)
      : format_(format), arguments_(arguments) {}

  Value run() {
    std::string out;
    for (size_t i = 0; i < format_.size(); ++i) {
      const char c = format_[i];
      if (c != '{' && c != '}') {
        out += c;
      } else if (i + 1 < format_.size() && format_[i + 1] == c) {
        out += format_[i++];
      } else {
        const size_t end = format_.find('}', i);
        check(c == '{' && end != std::string::npos, "format: a single '", c, "'");
        out += field(format_.substr(i + 1, end - i - 1)).str();
        i = end;
      }
      check(out.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
    }
    return Value::text(std::move(out));
  }

 private:
  const Value& field(const std::string& name) {
    if (std::all_of(name.begin(), name.end(), is_digit)) {
      const size_t at =
          name.empty() ? automatic_++ : static_cast<size_t>(std::min(*parse_number(name), 1e9));
      numbered_ = numbered_ || !name.empty();
      check(automatic_ == 0 || !numbered_, "format: fields with and without numbers");
      check(at < arguments_.positional.size(), "format: there is no argument ", at);
      return arguments_.positional[at];
    }
    check(name.find_first_of("!:.[{") == std::string::npos, "format: \"{", name,
          "}\" is not supported");
    for (const auto& [given, value] : arguments_.named)
      if (given == name) return value;
    fail("format: there is no argument ", name);
  }

  const std::string& format_;
  const Arguments& arguments_;
  size_t automatic_ = 0;
  bool numbered_ = false;
};

Value call_text(const std::string& self, const std::string& name, const Arguments& arguments) {
  const TextCall call{self, arguments};
  if (name == "strip") return call.stripped(true, true);
  if (name == "lstrip") return call.stripped(true, false);
  if (name == "rstrip") return call.stripped(false, true);
  if (name == "split") return call.parts(false);
  if (name == "rsplit") return call.parts(true);
  if (name == "startswith") return Value(call.has_affix(true));
  if (name == "endswith") return Value(call.has_affix(false));
  if (name == "find") return call.found(false, false);
  if (name == "rfind") return call.found(true, false);
  if (name == "index") return call.found(false, true);
  if (name == "count") return call.counted();
  if (name == "partition") return call.partitioned(false);
  if (name == "rpartition") return call.partitioned(true);
  if (name == "splitlines") {
    const Value* keep = arguments.bind<1>({"keepends"}, 0)[0];
    return call.list(split_lines(self, keep && keep->truth()));
  }
  if (name == "replace") {
    const auto [old, with, count] = arguments.bind<3>({"old", "new", "count"}, 2);
    return Value::text(replace(self, call.text(old), call.text(with), call.number(count, -1)));
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string& affix = call.text(arguments.bind<1>({"affix"}, 1)[0]);
    std::string_view rest = self;
    if (name == "removeprefix" && rest.starts_with(affix)) rest.remove_prefix(affix.size());
    if (name == "removesuffix" && rest.ends_with(affix)) rest.remove_suffix(affix.size());
    return Value::text(std::string(rest));
  }
  if (name == "join") {
    std::string joined;
    bool first = true;
    for (const Value& item : arguments.bind<1>({"iterable"}, 1)[0]->elements()) {
      if (!std::exchange(first, false)) joined += self;
      joined += call.text(&item);
      check(joined.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
    }
    return Value::text(std::move(joined));
  }
  if (name == "format") return Formatter(self, arguments).run();
  arguments.bind<0>({}, 0);
  if (name == "upper") return Value::text(upper(self));
  if (name == "lower") return Value::text(lower(self));
  if (name == "title") return Value::text(title(self));
  if (name == "capitalize") return Value::text(capitalize(self));
  if (name == "isspace") return Value(!self.empty() && strip(self, true, false).empty());
  fail("the method \"", name, "\" of strings is not supported");
}

// As Markup escapes what is added to it.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// What str + str is where one of them is Markup.
Value added_safe(const Value& a, const Value& b) {
  const auto part = [](const Value& value) {
    return value.is_safe() ? value.text() : escaped(value.text());
  };
  return Value::safe_text(part(a) + part(b));
}

Value call_dict(const Dict& self, const std::string& name, const Arguments& arguments) {
  if (name == "get") {
    const auto [key, otherwise] = arguments.bind<2>({"key", "default"}, 1);
    const Value* found = self.find(*key);
    return found ? *found : otherwise ? *otherwise : Value::none();
  }
  arguments.bind<0>({}, 0);
  if (name == "copy") return Value::dict(self);
  std::vector<Value> items;
  for (const auto& [key, value] : self.items) {
    if (name == "keys") items.push_back(key);
    if (name == "values") items.push_back(value);
    if (name == "items") items.push_back(Value::list({key, value}, ListKind::tuple));
  }
  check(among(name, {"keys", "values", "items"}), "the method \"", name,
        "\" of dicts is not supported; templates change nothing");
  return Value::list(std::move(items), ListKind::view);
}

Value call_list(const List& self, const std::string& name, const Arguments& arguments) {
  if (name == "copy" && self.kind == ListKind::list) {
    arguments.bind<0>({}, 0);
    return Value::list(self.items, self.kind);
  }
  check(name == "count" || name == "index", "the method \"", name,
        "\" of lists is not supported; templates change nothing");
  const Value& wanted = *arguments.bind<1>({"value"}, 1)[0];
  int64_t count = 0;
  for (size_t i = 0; i < self.items.size(); ++i) {
    if (!equal(self.items[i], wanted)) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++count;
  }
  check(name == "count", "index: the value is not there");
  return Value(count);
}

Value loop_member(const Value& self, const std::string& name) {
  Loop& loop = *self.get<std::shared_ptr<Loop>>();
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(!loop.peek());
  if (name == "depth") return Value(int64_t{1});
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem")
    return loop.index0 == 0 ? Value::undefined("loop.previtem") : loop.previous;
  if (name == "nextitem")
    return loop.peek() ? loop.ahead.front() : Value::undefined("loop.nextitem");
  if (name == "cycle") return Value(Method{std::make_shared<const Value>(self), name});
  if (among(name, {"length", "revindex", "revindex0"})) {
    Value element;
    while (loop.next(element)) loop.ahead.push_back(element);
    const int64_t length = loop.index0 + 1 + static_cast<int64_t>(loop.ahead.size());
    return Value(name == "length" ? length : length - loop.index0 - (name == "revindex0"));
  }
  check(name != "changed", "loop.changed is not supported");
  return Value::undefined("loop." + name);
}

// Python's indices of a slice of `size` elements.
std::vector<size_t> slice_indices(int64_t size, const Value* begin, const Value* end,
                                  const Value* step_value) {
  const auto absent = [](const Value* value) { return !value || value->is<None>(); };
  const int64_t step = absent(step_value) ? 1 : step_value->integer();
  check(step != 0, "the step of a slice is 0");
  const int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? size : size - 1;
  const auto bound = [&](const Value* value, int64_t otherwise) {
    if (absent(value)) return otherwise;
    const int64_t given = value->integer();
    return std::clamp(given < 0 ? given + size : given, lowest, highest);
  };
  const int64_t first = bound(begin, step > 0 ? lowest : highest);
  const int64_t last = bound(end, step > 0 ? highest : lowest);
  std::vector<size_t> out;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    out.push_back(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return out;
}

}  // namespace

Value arithmetic(std::string_view op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    const bool inexact = op == "/" || (op == "**" && b.number() < 0);
    if (a.is_integer() && b.is_integer() && !inexact) return integers(op, a.integer(), b.integer());
    return floats(op, a.number(), b.number());
  }
  if (op == "+" && a.is_text() && b.is_text()) {
    if (a.is_safe() || b.is_safe()) return added_safe(a, b);
    return Value::text(a.text() + b.text());
  }
  refuse_safe(a, concat("the operator ", op));
  refuse_safe(b, concat("the operator ", op));
  const List *x = a.as_list(), *y = b.as_list();
  const auto plain = [](const List* list) { return list && list->kind <= ListKind::tuple; };
  if (op == "+" && plain(x) && plain(y) && x->kind == y->kind) {
    std::vector<Value> items = x->items;
    items.insert(items.end(), y->items.begin(), y->items.end());
    return Value::list(std::move(items), x->kind);
  }
  if (op == "*" && (a.is_text() || plain(x)) && b.is_integer()) return repeated(a, b.integer());
  if (op == "*" && (b.is_text() || plain(y)) && a.is_integer()) return repeated(b, a.integer());
  check(op != "%" || !a.is_text(), "formatting strings with % is not supported");
  fail(a.type(), " ", op, " ", b.type(), " has no meaning");
}

bool has_method(const Value& self, std::string_view name) {
  if (self.is_text()) {
    return among(
        name,
        {"capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
         "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
         "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
         "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
         "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
         "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
         "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
         "swapcase",     "title",       "translate", "upper",      "zfill"});
  }
  if (self.as_dict()) {
    return among(name, {"clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem",
                        "setdefault", "update", "values"});
  }
  const List* list = self.as_list();
  if (!list || list->kind == ListKind::generator || list->kind == ListKind::view) return false;
  if (among(name, {"count", "index"})) return true;
  return list->kind == ListKind::list && among(name, {"append", "clear", "copy", "extend", "insert",
                                                      "pop", "remove", "reverse", "sort"});
}

Value call_method(const Value& self, const std::string& name, const Arguments& arguments) {
  if (self.is_text()) {
    if (!among(name, {"startswith", "endswith", "find", "rfind", "index", "count", "isspace"}))
      refuse_safe(self, concat("the method ", name));
    return call_text(self.text(), name, arguments);
  }
  if (const Dict* dict = self.as_dict()) return call_dict(*dict, name, arguments);
  return call_list(*self.as_list(), name, arguments);
}

Value item_of(const Value& of, const Value& key) {
  check(!of.is<Undefined>(), of.type(), " has no members");
  const List* list = of.as_list();
  const bool sequence =
      of.is_text() || (list && list->kind <= ListKind::range && list->kind != ListKind::view);
  if (sequence && key.is_integer()) {
    refuse_safe(of, "a character");
    const int64_t size = of.length(), given = key.integer();
    const int64_t index = given < 0 ? given + size : given;
    if (index < 0 || index >= size) return Value::undefined("an element");
    return list ? list->items[static_cast<size_t>(index)]
                : Value::text(std::string(characters(of.text())[static_cast<size_t>(index)]));
  }
  if (const Dict* dict = of.as_dict()) {
    if (const Value* found = dict->find(key)) return *found;
  }
  if (!key.is_text()) return Value::undefined("an element");
  if (has_method(of, key.text()))
    return Value(Method{std::make_shared<const Value>(of), key.text()});
  if (of.as_dict()) return Value::undefined(key.text());
  return of.is_text() || list ? Value::undefined(key.text()) : attribute_of(of, key.text());
}

Value attribute_of(const Value& of, const std::string& name) {
  check(!of.is<Undefined>(), of.type(), " has no attribute \"", name, "\"");
  if (of.is<std::shared_ptr<Loop>>()) return loop_member(of, name);
  if (of.is<std::shared_ptr<Namespace>>()) {
    for (const auto& [other, value] : of.get<std::shared_ptr<Namespace>>()->attributes) {
      if (other == name) return value;
    }
    return Value::undefined(name);
  }
  if (has_method(of, name)) return Value(Method{std::make_shared<const Value>(of), name});
  if (const Dict* dict = of.as_dict()) {
    if (const Value* found = dict->find(Value::text(name))) return *found;
  }
  return Value::undefined(name);
}

Value slice_of(const Value& of, const Value* begin, const Value* end, const Value* step) {
  const List* list = of.as_list();
  check(of.is_text() || (list && list->kind <= ListKind::range && list->kind != ListKind::view),
        of.type(), " cannot be sliced");
  refuse_safe(of, "a slice");
  if (list) {
    std::vector<Value> items;
    for (const size_t i : slice_indices(of.length(), begin, end, step))
      items.push_back(list->items[i]);
    return Value::list(std::move(items), list->kind);
  }
  const auto parts = characters(of.text());
  std::string text;
  for (const size_t i : slice_indices(static_cast<int64_t>(parts.size()), begin, end, step))
    text += parts[i];
  return Value::text(std::move(text));
}

}  // namespace binade::data::jinja
