#include <binade/core/error.h>
#include <binade/core/text.h>
#include <binade/data/jinja/ast.h>
#include <binade/data/jinja/lexer.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>

namespace binade::data::jinja {
namespace {

constexpr int kMaxNesting = 60;     // of brackets and statements in the source
constexpr int kMaxExprDepth = 200;  // of the tree of an expression
using Names = std::initializer_list<std::string_view>;

bool among(std::string_view name, Names names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Parser {
 public:
  Parser(std::string_view source, std::string_view name)
      : tokens_(tokenize(source, name)), name_(name) {}

  Template run() {
    Template out;
    out.body = body({});
    if (!unknown_.empty())
      refuse(unknown_[0].first, "the ", unknown_[0].second, " is not supported");
    out.has_generation = has_generation_;
    return out;
  }

 private:
  // ---- tokens
  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  bool is(TokenKind kind) const { return current().kind == kind; }
  bool is_symbol(std::string_view text) const {
    return is(TokenKind::symbol) && current().text == text;
  }
  bool is_name(std::string_view text) const {
    return is(TokenKind::name) && current().text == text;
  }
  Token next() {
    Token token = current();
    if (!is(TokenKind::end)) ++at_;
    return token;
  }
  bool skip_symbol(std::string_view text) { return is_symbol(text) && (next(), true); }
  bool skip_name(std::string_view text) { return is_name(text) && (next(), true); }
  void expect_symbol(std::string_view text) {
    if (!skip_symbol(text)) unexpected(concat("expected '", text, "'"));
  }
  std::string expect_name() {
    if (!is(TokenKind::name)) unexpected("expected a name");
    return next().text;
  }
  void expect(TokenKind kind, std::string_view what) {
    if (!is(kind)) unexpected(concat("expected ", what));
    next();
  }
  template <class... Parts>
  [[noreturn]] void refuse(int line, const Parts&... parts) const {
    fail(name_, ":", line, ": ", parts...);
  }
  [[noreturn]] void unexpected(std::string_view wanted) const {
    const Token& token = current();
    refuse(token.line, wanted, ", found ",
           token.kind == TokenKind::end    ? "the end of the template"
           : token.text.empty()            ? "the end of the tag"
           : token.kind == TokenKind::text ? "text"
                                           : concat("'", token.text, "'"));
  }

  struct Nesting {
    explicit Nesting(Parser& parser) : parser(parser) {
      if (++parser.nesting_ > kMaxNesting) {
        parser.refuse(parser.current().line, "the template nests more than ", kMaxNesting, " deep");
      }
    }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    ~Nesting() { --parser.nesting_; }
    Parser& parser;
  };

  // ---- expressions
  ExprPtr make(ExprKind kind, int line, std::string text = {}) const {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = line;
    expr->text = std::move(text);
    return expr;
  }
  void adopt(Expr& parent, ExprPtr child) const {
    if (child) parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxExprDepth) refuse(parent.line, "the expression is too long");
    parent.children.push_back(std::move(child));
  }
  template <class... Children>
  ExprPtr make_of(ExprKind kind, int line, std::string text, Children... children) const {
    ExprPtr expr = make(kind, line, std::move(text));
    (adopt(*expr, std::move(children)), ...);
    return expr;
  }
  ExprPtr literal(int line, Value value) const {
    ExprPtr expr = make(ExprKind::literal, line);
    expr->value = std::move(value);
    return expr;
  }

  ExprPtr expression(bool with_condition = true) {
    const Nesting nesting(*this);
    const int line = current().line;
    const size_t unknown = unknown_.size();
    ExprPtr left = either();
    while (with_condition && skip_name("if")) {
      ExprPtr condition = either();
      ExprPtr otherwise;
      if (skip_name("else")) otherwise = expression();
      unknown_.resize(unknown);
      left = make_of(ExprKind::condition, line, {}, std::move(left), std::move(condition),
                     std::move(otherwise));
    }
    return left;
  }
  ExprPtr either() {
    ExprPtr left = both();
    while (is_name("or")) {
      const int line = next().line;
      left = make_of(ExprKind::binary, line, "or", std::move(left), both());
    }
    return left;
  }
  ExprPtr both() {
    ExprPtr left = negation();
    while (is_name("and")) {
      const int line = next().line;
      left = make_of(ExprKind::binary, line, "and", std::move(left), negation());
    }
    return left;
  }
  ExprPtr negation() {
    if (!is_name("not")) return comparison();
    const Nesting nesting(*this);
    const int line = next().line;
    return make_of(ExprKind::unary, line, "not", negation());
  }
  ExprPtr comparison() {
    const int line = current().line;
    ExprPtr first = sum();
    ExprPtr all;
    while (true) {
      std::string op;
      if (is(TokenKind::symbol) && among(current().text, {"==", "!=", "<", "<=", ">", ">="})) {
        op = next().text;
      } else if (skip_name("in")) {
        op = "in";
      } else if (is_name("not") && look().kind == TokenKind::name && look().text == "in") {
        next();
        next();
        op = "not in";
      } else {
        return all ? std::move(all) : std::move(first);
      }
      if (!all) all = make_of(ExprKind::compare, line, {}, std::move(first));
      all->operators.push_back(op);
      adopt(*all, sum());
    }
  }
  template <class Operand>
  ExprPtr chain(Names operators, const Operand& operand) {
    ExprPtr left = operand();
    while (is(TokenKind::symbol) && among(current().text, operators)) {
      const Token op = next();
      left = make_of(ExprKind::binary, op.line, op.text, std::move(left), operand());
    }
    return left;
  }
  ExprPtr sum() {
    return chain({"+", "-"}, [this] { return joined(); });
  }
  ExprPtr joined() {
    ExprPtr first = multiplication();
    if (!is_symbol("~")) return first;
    ExprPtr all = make_of(ExprKind::concat, current().line, {}, std::move(first));
    while (skip_symbol("~")) adopt(*all, multiplication());
    return all;
  }
  ExprPtr multiplication() {
    return chain({"*", "/", "//", "%"},
                 [this] { return chain({"**"}, [this] { return unary(true); }); });
  }
  ExprPtr unary(bool with_filter) {
    ExprPtr expr;
    if (is_symbol("-") || is_symbol("+")) {
      const Nesting nesting(*this);
      const Token op = next();
      expr = make_of(ExprKind::unary, op.line, op.text, unary(false));
    } else {
      expr = primary();
    }
    expr = postfix(std::move(expr));
    while (with_filter) {
      if (is_symbol("|")) {
        next();
        expr = filter(std::move(expr));
      } else if (is_name("is")) {
        expr = test(std::move(expr));
      } else if (is_symbol("(")) {
        expr = call(std::move(expr));
      } else {
        break;
      }
    }
    return expr;
  }
  ExprPtr primary() {
    const int line = current().line;
    if (is(TokenKind::name)) {
      const std::string name = next().text;
      if (among(name, {"true", "True"})) return literal(line, Value(true));
      if (among(name, {"false", "False"})) return literal(line, Value(false));
      if (among(name, {"none", "None"})) return literal(line, Value::none());
      if (in_macro_ && among(name, {"varargs", "kwargs", "caller"})) {
        refuse(line, "\"", name, "\" of macros is not supported");
      }
      return make(ExprKind::name, line, name);
    }
    if (is(TokenKind::string)) {
      std::string text = next().text;
      while (is(TokenKind::string)) text += next().text;
      return literal(line, Value::text(std::move(text)));
    }
    if (is(TokenKind::integer) || is(TokenKind::floating)) return number();
    if (skip_symbol("(")) {
      ExprPtr expr = tuple({}, true, true);
      expect_symbol(")");
      return expr;
    }
    if (skip_symbol("[")) {
      ExprPtr list = make(ExprKind::list, line);
      while (!is_symbol("]")) {
        if (!list->children.empty()) expect_symbol(",");
        if (is_symbol("]")) break;
        adopt(*list, expression());
      }
      expect_symbol("]");
      return list;
    }
    if (skip_symbol("{")) {
      ExprPtr dict = make(ExprKind::dict, line);
      while (!is_symbol("}")) {
        if (!dict->children.empty()) expect_symbol(",");
        if (is_symbol("}")) break;
        adopt(*dict, expression());
        expect_symbol(":");
        adopt(*dict, expression());
      }
      expect_symbol("}");
      return dict;
    }
    unexpected("expected an expression");
  }
  ExprPtr number() {
    const Token token = next();
    const char* end = token.text.data() + token.text.size();
    if (token.kind == TokenKind::floating) {
      return literal(token.line, Value(parse_number(token.text).value_or(0)));
    }
    int64_t value = 0;
    if (std::from_chars(token.text.data(), end, value).ec != std::errc()) {
      refuse(token.line, "the number ", token.text, " is too large");
    }
    return literal(token.line, Value(value));
  }
  // One expression, or several with commas between them. `stop`: names that end it.
  ExprPtr tuple(Names stop, bool with_condition, bool in_parentheses) {
    const int line = current().line;
    std::vector<ExprPtr> parts;
    bool comma = false;
    while (!is(TokenKind::output_end) && !is(TokenKind::statement_end) && !is_symbol(")") &&
           !(is(TokenKind::name) && among(current().text, stop))) {
      parts.push_back(expression(with_condition));
      if (!skip_symbol(",")) break;
      comma = true;
    }
    if (parts.size() == 1 && !comma) return std::move(parts[0]);
    if (parts.empty() && !in_parentheses) unexpected("expected an expression");
    ExprPtr all = make(ExprKind::tuple, line);
    for (ExprPtr& part : parts) adopt(*all, std::move(part));
    return all;
  }
  ExprPtr postfix(ExprPtr expr) {
    while (true) {
      const int line = current().line;
      if (skip_symbol(".")) {
        if (is(TokenKind::integer)) {
          expr = make_of(ExprKind::item, line, {}, std::move(expr), number());
        } else {
          expr = make_of(ExprKind::attribute, line, expect_name(), std::move(expr));
        }
      } else if (skip_symbol("[")) {
        expr = subscript(std::move(expr), line);
        expect_symbol("]");
      } else if (is_symbol("(")) {
        expr = call(std::move(expr));
      } else {
        return expr;
      }
    }
  }
  ExprPtr subscript(ExprPtr of, int line) {
    ExprPtr parts[3];
    int part = 0;
    while (!is_symbol("]")) {
      if (skip_symbol(":")) {
        if (++part == 3) unexpected("expected ']'");
      } else if (parts[part]) {
        unexpected("expected ']'");
      } else {
        parts[part] = expression();
      }
    }
    if (part > 0) {
      return make_of(ExprKind::slice, line, {}, std::move(of), std::move(parts[0]),
                     std::move(parts[1]), std::move(parts[2]));
    }
    if (!parts[0]) unexpected("expected an expression");
    return make_of(ExprKind::item, line, {}, std::move(of), std::move(parts[0]));
  }
  void name_argument(Expr& into, std::string name, ExprPtr value) const {
    into.depth = std::max(into.depth, value->depth + 1);
    for (const auto& [other, ignored] : into.named) {
      if (other == name) refuse(into.line, "the argument ", name, " is given twice");
    }
    into.named.emplace_back(std::move(name), std::move(value));
  }
  void arguments(Expr& into) {
    expect_symbol("(");
    bool first = true;
    while (!is_symbol(")")) {
      if (!std::exchange(first, false)) expect_symbol(",");
      if (is_symbol(")")) break;
      if (is_symbol("*") || is_symbol("**")) {
        std::string stars = next().text;
        name_argument(into, std::move(stars), expression());
      } else if (is(TokenKind::name) && look().kind == TokenKind::symbol && look().text == "=") {
        std::string name = next().text;
        next();
        name_argument(into, std::move(name), expression());
      } else {
        if (!into.named.empty()) unexpected("expected a named argument");
        adopt(into, expression());
      }
    }
    expect_symbol(")");
    if (into.depth > kMaxExprDepth) refuse(into.line, "the expression is too long");
  }
  ExprPtr call(ExprPtr function) {
    ExprPtr expr = make_of(ExprKind::call, current().line, {}, std::move(function));
    arguments(*expr);
    return expr;
  }
  ExprPtr filter(ExprPtr of) {
    const int line = current().line;
    const std::string name = expect_name();
    if (!is_filter(name)) unknown_.push_back({line, concat("filter \"", name, '"')});
    ExprPtr expr = make_of(ExprKind::filter, line, name, std::move(of));
    if (is_symbol("(")) arguments(*expr);
    return expr;
  }
  ExprPtr test(ExprPtr of) {
    next();
    const bool negated = skip_name("not");
    const int line = current().line;
    std::string name = expect_name();
    if (!is_test(name)) unknown_.push_back({line, concat("test \"", name, '"')});
    ExprPtr expr = make_of(ExprKind::test, line, std::move(name), std::move(of));
    const bool operand = is(TokenKind::string) || is(TokenKind::integer) ||
                         is(TokenKind::floating) || is_symbol("[") || is_symbol("{") ||
                         (is(TokenKind::name) && !among(current().text, {"else", "or", "and"}));
    if (is_symbol("(")) {
      arguments(*expr);
    } else if (operand) {
      if (is_name("is")) unexpected("tests cannot be chained with \"is\"");
      adopt(*expr, postfix(primary()));
    }
    return negated ? make_of(ExprKind::unary, line, "not", std::move(expr)) : std::move(expr);
  }

  // ---- statements
  Target target(bool with_namespace, Names stop) {
    std::vector<Target> parts;
    bool comma = false;
    while (!(is(TokenKind::name) && among(current().text, stop)) && !is_symbol("=") &&
           !is_symbol(")")) {
      const Nesting nesting(*this);
      if (skip_symbol("(")) {
        parts.push_back(target(with_namespace, {}));
        expect_symbol(")");
      } else {
        const int line = current().line;
        Target part{expect_name(), {}, {}};
        if (among(part.name, {"true", "false", "none", "True", "False", "None", "loop"})) {
          refuse(line, "cannot assign to \"", part.name, "\"");
        }
        if (with_namespace && skip_symbol(".")) part.attribute = expect_name();
        parts.push_back(std::move(part));
      }
      if (!skip_symbol(",")) break;
      comma = true;
    }
    if (parts.empty()) unexpected("expected a name");
    if (parts.size() == 1 && !comma) return std::move(parts[0]);
    return {{}, {}, std::move(parts)};
  }

  // The name behind {%, if it is one of `ends`.
  bool at_end(Names ends) const {
    return is(TokenKind::statement_begin) && look().kind == TokenKind::name &&
           among(look().text, ends);
  }
  // Until a tag of one of these names, which is left to the caller; until the end if there is none.
  Body body(Names ends) {
    const Nesting nesting(*this);
    Body out;
    while (true) {
      if (is(TokenKind::end)) {
        if (ends.size() == 0) return out;
        refuse(current().line, "the template ends where \"", *ends.begin(), "\" is expected");
      }
      if (at_end(ends)) {
        next();
        return out;
      }
      if (is(TokenKind::text)) {
        const Token token = next();
        out.push_back(Stmt{.kind = StmtKind::text, .line = token.line, .text = token.text});
      } else if (is(TokenKind::output_begin)) {
        Stmt stmt{.kind = StmtKind::output, .line = next().line};
        stmt.expr = tuple({}, true, false);
        expect(TokenKind::output_end, "'}}'");
        out.push_back(std::move(stmt));
      } else {
        expect(TokenKind::statement_begin, "'{%'");
        out.push_back(statement());
      }
    }
  }
  void end_tag() { expect(TokenKind::statement_end, "'%}'"); }
  Body block(std::string_view end) {
    end_tag();
    Body out = body({end});
    next();
    end_tag();
    return out;
  }

  Stmt statement() {
    const int line = current().line;
    const std::string name = expect_name();
    Stmt stmt{.kind = StmtKind::text, .line = line};
    if (name == "for") return for_statement(std::move(stmt));
    if (name == "if") return if_statement(std::move(stmt));
    if (name == "set") {
      stmt.kind = StmtKind::set;
      stmt.target = target(true, {});
      if (skip_symbol("=")) {
        stmt.expr = tuple({}, true, false);
        end_tag();
      } else {
        stmt.block = true;
        while (skip_symbol("|")) stmt.expr = filter(std::move(stmt.expr));
        stmt.body = block("endset");
      }
    } else if (name == "macro") {
      macro(stmt);
    } else if (name == "with") {
      stmt.kind = StmtKind::with;
      while (!is(TokenKind::statement_end)) {
        if (!stmt.targets.empty()) expect_symbol(",");
        stmt.targets.push_back(Target{expect_name(), {}, {}});
        expect_symbol("=");
        stmt.exprs.push_back(expression());
      }
      stmt.body = block("endwith");
    } else if (name == "filter") {
      stmt.kind = StmtKind::filter;
      stmt.expr = filter(nullptr);
      while (skip_symbol("|")) stmt.expr = filter(std::move(stmt.expr));
      stmt.body = block("endfilter");
    } else if (name == "generation") {
      stmt.kind = StmtKind::generation;
      has_generation_ = true;
      const int loops = std::exchange(loops_, 0);
      stmt.body = block("endgeneration");
      loops_ = loops;
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) refuse(line, "\"", name, "\" outside of a loop");
      stmt.kind = name == "break" ? StmtKind::break_ : StmtKind::continue_;
      end_tag();
    } else {
      refuse(line, "the statement \"", name, "\" is not supported here");
    }
    return stmt;
  }
  Stmt for_statement(Stmt stmt) {
    stmt.kind = StmtKind::for_;
    stmt.target = target(false, {"in"});
    if (!skip_name("in")) unexpected("expected 'in'");
    stmt.expr = tuple({"recursive"}, false, false);
    if (skip_name("if")) stmt.condition = expression();
    if (is_name("recursive")) refuse(stmt.line, "recursive loops are not supported");
    end_tag();
    ++loops_;
    stmt.body = body({"endfor", "else"});
    --loops_;
    if (next().text == "else") {
      stmt.else_body = block("endfor");
    } else {
      end_tag();
    }
    return stmt;
  }
  Stmt if_statement(Stmt stmt) {
    stmt.kind = StmtKind::if_;
    const size_t unknown = unknown_.size();
    ExprPtr condition = tuple({}, false, false);
    while (true) {
      end_tag();
      stmt.branches.emplace_back(std::move(condition), body({"endif", "elif", "else"}));
      const std::string end = next().text;
      if (end == "elif") {
        condition = tuple({}, false, false);
        continue;
      }
      if (end == "else") {
        stmt.branches.emplace_back(nullptr, block("endif"));
      } else {
        end_tag();
      }
      unknown_.resize(unknown);
      return stmt;
    }
  }
  void macro(Stmt& stmt) {
    stmt.kind = StmtKind::macro;
    stmt.text = expect_name();
    expect_symbol("(");
    while (!is_symbol(")")) {
      if (!stmt.targets.empty()) expect_symbol(",");
      const int line = current().line;
      stmt.targets.push_back(Target{expect_name(), {}, {}});
      stmt.exprs.push_back(skip_symbol("=") ? expression() : nullptr);
      if (!stmt.exprs.back() && stmt.exprs.size() > 1 && stmt.exprs[stmt.exprs.size() - 2]) {
        refuse(line, "a parameter without a default follows one with a default");
      }
    }
    next();
    const int loops = std::exchange(loops_, 0);
    const bool outer = std::exchange(in_macro_, true);
    stmt.body = block("endmacro");
    in_macro_ = outer;
    loops_ = loops;
  }

  std::vector<Token> tokens_;
  std::string_view name_;
  size_t at_ = 0;
  int nesting_ = 0, loops_ = 0;
  // Filters and tests that are not known, with their lines. Those that stand in conditions are
  // refused when they run, as by Jinja2; others here.
  std::vector<std::pair<int, std::string>> unknown_;
  bool in_macro_ = false, has_generation_ = false;
};

}  // namespace

Template parse(std::string_view source, std::string_view name) {
  return Parser(source, name).run();
}

}  // namespace binade::data::jinja
