// einsum, against sums over every label.
#include <map>

#include "op_table.h"

namespace binade::test {

namespace {

// Σ over all positions of the labels that are not in the result, of the product of the operands.
// Every label has one size here; an ellipsis is written out.
Values einsum_of(const std::vector<std::string>& terms, const std::string& result,
                 const Lists& in) {
  std::map<char, int64_t> sizes;
  for (size_t i = 0; i < terms.size(); ++i)
    for (size_t d = 0; d < terms[i].size(); ++d) {
      int64_t& size = sizes.emplace(terms[i][d], 1).first->second;
      if (in[i].shape[static_cast<int>(d)] != 1) size = in[i].shape[static_cast<int>(d)];
    }
  std::string labels = result;
  Shape shape, all;
  for (const char label : result) shape.push_back(sizes[label]);
  for (const auto& [label, size] : sizes)
    if (result.find(label) == std::string::npos) labels.push_back(label);
  for (const char label : labels) all.push_back(sizes[label]);
  Values sums{shape, std::vector<double>(static_cast<size_t>(shape.numel()), 0.0)};
  for_each_index(all, [&](const Index& at) {
    double product = 1;
    for (size_t i = 0; i < terms.size(); ++i) {
      Index place;
      for (const char label : terms[i]) place.push_back(at[labels.find(label)]);
      product *= in[i](place);
    }
    int64_t flat = 0;
    for (int d = 0; d < shape.dims(); ++d) flat = flat * shape[d] + at[static_cast<size_t>(d)];
    sums.data[static_cast<size_t>(flat)] += product;
  });
  return sums;
}

}  // namespace

void add_einsum_rows(OpTable& table) {
  const auto row = [&](const char* equation, std::vector<Shape> shapes,
                       std::vector<std::string> terms, std::string result, double low = -1) {
    std::vector<Input> inputs;
    for (const Shape& shape : shapes) inputs.push_back(real(shape, low, 1));
    table
        .add(
            "einsum", equation, inputs,
            [equation = std::string(equation).substr(0, std::string(equation).find(" with"))](
                const TensorList& in) -> TensorList { return {einsum(equation, in)}; },
            [=](const Lists& in) -> Lists { return {einsum_of(terms, result, in)}; })
        .rounded(static_cast<int>(shapes.size()) + 1)
        .of_one_size();
  };
  row("ij,jk->ik", {{2, 3}, {3, 4}}, {"ij", "jk"}, "ik");
  row("ij,jk", {{2, 3}, {3, 4}}, {"ij", "jk"}, "ik");
  row("bij,bjk->bik", {{2, 3, 4}, {2, 4, 5}}, {"bij", "bjk"}, "bik");
  row("ij,kj->ki", {{2, 3}, {4, 3}}, {"ij", "kj"}, "ki");
  row("bhqd,bhkd->bhqk", {{2, 2, 3, 4}, {2, 2, 5, 4}}, {"bhqd", "bhkd"}, "bhqk");
  row("bqhd,bkhd->bhqk", {{2, 3, 2, 4}, {2, 5, 2, 4}}, {"bqhd", "bkhd"}, "bhqk");
  row("i,j->ij", {{3}, {4}}, {"i", "j"}, "ij");
  row("ij,ij->", {{3, 4}, {3, 4}}, {"ij", "ij"}, "");
  row("ij,ij->ij", {{3, 4}, {3, 4}}, {"ij", "ij"}, "ij");
  row("ij->ji", {{3, 4}}, {"ij"}, "ji");
  row("ij->j", {{3, 4}}, {"ij"}, "j");
  row("ii->i", {{3, 3}}, {"ii"}, "i");
  row("ii", {{3, 3}}, {"ii"}, "");
  row("iji->ij", {{3, 4, 3}}, {"iji"}, "ij");
  row("bn,anm,bm->ba", {{2, 3}, {5, 3, 4}, {2, 4}}, {"bn", "anm", "bm"}, "ba");
  row("ij,jk,kl->il", {{2, 3}, {3, 4}, {4, 2}}, {"ij", "jk", "kl"}, "il");
  row("ijx,jky->ik", {{2, 3, 2}, {3, 4, 3}}, {"ijx", "jky"}, "ik",
      0.25);  // of one sign: sums of an operand alone are rounded before products could cancel
  row("bij,bjk->bik with a size of 1", {{1, 3, 4}, {2, 4, 5}}, {"bij", "bjk"}, "bik");
  row("...ij,...jk->...ik", {{2, 3, 4}, {2, 4, 5}}, {"bij", "bjk"}, "bik");
  row("...ij,jk->...ik", {{2, 2, 3, 4}, {4, 5}}, {"abij", "jk"}, "abik");
  row("...i,...i", {{2, 2, 3}, {2, 3}}, {"abi", "bi"}, "ab");
}

}  // namespace binade::test
