#include <binade/core/error.h>
#include <binade/data/jinja/evaluator.h>

#include <algorithm>

namespace binade::data::jinja {
namespace {

constexpr int kMaxDepth = 400;  // of expressions, statements and macros while they run
// Statements and expressions; long results count as many, which bounds memory and time.
constexpr int64_t kMaxSteps = 4'000'000;
constexpr int64_t kMaxRange = 100'000;  // as Jinja2's sandbox

// An error that has its line already.
struct PlacedError : Error {
  using Error::Error;
};

class Evaluator {
 public:
  Evaluator(std::string_view name, const std::function<std::tm()>& now) : name_(name), now_(now) {}
  Evaluator(const Evaluator&) = delete;
  Evaluator& operator=(const Evaluator&) = delete;
  // Macros hold scopes that hold macros, namespaces may hold themselves.
  ~Evaluator() {
    for (const auto& scope : scopes_) scope->names.clear();
    for (const auto& space : namespaces_) space->attributes.clear();
  }

  Output run(const Template& tree, std::vector<std::pair<std::string, Value>> variables) {
    scope_ = std::make_shared<Scope>();
    for (auto& [name, value] : variables) scope_->names[name] = std::move(value);
    // What the template sets goes before what it is given, and is not seen in it.
    body(tree.body);
    return std::move(result_);
  }

 private:
  enum class Flow : uint8_t { on, break_, continue_ };

  struct Depth {
    explicit Depth(Evaluator& evaluator) : evaluator(evaluator) {
      check(evaluator.depth_ < kMaxDepth, "recursion is deeper than ", kMaxDepth);
      evaluator.charge(1);
      ++evaluator.depth_;
    }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    ~Depth() { --evaluator.depth_; }
    Evaluator& evaluator;
  };

  // A scope of its own until the end of the block.
  struct Inner {
    explicit Inner(Evaluator& evaluator) : Inner(evaluator, evaluator.scope_) {}
    Inner(Evaluator& evaluator, std::shared_ptr<Scope> parent)
        : evaluator(evaluator), outer(evaluator.scope_) {
      evaluator.scope_ = std::make_shared<Scope>();
      evaluator.scope_->parent = std::move(parent);
    }
    Inner(const Inner&) = delete;
    Inner& operator=(const Inner&) = delete;
    ~Inner() { evaluator.scope_ = outer; }
    Evaluator& evaluator;
    std::shared_ptr<Scope> outer;
  };

  template <class Work>
  auto placed(int line, const Work& work) -> decltype(work()) {
    try {
      return work();
    } catch (const PlacedError&) {
      throw;
    } catch (const Error& error) {
      throw PlacedError(concat(name_, ":", line, ": ", error.what()));
    }
  }

  void charge(int64_t steps) {
    steps_ += steps;
    check(steps_ <= kMaxSteps, "the template runs for too long");
  }

  // ---- output
  void write(const std::string& text) {
    charge(static_cast<int64_t>(text.size() / 256));
    out_->append(text);
    check(out_->size() <= kMaxText, "the output is longer than ", kMaxText, " bytes");
  }
  std::string captured(const Body& statements) {
    std::string text;
    std::string* const outer = std::exchange(out_, &text);
    try {
      body(statements);
    } catch (...) {
      out_ = outer;
      throw;
    }
    out_ = outer;
    return text;
  }

  // ---- statements
  Flow body(const Body& statements) {
    for (const Stmt& stmt : statements) {
      const Flow flow = placed(stmt.line, [&] {
        const Depth depth(*this);
        return statement(stmt);
      });
      if (flow != Flow::on) return flow;
    }
    return Flow::on;
  }

  Flow statement(const Stmt& stmt) {
    switch (stmt.kind) {
      case StmtKind::text:
        write(stmt.text);
        break;
      case StmtKind::output:
        write(eval(*stmt.expr).str());
        break;
      case StmtKind::if_:
        for (const auto& [condition, branch] : stmt.branches) {
          if (!condition || eval(*condition).truth()) return body(branch);
        }
        break;
      case StmtKind::for_:
        return loop(stmt);
      case StmtKind::set:
        set(stmt);
        break;
      case StmtKind::with: {
        std::vector<Value> values;
        for (const ExprPtr& expr : stmt.exprs) values.push_back(eval(*expr));
        const Inner inner(*this);
        for (size_t i = 0; i < values.size(); ++i) assign(stmt.targets[i], values[i]);
        return body(stmt.body);
      }
      case StmtKind::filter: {
        std::string text;
        {
          const Inner inner(*this);
          text = captured(stmt.body);
        }
        write(filtered(*stmt.expr, Value::text(std::move(text))).str());
        break;
      }
      case StmtKind::macro:
        scopes_.push_back(scope_);
        scope_->names[stmt.text] = Value(std::make_shared<const Macro>(Macro{&stmt, scope_}));
        break;
      case StmtKind::generation: {
        check(out_ == &result_.text, "a generation block inside a macro, filter or set");
        const size_t begin = out_->size();
        const Inner inner(*this);
        body(stmt.body);
        result_.generated.emplace_back(begin, out_->size());
        break;
      }
      case StmtKind::break_:
        return Flow::break_;
      case StmtKind::continue_:
        return Flow::continue_;
    }
    return Flow::on;
  }

