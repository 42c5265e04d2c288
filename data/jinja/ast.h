// INTERNAL. The tree of a chat template.
#pragma once

#include <binade/data/jinja/value.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace binade::data::jinja {

enum class ExprKind : uint8_t {
  literal,    // value
  name,       // text
  list,       // children
  tuple,      // children
  dict,       // children: key, value, key, value, …
  attribute,  // children[0].text
  item,       // children[0][children[1]]
  slice,      // children[0][children[1]:children[2]:children[3]]; absent ones are null
  call,       // children[0](children[1…], named); named "*" and "**": those of a list, of a dict
  filter,     // children[0] | text(children[1…], named); children[0] is null in {% filter %}
  test,       // children[0] is text(children[1…], named)
  unary,      // text: -, + or not
  binary,     // text: + - * / // % ** and or
  concat,     // children joined by ~
  compare,    // children[0] operators[0] children[1] operators[1] …
  condition,  // children[0] if children[1] else children[2], which may be null
};
struct Expr;
using ExprPtr = std::unique_ptr<Expr>;
struct Expr {
  ExprKind kind;
  int line;
  std::string text;
  Value value;
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> operators;
  int depth = 1;  // of expressions inside one another
};

// What is assigned to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name, attribute;
  std::vector<Target> parts;
};

enum class StmtKind : uint8_t {
  text,        // text
  output,      // expr
  if_,         // branches; the condition of an `else` is null
  for_,        // target in expr if condition: body, else_body
  set,         // target = expr, or of the output of body through the filter in expr (may be null)
  with,        // targets = exprs: body
  filter,      // expr is the filter of body's output
  macro,       // text is its name; targets and exprs are parameters and defaults (may be null)
  generation,  // body
  break_,
  continue_,
};
struct Stmt;
using Body = std::vector<Stmt>;
struct Stmt {
  StmtKind kind;
  int line;
  std::string text;
  ExprPtr expr, condition;
  Target target;
  bool block = false;  // set: of body
  std::vector<Target> targets;
  std::vector<ExprPtr> exprs;
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body body, else_body;
};

struct Template {
  Body body;
  bool has_generation = false;
};

// Error, with `name` and the line, for what is not valid or not executed.
Template parse(std::string_view source, std::string_view name);

bool is_filter(std::string_view name);  // that is executed
bool is_test(std::string_view name);

}  // namespace binade::data::jinja
