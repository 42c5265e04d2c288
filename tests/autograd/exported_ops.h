// What autograd/ops.h exports, read from its headers.
#pragma once

#include <algorithm>
#include <fstream>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include <binade/core/error.h>

namespace binade::test {

// {family, its ops in the order of autograd/ops/<family>.h}; an op of several faces stands there
// once.
inline std::vector<std::pair<std::string, std::vector<std::string>>> exported_ops(
    const std::string& source_dir) {
  const std::regex declaration(
      R"(^(?:Tensor|std::pair<Tensor, Tensor>|std::vector<Tensor>|MultiHeadLoss) (operator\S|\w+)\()");
  std::vector<std::pair<std::string, std::vector<std::string>>> families;
  for (const char* family : {"activation", "arithmetic", "attention", "conv", "conv_variants",
                             "indexing", "linear", "linear_relu", "loss", "matmul", "mlp",
                             "multi_head_loss", "norm", "recurrent", "reduce", "shape"}) {
    std::ifstream header(concat(source_dir, "/autograd/ops/", family, ".h"));
    check(header.good(), "cannot read the header of family ", family);
    std::vector<std::string> ops;
    for (std::string line; std::getline(header, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, declaration)) continue;
      if (std::find(ops.begin(), ops.end(), match[1]) == ops.end()) ops.push_back(match[1]);
    }
    families.emplace_back(family, std::move(ops));
  }
  return families;
}

}  // namespace binade::test