  Flow loop(const Stmt& stmt) {
    const Value over = eval(*stmt.expr);
    const auto state = std::make_shared<Loop>();
    const auto elements = std::make_shared<std::vector<Value>>(over.elements());
    const std::shared_ptr<Scope> around = scope_;
    state->next = [this, elements, &stmt, around, at = size_t{0}](Value& element) mutable {
      while (at < elements->size()) {
        element = (*elements)[at++];
        if (!stmt.condition) return true;
        const Inner inner(*this, around);
        assign(stmt.target, element);
        if (eval(*stmt.condition).truth()) return true;
      }
      return false;
    };
    // Nothing of this frame may be used once the loop has ended.
    const struct End {
      Loop& loop;
      ~End() {
        loop.next = [](Value&) { return false; };
      }
    } end{*state};
    bool any = false;
    Flow flow = Flow::on;
    while (flow != Flow::break_ && state->advance()) {
      const Depth depth(*this);
      const Inner inner(*this);
      scope_->names["loop"] = Value(state);
      assign(stmt.target, state->current);
      flow = body(stmt.body);
      any =
          any || flow == Flow::on;  // as in Jinja2, `else` runs unless an iteration came to its end
    }
    if (any) return Flow::on;
    const Inner inner(*this);
    return body(stmt.else_body);
  }

  void set(const Stmt& stmt) {
    if (!stmt.block) return assign(stmt.target, eval(*stmt.expr));
    std::string text;
    {
      const Inner inner(*this);
      text = captured(stmt.body);
    }
    Value value = Value::text(std::move(text));
    assign(stmt.target, stmt.expr ? filtered(*stmt.expr, std::move(value)) : std::move(value));
  }

  void assign(const Target& target, const Value& value) {
    if (!target.parts.empty()) {
      const std::vector<Value> values = value.elements();
      check(!value.is<Undefined>() && values.size() == target.parts.size(), "cannot unpack ",
            values.size(), " values into ", target.parts.size(), " names");
      for (size_t i = 0; i < values.size(); ++i) assign(target.parts[i], values[i]);
    } else if (target.attribute.empty()) {
      scope_->names[target.name] = value;
    } else {
      const Value space = lookup(target.name);
      check(space.is<std::shared_ptr<Namespace>>(), "cannot assign to an attribute of ",
            space.type(), ", only of a namespace");
      set_attribute(*space.get<std::shared_ptr<Namespace>>(), target.attribute, value);
    }
  }
  static void set_attribute(Namespace& space, const std::string& name, const Value& value) {
    check(!name.starts_with('_'), "the attribute ", name, " begins with an underscore");
    for (auto& [other, old] : space.attributes) {
      if (other == name) {
        old = value;
        return;
      }
    }
    space.attributes.emplace_back(name, value);
  }

  // ---- expressions
  Value lookup(const std::string& name) const {
    for (const Scope* scope = scope_.get(); scope; scope = scope->parent.get()) {
      const auto found = scope->names.find(name);
      if (found != scope->names.end()) return found->second;
    }
    for (const char* function : {"raise_exception", "range", "namespace", "strftime_now", "dict"}) {
      if (name == function) return Value(Function{name});
    }
    for (const char* function : {"lipsum", "cycler", "joiner"}) {
      check(name != function, "the function ", name, " is not supported");
    }
    return Value::undefined(name);
  }

  Value eval(const Expr& expr) {
    return placed(expr.line, [&] {
      const Depth depth(*this);
      Value value = eval_here(expr);
      if (expr.kind != ExprKind::name && expr.kind != ExprKind::literal &&
          expr.kind != ExprKind::attribute && expr.kind != ExprKind::item) {
        if (value.is_text()) charge(static_cast<int64_t>(value.text().size() / 256));
        if (const List* list = value.as_list())
          charge(static_cast<int64_t>(list->items.size() / 16));
      }
      return value;
    });
  }
  Value child(const Expr& expr, size_t i) { return eval(*expr.children[i]); }
  std::vector<Value> children(const Expr& expr, size_t from = 0) {
    std::vector<Value> values;
    for (size_t i = from; i < expr.children.size(); ++i) values.push_back(child(expr, i));
    return values;
  }
  Arguments arguments(const Expr& expr) {
    Arguments out{children(expr, 1), {}};
    for (const auto& [name, expr_of] : expr.named) {
      const Value value = eval(*expr_of);
      if (name == "*") {
        check(value.iterable(), value.type(), " cannot be unpacked into arguments");
        for (Value& item : value.elements()) out.positional.push_back(std::move(item));
      } else if (name == "**") {
        check(value.as_dict(), value.type(), " cannot be unpacked into named arguments");
        for (const auto& [key, item] : value.as_dict()->items) {
          check(key.is_text(), "the names of arguments are strings");
          out.named.emplace_back(key.text(), item);
        }
      } else {
        out.named.emplace_back(name, value);
      }
    }
    return out;
  }

