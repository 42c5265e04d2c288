#include <binade/core/json_view.h>
#include <binade/core/utf8.h>
#include <binade/data/jinja/text.h>
#include <binade/data/jinja/value.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace binade::data::jinja {
namespace {

constexpr int kMaxDepth = 100;

int depth_of(const Value& value) {
  if (const List* list = value.as_list()) return list->depth;
  if (const Dict* dict = value.as_dict()) return dict->depth;
  return 0;
}

int deeper(int depth, const Value& child) {
  depth = std::max(depth, depth_of(child) + 1);
  check(depth <= kMaxDepth, "lists and dicts nest more than ", kMaxDepth, " deep");
  return depth;
}

template <class Json>
Value convert(const Json& json, std::string_view name) {
  if (json.is_null()) return Value::none();
  if (json.is_boolean()) return Value(json.template get<bool>());
  if (json.is_number_float()) return Value(json.template get<double>());
  if (json.is_number()) {
    check(!json.is_number_unsigned() || json.template get<uint64_t>() <= uint64_t{INT64_MAX}, name,
          ": the integer ", json.dump(), " is too large");
    return Value(json.template get<int64_t>());
  }
  if (json.is_string()) return Value::text(json.template get<std::string>());
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& item : json) items.push_back(convert(item, name));
    return Value::list(std::move(items));
  }
  Dict dict;
  for (const auto& [key, item] : json.items()) dict.set(Value::text(key), convert(item, name));
  return Value::dict(std::move(dict));
}

std::string joined_reprs(const std::vector<Value>& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    text += (i ? ", " : "") + items[i].repr();
    check(text.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
  }
  return text;
}

}  // namespace

