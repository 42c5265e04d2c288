// Filters, tests and dates.
#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/data/jinja/evaluator.h>
#include <binade/data/jinja/text.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace binade::data::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

bool among(std::string_view name, Names names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}
template <size_t N>
bool contains(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

constexpr std::string_view kFilters[] = {
    "abs",     "capitalize", "count",  "d",      "default",    "dictsort", "first",
    "float",   "indent",     "int",    "items",  "join",       "last",     "length",
    "list",    "lower",      "map",    "max",    "min",        "reject",   "rejectattr",
    "replace", "reverse",    "safe",   "select", "selectattr", "sort",     "string",
    "sum",     "title",      "tojson", "trim",   "unique",     "upper"};
// … whose result is the same for a `safe` string and another one, or the string itself.
constexpr std::string_view kPlainOfSafe[] = {
    "count", "d",      "default", "first", "float",  "int",  "join",   "last",  "length", "list",
    "map",   "reject", "replace", "safe",  "select", "sort", "string", "title", "tojson", "unique"};
constexpr std::string_view kTests[] = {
    "boolean", "callable", "defined",  "divisibleby", "eq",      "equalto", "even",      "false",
    "filter",  "float",    "ge",       "greaterthan", "gt",      "in",      "integer",   "iterable",
    "le",      "lessthan", "lower",    "lt",          "mapping", "ne",      "none",      "number",
    "odd",     "sameas",   "sequence", "string",      "test",    "true",    "undefined", "upper"};

bool flag(const Value* value, bool otherwise = false) {
  return value ? value->truth() : otherwise;
}

Value folded(const Value& value, bool case_sensitive) {
  return value.is_text() && !case_sensitive ? Value::text(lower(value.text())) : value;
}

// The element itself or what stands under an attribute such as "a.b" or 0.
Value member(Value value, const Value* attribute, const Value* otherwise = nullptr) {
  if (!attribute || attribute->is<None>()) return value;
  std::vector<Value> keys;
  if (attribute->is_text()) {
    for (const std::string& part : split(attribute->text(), ".", -1, false)) {
      int64_t index = 0;
      const char* end = part.data() + part.size();
      const auto read = std::from_chars(part.data(), end, index);
      const bool number =
          !part.empty() && is_digit(part[0]) && read.ec == std::errc() && read.ptr == end;
      keys.push_back(number ? Value(index) : Value::text(part));
    }
  } else {
    keys.push_back(*attribute);
  }
  for (const Value& key : keys) {
    value = item_of(value, key);
    if (otherwise && !otherwise->is<None>() && value.is<Undefined>()) value = *otherwise;
  }
  return value;
}

Value sorted(std::vector<Value> items, bool reverse,
             const std::function<Value(const Value&)>& key) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) keyed.emplace_back(key(item), std::move(item));
  // Checked before sorting, as an order that throws or is none may not be sorted by.
  for (size_t i = 1; i < keyed.size(); ++i) {
    check(compare(keyed[0].first, keyed[i].first) != 2 &&
              compare(keyed[i].first, keyed[i].first) == 0,
          "NaN cannot be sorted");
  }
  std::stable_sort(keyed.begin(), keyed.end(), [reverse](const auto& a, const auto& b) {
    return reverse ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
  });
  for (size_t i = 0; i < keyed.size(); ++i) items[i] = std::move(keyed[i].second);
  return Value::list(std::move(items));
}

Value select(const std::string& name, const Value& value, const Arguments& arguments) {
  const bool by_attribute = name.ends_with("attr"), wanted = name.starts_with("select");
  Arguments rest = arguments;
  const Value* attribute = nullptr;
  if (by_attribute) {
    check(!arguments.positional.empty(), name, ": the attribute is missing");
    attribute = &arguments.positional[0];
    rest.positional.erase(rest.positional.begin());
  }
  std::string test;
  if (!rest.positional.empty()) {
    test = rest.positional[0].str();
    check(is_test(test), "the test \"", test, "\" is not supported");  // of no element, too
    rest.positional.erase(rest.positional.begin());
  }
  std::vector<Value> out;
  for (const Value& item : value.elements()) {
    const Value subject = member(item, attribute);
    if ((test.empty() ? subject.truth() : apply_test(test, subject, rest)) == wanted)
      out.push_back(item);
  }
  return Value::list(std::move(out), ListKind::generator);
}