  Value eval_here(const Expr& expr) {
    switch (expr.kind) {
      case ExprKind::literal:
        return expr.value;
      case ExprKind::name:
        return lookup(expr.text);
      case ExprKind::list:
        return Value::list(children(expr));
      case ExprKind::tuple:
        return Value::list(children(expr), ListKind::tuple);
      case ExprKind::dict: {
        Dict dict;
        for (size_t i = 0; i < expr.children.size(); i += 2) {
          Value key = child(expr, i);
          dict.set(std::move(key), child(expr, i + 1));
        }
        return Value::dict(std::move(dict));
      }
      case ExprKind::attribute:
        return attribute_of(child(expr, 0), expr.text);
      case ExprKind::item: {
        const Value of = child(expr, 0);
        return item_of(of, child(expr, 1));
      }
      case ExprKind::slice: {
        const Value of = child(expr, 0);
        Value parts[3];
        const Value* given[3] = {};
        for (size_t i = 0; i < 3; ++i) {
          if (!expr.children[i + 1]) continue;
          parts[i] = child(expr, i + 1);
          given[i] = &parts[i];
        }
        return slice_of(of, given[0], given[1], given[2]);
      }
      case ExprKind::call: {
        const Value function = child(expr, 0);
        return call(function, arguments(expr));
      }
      case ExprKind::filter:
        return filtered(expr, Value());
      case ExprKind::test: {
        const Value value = child(expr, 0);
        return Value(apply_test(expr.text, value, arguments(expr)));
      }
      case ExprKind::unary:
        return unary(expr);
      case ExprKind::binary:
        return binary(expr);
      case ExprKind::concat: {
        std::string text;
        for (const Value& value : children(expr)) {
          text += value.str();
          check(text.size() <= kMaxText, "a text is longer than ", kMaxText, " bytes");
        }
        return Value::text(std::move(text));
      }
      case ExprKind::compare:
        return compared(expr);
      case ExprKind::condition:
        if (child(expr, 1).truth()) return child(expr, 0);
        return expr.children[2] ? child(expr, 2) : Value::undefined("an \"if\" without \"else\"");
    }
    fail("unreachable");
  }

  // A chain of filters that begins with `input` where the template has no value there.
  Value filtered(const Expr& expr, Value input) {
    const Expr* inner = expr.children[0].get();
    if (!inner) return apply_filter(expr.text, input, arguments(expr));
    const Value value =
        inner->kind == ExprKind::filter ? filtered(*inner, std::move(input)) : eval(*inner);
    return apply_filter(expr.text, value, arguments(expr));
  }

  Value unary(const Expr& expr) {
    const Value value = child(expr, 0);
    if (expr.text == "not") return Value(!value.truth());
    return arithmetic(expr.text, Value(int64_t{0}), value);
  }

  Value binary(const Expr& expr) {
    Value left = child(expr, 0);
    if (expr.text == "and") return left.truth() ? child(expr, 1) : left;
    if (expr.text == "or") return left.truth() ? left : child(expr, 1);
    return arithmetic(expr.text, left, child(expr, 1));
  }

  Value compared(const Expr& expr) {
    Value left = child(expr, 0);
    for (size_t i = 0; i < expr.operators.size(); ++i) {
      Value right = child(expr, i + 1);
      const std::string& op = expr.operators[i];
      bool holds = false;
      if (op == "==" || op == "!=") {
        holds = equal(left, right) == (op == "==");
      } else if (op == "in" || op == "not in") {
        holds = right.contains(left) == (op == "in");
      } else {
        const int order = compare(left, right);
        holds = order != 2 && (op == "<"    ? order < 0
                               : op == "<=" ? order <= 0
                               : op == ">"  ? order > 0
                                            : order >= 0);
      }
      if (!holds) return Value(false);
      left = std::move(right);
    }
    return Value(true);
  }

