// docs/differentiation.md says how often each op can be differentiated. Its tables are made here,
// of the op table; `binade_tests "[.differentiation]"` writes them into the file again.
#include <algorithm>
#include <map>
#include <set>

#include <catch2/catch.hpp>

#include <binade/core/file.h>

#include "exported_ops.h"
#include "op_harness.h"

using namespace binade;
using namespace binade::test;

namespace {

constexpr const char* kPage = BINADE_SOURCE_DIR "/docs/differentiation.md";
constexpr const char* kBegin = "<!-- made of the op table: -->\n";
constexpr const char* kEnd = "<!-- end -->\n";

// What an op says where more than its gradient is asked for: {which calls of it, what to do}.
std::pair<std::string, std::string> refusal_of(const OpRow& row) {
  const std::string call = "`" + row.op + "`" + (row.once_when.empty() ? "" : " " + row.once_when);
  for (const Tensor& output : row.call(make_inputs(row, DType::f64))) {
    if (!output.requires_grad()) continue;
    try {
      grad({output}, {output}, {Tensor::ones(output.shape(), output.dtype())},
           {.create_graph = true});
    } catch (const Error& error) {
      const std::string said = error.what(), before = "(create_graph); ";
      const size_t at = said.find(before);
      check(at != std::string::npos, row.name(), " refuses with \"", said, '"');
      return {call, said.substr(at + before.size())};
    }
  }
  fail(row.name(), " does not refuse");
}

std::string listed(const std::vector<std::string>& ops) {
  std::string text;
  for (const std::string& op : ops) text += (text.empty() ? "`" : ", `") + op + "`";
  return text;
}

std::string tables() {
  std::set<std::string> differentiable, sometimes;  // sometimes: any number of times
  std::map<std::string, std::string> refusals;      // by call
  for (const OpRow& row : op_rows()) {
    if (!row.differentiable) continue;
    differentiable.insert(row.op);
    if (row.once.empty())
      sometimes.insert(row.op);
    else
      refusals.insert(refusal_of(row));
  }
  std::string text =
      "| family (`autograd/ops/…`) | any number of times | once | no gradient "
      "|\n|---|---|---|---|\n";
  for (const auto& [family, ops] : exported_ops(BINADE_SOURCE_DIR)) {
    std::vector<std::string> any, once, never;
    for (const std::string& op : ops)
      (sometimes.count(op) ? any : differentiable.count(op) ? once : never).push_back(op);
    text +=
        "| " + family + " | " + listed(any) + " | " + listed(once) + " | " + listed(never) + " |\n";
  }
  text += "\n| once | for more |\n|---|---|\n";
  for (const auto& [call, instead] : refusals) text += "| " + call + " | " + instead + " |\n";
  return text;
}

// The page with these tables between its marks.
std::string page_with(const std::string& made) {
  std::string page = read_text_file(kPage);
  const size_t begin = page.find(kBegin), end = page.find(kEnd);
  check(begin != std::string::npos && end != std::string::npos && begin < end, kPage,
        " has no marks for its tables");
  const size_t first = begin + std::string(kBegin).size();
  return page.replace(first, end - first, "\n" + made + "\n");
}

}  // namespace

TEST_CASE("docs/differentiation.md is what the op table says", "[ops][twice]") {
  INFO("binade_tests \"[.differentiation]\" writes it again");
  CHECK(read_text_file(kPage) == page_with(tables()));
}

TEST_CASE("write docs/differentiation.md", "[.differentiation]") {
  write_text_file(kPage, page_with(tables()));
  SUCCEED();
}