Value mapped(const Value& value, const Arguments& arguments) {
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    const auto [attribute, otherwise] = arguments.bind<2>({"attribute", "default"}, 1);
    for (const Value& item : value.elements()) out.push_back(member(item, attribute, otherwise));
  } else {
    Arguments rest = arguments;
    rest.positional.erase(rest.positional.begin());
    const std::string filter = arguments.positional[0].str();
    check(is_filter(filter) && filter != "map", "the filter \"", filter,
          "\" is not supported in map");
    for (const Value& item : value.elements()) out.push_back(apply_filter(filter, item, rest));
  }
  return Value::list(std::move(out), ListKind::generator);
}

Value unique(const Value& value, const Arguments& arguments) {
  const auto [case_sensitive, attribute] = arguments.bind<2>({"case_sensitive", "attribute"}, 0);
  std::vector<Value> seen, out;
  for (const Value& item : value.elements()) {
    const Value key = folded(member(item, attribute), flag(case_sensitive));
    const List* list = key.as_list();
    check(!key.as_dict() && !(list && list->kind == ListKind::list), "unique cannot compare ",
          key.type());
    if (std::any_of(seen.begin(), seen.end(),
                    [&](const Value& other) { return equal(key, other); }))
      continue;
    check(seen.size() < 10'000, "unique: more than 10000 different elements");
    seen.push_back(key);
    out.push_back(item);
  }
  return Value::list(std::move(out), ListKind::generator);
}

Value extreme(const Value& value, const Arguments& arguments, int wanted) {
  const auto [case_sensitive, attribute] = arguments.bind<2>({"case_sensitive", "attribute"}, 0);
  const std::vector<Value> items = value.elements();
  if (items.empty()) return Value::undefined("an element of nothing");
  size_t best = 0;
  const auto key = [&, by = attribute, exact = flag(case_sensitive)](size_t i) {
    return folded(member(items[i], by), exact);
  };
  for (size_t i = 1; i < items.size(); ++i) {
    if (compare(key(i), key(best)) == wanted) best = i;
  }
  return items[best];
}

std::string joined(const Value& value, const Arguments& arguments) {
  const auto [separator, attribute] = arguments.bind<2>({"d", "attribute"}, 0);
  const std::string between = separator ? separator->str() : "";
  std::string out;
  bool first = true;
  for (const Value& item : value.elements()) {
    if (!std::exchange(first, false)) out += between;
    out += member(item, attribute).str();
    check(out.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
  }
  return out;
}

std::string indented(const Value& value, const Arguments& arguments) {
  check(value.is_text(), "indent needs a string");
  const auto [width, first, blank] = arguments.bind<3>({"width", "first", "blank"}, 0);
  std::string indent = "    ";
  if (width && width->is_text()) indent = width->text();
  if (width && !width->is_text()) {
    const int64_t spaces = std::max<int64_t>(width->integer(), 0);
    check(spaces <= 10'000, "indent: the width is more than 10000");
    indent.assign(static_cast<size_t>(spaces), ' ');
  }
  std::string out;
  const std::vector<std::string> lines = split_lines(value.text() + "\n");
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i) out += '\n';
    if (i ? flag(blank) || !lines[i].empty() : flag(first)) out += indent;
    out += lines[i];
    check(out.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
  }
  return out;
}

// float() of Python; nothing for what it refuses.
std::optional<double> to_float(const Value& value) {
  if (value.is_number()) return value.number();
  if (!value.is_text()) return std::nullopt;
  std::string text(strip(value.text(), true, true));
  if (text.starts_with('+') && !text.starts_with("+-")) text.erase(0, 1);
  return parse_number(text);
}

Value to_int(const Value& value, const Arguments& arguments) {
  const auto [otherwise, base] = arguments.bind<2>({"default", "base"}, 0);
  check(!base || (base->is_integer() && base->integer() == 10), "int: only base 10 is supported");
  check(!value.is<Undefined>(), value.type(), " is not a number");
  if (value.is_integer()) return Value(value.integer());
  if (value.is_text()) {
    std::string text(strip(value.text(), true, true));
    if (text.starts_with('+') && !text.starts_with("+-")) text.erase(0, 1);
    int64_t number = 0;
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, number);
    check(read.ec != std::errc::result_out_of_range, "int: the number ", text, " is too large");
    if (read.ec == std::errc() && read.ptr == end) return Value(number);
  }
  const std::optional<double> number = to_float(value);
  if (!number || !std::isfinite(*number)) return otherwise ? *otherwise : Value(int64_t{0});
  check(std::abs(*number) < 0x1p63, "int: the number ", *number, " is too large");
  return Value(static_cast<int64_t>(*number));
}

std::string json_of(const Value& value, const Arguments& arguments) {
  const auto [ascii, indent, separators, sort_keys] =
      arguments.bind<4>({"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style{.ensure_ascii = flag(ascii), .sort_keys = flag(sort_keys)};
  if (indent && !indent->is<None>()) {
    style.indent = std::max<int64_t>(indent->integer(), 0);
    check(style.indent <= 100, "tojson: the indent is more than 100");
    style.item_separator = ",";
  }
  if (separators && !separators->is<None>()) {
    const std::vector<Value> pair = separators->elements();
    check(pair.size() == 2 && pair[0].is_text() && pair[1].is_text(),
          "tojson: separators are two strings");
    style.item_separator = pair[0].text();
    style.key_separator = pair[1].text();
  }
  return to_json(value, style);
}

// Words begin behind white space and opening brackets, unlike those of str.title().
std::string filter_title(const std::string& text) {
  std::string out;
  std::string word;
  const auto flush = [&] {
    if (word.empty()) return;
    const size_t first = characters(word)[0].size();
    out += upper(word.substr(0, first)) + lower(word.substr(first));
    word.clear();
  };
  for (const std::string_view character : characters(text)) {
    const bool between =
        strip(character, true, false).empty() || among(character, {"-", "(", "{", "[", "<"});
    if (between) {
      flush();
      out += character;
    } else {
      word += character;
    }
  }
  flush();
  return out;
}

}  // namespace

bool is_filter(std::string_view name) {
  return contains(kFilters, name);
}
bool is_test(std::string_view name) {
  return contains(kTests, name) || among(name, {"==", "!=", "<", "<=", ">", ">="});
}

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments) {
  check(is_filter(name), "the filter \"", name, "\" is not supported");
  check(!value.is_safe() || contains(kPlainOfSafe, name), "the filter \"", name,
        "\" of a \"safe\" string is not supported");
  const auto text = [](std::string out) { return Value::text(std::move(out)); };
  if (name == "default" || name == "d") {
    const auto [otherwise, boolean] = arguments.bind<2>({"default_value", "boolean"}, 0);
    const bool missing = value.is<Undefined>() || (flag(boolean) && !value.truth());
    return !missing ? value : otherwise ? *otherwise : text("");
  }
  if (name == "trim") {
    const Value* set = arguments.bind<1>({"chars"}, 0)[0];
    const bool given = set && !set->is<None>();
    check(!given || set->is_text(), "trim: the characters are a string");
    return text(std::string(strip(value.str(), true, true, given ? &set->text() : nullptr)));
  }
  if (name == "replace") {
    const auto [old, with, count] = arguments.bind<3>({"old", "new", "count"}, 2);
    return text(replace(value.str(), old->str(), with->str(),
                        count && !count->is<None>() ? count->integer() : -1));
  }
  if (name == "join") return text(joined(value, arguments));
  if (name == "indent") return text(indented(value, arguments));
  if (name == "tojson") return text(json_of(value, arguments));
  if (name == "map") return mapped(value, arguments);
  if (name.starts_with("select") || name.starts_with("reject"))
    return select(name, value, arguments);
  if (name == "unique") return unique(value, arguments);
  if (name == "min") return extreme(value, arguments, -1);
  if (name == "max") return extreme(value, arguments, 1);
  if (name == "int") return to_int(value, arguments);
  if (name == "float") {
    const Value* otherwise = arguments.bind<1>({"default"}, 0)[0];
    check(!value.is<Undefined>(), value.type(), " is not a number");
    const std::optional<double> number = to_float(value);
    return number ? Value(*number) : otherwise ? *otherwise : Value(0.0);
  }
  if (name == "sort") {
    const auto [reverse, case_sensitive, attribute] =
        arguments.bind<3>({"reverse", "case_sensitive", "attribute"}, 0);
    check(!attribute || !attribute->is_text() || attribute->text().find(',') == std::string::npos,
          "sort by several attributes is not supported");
    return sorted(value.elements(), flag(reverse),
                  [&, by = attribute, exact = flag(case_sensitive)](const Value& item) {
                    return folded(member(item, by), exact);
                  });
  }
  if (name == "dictsort") {
    const auto [case_sensitive, by, reverse] =
        arguments.bind<3>({"case_sensitive", "by", "reverse"}, 0);
    const std::string part = by ? by->str() : "key";
    check(value.as_dict(), "dictsort needs a dict, found ", value.type());
    check(part == "key" || part == "value", "dictsort sorts by \"key\" or \"value\"");
    return sorted(call_method(value, "items", {}).elements(), flag(reverse),
                  [&, exact = flag(case_sensitive)](const Value& pair) {
                    return folded(pair.as_list()->items[part == "value"], exact);
                  });
  }
  if (name == "sum") {
    const auto [attribute, start] = arguments.bind<2>({"attribute", "start"}, 0);
    Value total = start ? *start : Value(int64_t{0});
    check(!total.is_text(), "sum cannot add strings");
    for (const Value& item : value.elements())
      total = arithmetic("+", total, member(item, attribute));
    return total;
  }
  arguments.bind<0>({}, 0);
  if (name == "upper") return text(upper(value.str()));
  if (name == "lower") return text(lower(value.str()));
  if (name == "title") return text(filter_title(value.str()));
  if (name == "capitalize") return text(capitalize(value.str()));
  if (name == "string") return value.is_text() ? value : text(value.str());
  if (name == "safe") return Value::safe_text(value.str());
  if (name == "length" || name == "count") return Value(value.length());
  if (name == "list") return Value::list(value.elements());
  if (name == "abs") {
    if (value.is_number() && !value.is_integer()) return Value(std::abs(value.number()));
    return value.integer() < 0 ? arithmetic("-", Value(int64_t{0}), value) : Value(value.integer());
  }
  if (name == "items") {
    if (value.is<Undefined>()) return Value::list({}, ListKind::generator);
    check(value.as_dict(), "items needs a dict, found ", value.type());
    return Value::list(call_method(value, "items", {}).elements(), ListKind::generator);
  }
  if (name == "first") {
    const List* list = value.as_list();
    if (list && list->kind == ListKind::generator && list->taken < list->items.size())
      return list->items[list->taken++];
    const std::vector<Value> items = value.elements();
    return items.empty() ? Value::undefined("the first of nothing") : items.front();
  }
  check(!value.as_list() || value.as_list()->kind != ListKind::generator || name == "reverse", name,
        " needs a list, found ", value.type());
  std::vector<Value> items = value.elements();
  if (name == "last") return items.empty() ? Value::undefined("the last of nothing") : items.back();
  check(name == "reverse", "the filter \"", name, "\" is not executed");  // kFilters has more
  std::reverse(items.begin(), items.end());
  if (value.is_text()) {
    std::string out;
    for (const Value& item : items) out += item.text();
    return text(std::move(out));
  }
  const List* list = value.as_list();
  return Value::list(std::move(items), list && list->kind == ListKind::generator
                                           ? ListKind::list
                                           : ListKind::generator);
}

bool apply_test(const std::string& name, const Value& value, const Arguments& arguments) {
  check(is_test(name), "the test \"", name, "\" is not supported");
  const auto operand = [&]() -> const Value& { return *arguments.bind<1>({"other"}, 1)[0]; };
  if (name == "eq" || name == "equalto" || name == "==") return equal(value, operand());
  if (name == "ne" || name == "!=") return !equal(value, operand());
  if (name == "in") return operand().contains(value);
  if (name == "divisibleby") return equal(arithmetic("%", value, operand()), Value(int64_t{0}));
  if (name == "sameas") {
    const Value& other = operand();
    const bool simple = value.is<None>() || value.is<bool>();
    check(simple || other.is<None>() || other.is<bool>(),
          "sameas is only supported for none, true and false");
    return simple && value.is<bool>() == other.is<bool>() && equal(value, other);
  }
  if (among(name, {"lt", "lessthan", "<"})) return compare(value, operand()) == -1;
  if (among(name, {"gt", "greaterthan", ">"})) return compare(value, operand()) == 1;
  if (among(name, {"le", "<="})) return compare(value, operand()) <= 0;
  if (name == "ge" || name == ">=") {
    const int order = compare(value, operand());
    return order == 0 || order == 1;
  }
  arguments.bind<0>({}, 0);
  if (name == "defined") return !value.is<Undefined>();
  if (name == "undefined") return value.is<Undefined>();
  if (name == "none") return value.is<None>();
  if (name == "boolean") return value.is<bool>();
  if (name == "true") return value.is<bool>() && value.get<bool>();
  if (name == "false") return value.is<bool>() && !value.get<bool>();
  if (name == "string") return value.is_text();
  if (name == "number") return value.is_number();
  if (name == "integer") return value.is<int64_t>();
  if (name == "float") return value.is<double>();
  if (name == "mapping") return value.as_dict() != nullptr;
  if (name == "iterable") return value.iterable() || value.is<std::shared_ptr<Loop>>();
  if (name == "sequence") {
    const List* list = value.as_list();
    return value.is<Undefined>() || value.is_text() || value.as_dict() ||
           (list && list->kind != ListKind::view && list->kind != ListKind::generator);
  }
  if (name == "odd" || name == "even") {
    const Value rest = arithmetic("%", value, Value(int64_t{2}));
    return equal(rest, Value(int64_t{name == "odd"}));
  }
  if (name == "lower" || name == "upper") {
    const std::string text = value.str();
    const std::string other = name == "lower" ? lower(text) : upper(text);
    const std::string opposite = name == "lower" ? upper(text) : lower(text);
    return text == other && text != opposite;  // there is a letter that has a case
  }
  if (name == "callable") {
    return value.is<Method>() || value.is<Function>() || value.is<std::shared_ptr<const Macro>>() ||
           value.is<std::shared_ptr<Loop>>() || value.is<Undefined>();
  }
  if (name == "filter") return is_filter(value.str());
  check(name == "test", "the test \"", name, "\" is not executed");  // kTests has more
  return is_test(value.str());
}

std::string format_time(std::string_view format, const std::tm& time) {
  constexpr const char* kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                   "Thursday", "Friday", "Saturday"};
  constexpr const char* kMonths[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};
  std::string out;
  const auto number = [&](int value, size_t width, bool padded) {
    const std::string digits = std::to_string(value);
    if (padded) out.append(width - std::min(width, digits.size()), '0');
    out += digits;
  };
  const std::string day = kDays[(time.tm_wday % 7 + 7) % 7];
  const std::string month = kMonths[(time.tm_mon % 12 + 12) % 12];
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    const bool padded = format[++i] != '-';
    if (!padded && ++i == format.size()) fail("strftime_now: the format ends in \"%-\"");
    switch (format[i]) {
      case 'd':
        number(time.tm_mday, 2, padded);
        break;
      case 'm':
        number(time.tm_mon + 1, 2, padded);
        break;
      case 'Y':
        number(time.tm_year + 1900, 1, padded);
        break;
      case 'y':
        number((time.tm_year + 1900) % 100, 2, padded);
        break;
      case 'H':
        number(time.tm_hour, 2, padded);
        break;
      case 'I':
        number((time.tm_hour + 11) % 12 + 1, 2, padded);
        break;
      case 'M':
        number(time.tm_min, 2, padded);
        break;
      case 'S':
        number(time.tm_sec, 2, padded);
        break;
      case 'j':
        number(time.tm_yday + 1, 3, padded);
        break;
      case 'w':
        number(time.tm_wday, 1, padded);
        break;
      case 'A':
        out += day;
        break;
      case 'a':
        out += day.substr(0, 3);
        break;
      case 'B':
        out += month;
        break;
      case 'b':
        out += month.substr(0, 3);
        break;
      case 'p':
        out += time.tm_hour < 12 ? "AM" : "PM";
        break;
      case 'F':
        out += format_time("%Y-%m-%d", time);
        break;
      case 'T':
        out += format_time("%H:%M:%S", time);
        break;
      case 'z':
      case 'Z':
        break;  // datetime.now() has no zone
      case '%':
        out += '%';
        break;
      default:
        fail("strftime_now: %", format[i], " is not supported");
    }
  }
  return out;
}

}  // namespace binade::data::jinja