  Value call(const Value& function, const Arguments& arguments) {
    if (function.is<Method>()) {
      const Method& method = function.get<Method>();
      if (method.self->is<std::shared_ptr<Loop>>()) {
        check(!arguments.positional.empty(), "loop.cycle needs an argument");
        const auto count = static_cast<int64_t>(arguments.positional.size());
        const int64_t index = method.self->get<std::shared_ptr<Loop>>()->index0;
        return arguments.positional[static_cast<size_t>(index % count)];
      }
      return call_method(*method.self, method.name, arguments);
    }
    if (function.is<std::shared_ptr<const Macro>>()) {
      return call_macro(*function.get<std::shared_ptr<const Macro>>(), arguments);
    }
    check(function.is<Function>(), function.type(), " cannot be called");
    const std::string& name = function.get<Function>().name;
    if (name == "raise_exception") {
      fail("the template refuses: ", arguments.bind<1>({"message"}, 1)[0]->str());
    }
    if (name == "strftime_now") {
      const Value& format = *arguments.bind<1>({"format"}, 1)[0];
      check(format.is_text(), "strftime_now needs a string");
      return Value::text(format_time(format.text(), now_()));
    }
    if (name == "range") return range(arguments);
    return dict_or_namespace(name, arguments);
  }

  static Value range(const Arguments& arguments) {
    const auto& given = arguments.positional;
    check(arguments.named.empty() && !given.empty() && given.size() <= 3,
          "range needs one to three numbers");
    for (const Value& number : given) check(number.is_integer(), "range needs integers");
    const int64_t begin = given.size() > 1 ? given[0].integer() : 0;
    const int64_t end = given[given.size() > 1].integer();
    const int64_t step = given.size() > 2 ? given[2].integer() : 1;
    check(step != 0, "range: the step is 0");
    std::vector<Value> items;
    for (int64_t i = begin; step > 0 ? i < end : i > end;) {
      check(items.size() < static_cast<size_t>(kMaxRange), "a range is longer than ", kMaxRange);
      items.emplace_back(i);
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return Value::list(std::move(items), ListKind::range);
  }

  Value dict_or_namespace(const std::string& name, const Arguments& arguments) {
    check(arguments.positional.size() <= 1, name, " takes at most one positional argument");
    Dict dict;
    if (!arguments.positional.empty()) {
      const Value& from = arguments.positional[0];
      if (const Dict* other = from.as_dict()) {
        dict = *other;
      } else {
        for (const Value& entry : from.elements()) {
          const std::vector<Value> pair = entry.elements();
          check(pair.size() == 2, name, " needs pairs");
          dict.set(pair[0], pair[1]);
        }
      }
    }
    for (const auto& [key, value] : arguments.named) dict.set(Value::text(key), value);
    if (name == "dict") return Value::dict(std::move(dict));
    auto space = std::make_shared<Namespace>();
    for (const auto& [key, value] : dict.items) {
      check(key.is_text(), "the names of a namespace are strings");
      set_attribute(*space, key.text(), value);
    }
    namespaces_.push_back(space);
    return Value(std::move(space));
  }

  Value call_macro(const Macro& macro, const Arguments& arguments) {
    const Stmt& stmt = *macro.stmt;
    const size_t count = stmt.targets.size();
    check(arguments.positional.size() <= count, "macro ", stmt.text, " takes ", count,
          " arguments, got ", arguments.positional.size());
    std::vector<const Value*> given(count);
    for (size_t i = 0; i < arguments.positional.size(); ++i) given[i] = &arguments.positional[i];
    for (const auto& [name, value] : arguments.named) {
      size_t i = 0;
      while (i < count && stmt.targets[i].name != name) ++i;
      check(i < count && !given[i], "macro ", stmt.text, ": the argument ", name,
            " is not known, or given twice");
      given[i] = &value;
    }
    const Inner inner(*this, macro.scope);
    for (size_t i = 0; i < count; ++i) {
      scope_->names[stmt.targets[i].name] = given[i] ? *given[i]
                                            : stmt.exprs[i]
                                                ? eval(*stmt.exprs[i])
                                                : Value::undefined(stmt.targets[i].name);
    }
    return Value::text(captured(stmt.body));
  }

  std::string_view name_;
  const std::function<std::tm()>& now_;
  Output result_;
  std::string* out_ = &result_.text;
  std::shared_ptr<Scope> scope_;
  std::vector<std::shared_ptr<Scope>> scopes_;  // those that a macro holds
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  int depth_ = 0;
  int64_t steps_ = 0;
};

}  // namespace

bool Loop::peek() {
  if (!ahead.empty()) return true;
  Value element;
  if (!next(element)) return false;
  ahead.push_back(std::move(element));
  return true;
}

bool Loop::advance() {
  if (!peek()) return false;
  previous = std::move(current);
  current = std::move(ahead.front());
  ahead.erase(ahead.begin());
  ++index0;
  return true;
}

Output evaluate(const Template& tree, std::string_view name,
                std::vector<std::pair<std::string, Value>> variables,
                const std::function<std::tm()>& now) {
  return Evaluator(name, now).run(tree, std::move(variables));
}

}  // namespace binade::data::jinja