const Value* Dict::find(const Value& key) const {
  for (const auto& [other, value] : items) {
    if (equal(other, key)) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  check(key.is_text() || key.is_number() || key.is<None>() ||
            (key.as_list() && key.as_list()->kind == ListKind::tuple),
        key.type(), " cannot be the key of a dict");
  depth = deeper(deeper(depth, key), value);
  for (auto& [other, old] : items) {
    if (equal(other, key)) {
      old = std::move(value);
      return;
    }
  }
  items.emplace_back(std::move(key), std::move(value));
}

Value Value::text(std::string text) {
  check(text.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
  return Value(std::make_shared<const std::string>(std::move(text)));
}

Value Value::safe_text(std::string text) {
  Value value = Value::text(std::move(text));
  value.safe_ = true;
  return value;
}

Value Value::list(std::vector<Value> items, ListKind kind) {
  check(items.size() <= kMaxElements, "a list is longer than ", kMaxElements);
  int depth = 1;
  for (const Value& item : items) depth = deeper(depth, item);
  return Value(
      std::shared_ptr<const List>(std::make_shared<List>(List{kind, std::move(items), depth, 0})));
}

Value Value::dict(Dict dict) {
  return Value(std::shared_ptr<const Dict>(std::make_shared<Dict>(std::move(dict))));
}

const List* Value::as_list() const {
  const auto* list = std::get_if<std::shared_ptr<const List>>(&data_);
  return list ? list->get() : nullptr;
}
const Dict* Value::as_dict() const {
  const auto* dict = std::get_if<std::shared_ptr<const Dict>>(&data_);
  return dict ? dict->get() : nullptr;
}

int64_t Value::integer() const {
  check(is_integer(), "expected an integer, found ", type());
  return is<bool>() ? int64_t{get<bool>()} : get<int64_t>();
}
double Value::number() const {
  return is<double>() ? get<double>() : static_cast<double>(integer());
}

bool Value::truth() const {
  if (is<Undefined>() || is<None>()) return false;
  if (is_number()) return number() != 0;
  if (is_text()) return !text().empty();
  if (const List* list = as_list())
    return list->kind == ListKind::generator || !list->items.empty();
  if (const Dict* dict = as_dict()) return !dict->items.empty();
  return true;
}

std::string Value::str() const {
  if (is<Undefined>()) return {};
  return is_text() ? text() : repr();
}

std::string Value::repr() const {
  if (is<Undefined>()) return "Undefined";
  if (is<None>()) return "None";
  if (is<bool>()) return get<bool>() ? "True" : "False";
  if (is<int64_t>()) return std::to_string(get<int64_t>());
  if (is<double>()) return float_text(get<double>());
  if (is_text()) return is_safe() ? "Markup(" + quote(text()) + ")" : quote(text());
  if (const List* list = as_list()) {
    if (list->kind == ListKind::list) return "[" + joined_reprs(list->items) + "]";
    if (list->kind == ListKind::tuple) {
      return "(" + joined_reprs(list->items) + (list->items.size() == 1 ? ",)" : ")");
    }
  } else if (const Dict* dict = as_dict()) {
    std::string text = "{";
    for (const auto& [key, value] : dict->items) {
      text += (text.size() > 1 ? ", " : "") + key.repr() + ": " + value.repr();
      check(text.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
    }
    return text + "}";
  }
  fail(type(), " cannot be printed; make a list or text of it");
}

std::string Value::type() const {
  if (is<Undefined>()) return concat("undefined (", get<Undefined>().name, ")");
  if (is<None>()) return "None";
  if (is<bool>()) return "a bool";
  if (is<int64_t>()) return "an integer";
  if (is<double>()) return "a float";
  if (is_text()) return "a string";
  if (as_dict()) return "a dict";
  if (const List* list = as_list()) {
    constexpr const char* kNames[] = {"a list", "a tuple", "a dict view", "a range", "a generator"};
    return kNames[static_cast<int>(list->kind)];
  }
  return is<std::shared_ptr<Namespace>>() ? "a namespace" : "a function";
}

bool Value::iterable() const {
  return is<Undefined>() || is_text() || as_list() || as_dict();
}

std::vector<Value> Value::elements() const {
  if (is<Undefined>()) return {};
  if (const List* list = as_list()) {
    if (list->kind != ListKind::generator) return list->items;
    const size_t taken = std::exchange(list->taken, list->items.size());
    return {list->items.begin() + static_cast<int64_t>(taken), list->items.end()};
  }
  std::vector<Value> out;
  if (const Dict* dict = as_dict()) {
    for (const auto& entry : dict->items) out.push_back(entry.first);
    return out;
  }
  check(is_text(), type(), " cannot be iterated");
  check(text().size() <= kMaxElements, "a text is too long to be iterated");
  for (const std::string_view character : characters(text())) {
    out.push_back(Value::text(std::string(character)));
  }
  return out;
}

int64_t Value::length() const {
  if (is<Undefined>()) return 0;
  if (is_text()) return static_cast<int64_t>(count_characters(text()));
  if (const Dict* dict = as_dict()) return static_cast<int64_t>(dict->items.size());
  const List* list = as_list();
  check(list && list->kind != ListKind::generator, type(), " has no length");
  return static_cast<int64_t>(list->items.size());
}

bool Value::contains(const Value& element) const {
  if (is_text()) {
    check(element.is_text(), "'in <string>' requires a string, found ", element.type());
    return text().find(element.text()) != std::string::npos;
  }
  if (const Dict* dict = as_dict()) {
    check(!element.as_dict() && !(element.as_list() && element.as_list()->kind == ListKind::list),
          element.type(), " cannot be the key of a dict");
    return dict->find(element) != nullptr;
  }
  const List* list = as_list();
  if (!list) return elements().size() > 0;  // undefined has none; else an Error
  const bool once = list->kind == ListKind::generator;
  for (size_t i = once ? list->taken : 0; i < list->items.size(); ++i) {
    if (once) list->taken = i + 1;
    if (equal(list->items[i], element)) return true;
  }
  return false;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare(a, b) == 0;
  if (a.is_text() && b.is_text()) return a.text() == b.text();
  if (a.is<None>() || a.is<Undefined>()) {
    return (a.is<None>() && b.is<None>()) || (a.is<Undefined>() && b.is<Undefined>());
  }
  const List *x = a.as_list(), *y = b.as_list();
  if (x && y) {
    if (x == y) return true;
    return x->kind == y->kind && x->kind != ListKind::generator &&
           std::equal(x->items.begin(), x->items.end(), y->items.begin(), y->items.end(), equal);
  }
  const Dict *d = a.as_dict(), *e = b.as_dict();
  if (d && e) {
    return d->items.size() == e->items.size() &&
           std::all_of(d->items.begin(), d->items.end(), [&](const auto& entry) {
             const Value* other = e->find(entry.first);
             return other && equal(entry.second, *other);
           });
  }
  using Space = std::shared_ptr<Namespace>;
  return a.is<Space>() && b.is<Space>() && a.get<Space>() == b.get<Space>();
}

int compare(const Value& a, const Value& b) {
  const auto order = [](const auto& x, const auto& y) {
    return x < y ? -1 : x == y ? 0 : x > y ? 1 : 2;
  };
  if (a.is_integer() && b.is_integer()) return order(a.integer(), b.integer());
  if (a.is_number() && b.is_number()) {
    // long double holds every int64_t exactly.
    const auto wide = [](const Value& v) {
      return v.is<double>() ? static_cast<long double>(v.get<double>())
                            : static_cast<long double>(v.integer());
    };
    return order(wide(a), wide(b));
  }
  if (a.is_text() && b.is_text()) return order(a.text(), b.text());  // UTF-8 sorts as code points
  const List *x = a.as_list(), *y = b.as_list();
  check(x && y && x->kind == y->kind && (x->kind == ListKind::list || x->kind == ListKind::tuple),
        a.type(), " and ", b.type(), " cannot be ordered");
  for (size_t i = 0; i < std::min(x->items.size(), y->items.size()); ++i) {
    if (!equal(x->items[i], y->items[i])) return compare(x->items[i], y->items[i]);
  }
  return order(x->items.size(), y->items.size());
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[512];
  const double size = std::abs(value);
  const auto format = size != 0 && (size < 1e-4 || size >= 1e16) ? std::chars_format::scientific
                                                                 : std::chars_format::fixed;
  const auto end = std::to_chars(std::begin(buffer), std::end(buffer), value, format).ptr;
  std::string text(buffer, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string quote(std::string_view text) {
  constexpr const char* kHex = "0123456789abcdef";
  const bool twice = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char mark = twice ? '"' : '\'';
  std::string out(1, mark);
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = utf8_next(text, pos);
    if (c == static_cast<char32_t>(mark) || c == '\\') {
      out += {'\\', static_cast<char>(c)};
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (is_printable(c)) {
      out += text.substr(begin, pos - begin);
    } else {
      const int digits = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
      out += digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
      for (int i = digits - 1; i >= 0; --i) out += kHex[c >> (4 * i) & 15];
    }
  }
  return out + mark;
}

std::string to_json(const Value& value, const JsonStyle& style) {
  struct Writer {
    const JsonStyle& style;
    std::string out;
    void line(int level) {
      if (style.indent < 0) return;
      out += '\n';
      out.append(static_cast<size_t>(style.indent * level), ' ');
    }
    void write(const Value& v, int level) {
      check(out.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
      if (v.is<None>()) {
        out += "null";
      } else if (v.is<bool>()) {
        out += v.get<bool>() ? "true" : "false";
      } else if (v.is<double>() && !std::isfinite(v.get<double>())) {
        out += std::isnan(v.get<double>()) ? "NaN" : v.get<double>() < 0 ? "-Infinity" : "Infinity";
      } else if (v.is_number()) {
        out += v.repr();
      } else if (v.is_text()) {
        // nlohmann escapes as Python does, but for DEL.
        out += nlohmann::json(v.text()).dump(-1, ' ', style.ensure_ascii);
      } else if (const List* list = v.as_list(); list && list->kind <= ListKind::tuple) {
        out += '[';
        for (size_t i = 0; i < list->items.size(); ++i) {
          if (i) out += style.item_separator;
          line(level + 1);
          write(list->items[i], level + 1);
        }
        if (!list->items.empty()) line(level);
        out += ']';
      } else if (const Dict* dict = v.as_dict()) {
        auto items = dict->items;
        if (style.sort_keys) {
          std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
            return compare(a.first, b.first) < 0;
          });
        }
        out += '{';
        for (size_t i = 0; i < items.size(); ++i) {
          const Value& key = items[i].first;
          check(!key.as_list(), "a tuple cannot be a key in JSON");
          if (i) out += style.item_separator;
          line(level + 1);
          if (key.is_text()) {
            write(key, 0);
          } else {
            out += '"';
            write(key, 0);
            out += '"';
          }
          out += style.key_separator;
          write(items[i].second, level + 1);
        }
        if (!items.empty()) line(level);
        out += '}';
      } else {
        fail("tojson: ", v.type(), " has no JSON");
      }
    }
  } writer{style, {}};
  writer.write(value, 0);
  return std::move(writer.out);
}

Value from_json(std::string_view text, std::string_view name) {
  return convert(parse_json<nlohmann::ordered_json>(text, name), name);
}

}  // namespace binade::data::jinja
