// einsum: labels are sorted into those of the batch, of each side and of the sum, which makes two
// operands a batched matmul.
#include <algorithm>
#include <map>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/matmul.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>

namespace binade {

using namespace ops;

namespace {

constexpr const char* kOp = "einsum";

// The label of every dimension, in order. An ellipsis has the digits from '0' on, its last
// dimension '9', so that ellipses of different lengths meet at their ends.
using Labels = std::string;

struct Operand {
  Tensor tensor;
  Labels labels;
};

bool has(const Labels& labels, char label) {
  return labels.find(label) != Labels::npos;
}

Array diagonal_view(const Array& x, int dim0, int dim1) {
  Shape shape = x.shape(), strides = x.strides();
  strides[dim0] += strides[dim1];
  shape.erase(dim1);
  strides.erase(dim1);
  return Array::view_of(x.storage(), x.dtype(), shape, strides, x.offset());
}

// x where its positions along dim0 and dim1 are one; dim1 goes. A view.
Tensor diagonal(const Tensor& x, int dim0, int dim1);

// Zeros of `shape` but for the diagonal, which holds x.
Tensor diagonal_into_zeros(const Tensor& x, const Shape& shape, int dim0, int dim1) {
  const Array y = Array::zeros(shape, x.dtype(), x.device());
  diagonal_view(y, dim0, dim1).copy_from(x.array());
  return record("diagonal_into_zeros", {x}, y,
                [=](const Tensor& dy) -> TensorList { return {diagonal(dy, dim0, dim1)}; });
}

Tensor diagonal(const Tensor& x, int dim0, int dim1) {
  return record("diagonal", {x}, diagonal_view(x.array(), dim0, dim1),
                [=, shape = x.shape()](const Tensor& dy) -> TensorList {
                  return {diagonal_into_zeros(dy, shape, dim0, dim1)};
                });
}

// The labels of one term; `dims` of its operand, or the longest ellipsis for the result.
Labels parse_term(const std::string& equation, const std::string& term, int ellipsis_dims) {
  Labels labels;
  bool ellipsis = false;
  for (size_t i = 0; i < term.size(); ++i) {
    if (term[i] == ' ') continue;
    if (term.compare(i, 3, "...") == 0) {
      check(!ellipsis, kOp, ": a term of \"", equation, "\" has two ellipses");
      ellipsis = true;
      for (int d = ellipsis_dims; d > 0; --d) labels.push_back(static_cast<char>('9' - (d - 1)));
      i += 2;
      continue;
    }
    check((term[i] >= 'a' && term[i] <= 'z') || (term[i] >= 'A' && term[i] <= 'Z'), kOp, ": '",
          term[i], "' in \"", equation, "\" is no label; labels are letters");
    labels.push_back(term[i]);
  }
  return labels;
}

std::vector<std::string> split_terms(const std::string& text) {
  std::vector<std::string> terms = {""};
  for (const char c : text) {
    if (c == ',')
      terms.emplace_back();
    else
      terms.back().push_back(c);
  }
  return terms;
}

// An equation that was read, for the dimensions of its operands.
struct Equation {
  std::vector<Labels> inputs;
  Labels output;

  Equation(const std::string& text, const std::vector<Tensor>& operands) {
    const size_t arrow = text.find("->");
    const std::vector<std::string> terms = split_terms(text.substr(0, arrow));
    check(terms.size() == operands.size(), kOp, ": \"", text, "\" has ", terms.size(),
          " terms for ", operands.size(), " operands");
    int longest = 0;
    for (size_t i = 0; i < terms.size(); ++i) {
      const auto letters = static_cast<int>(std::count_if(
          terms[i].begin(), terms[i].end(), [](char c) { return c != ' ' && c != '.'; }));
      const bool ellipsis = terms[i].find("...") != std::string::npos;
      const int rest = operands[i].dims() - letters;
      check(ellipsis ? rest >= 0 : rest == 0, kOp, ": the term \"", terms[i], "\" of \"", text,
            "\" does not name the dimensions of ", Kind{operands[i]});
      inputs.push_back(parse_term(text, terms[i], ellipsis ? rest : 0));
      if (ellipsis) longest = std::max(longest, rest);
    }
    if (arrow == std::string::npos) {
      output = implicit_output();
    } else {
      output = parse_term(text, text.substr(arrow + 2), longest);
    }
    for (const char label : output) {
      check(std::count(output.begin(), output.end(), label) == 1, kOp, ": '", label,
            "' stands twice behind the arrow of \"", text, "\"");
      check(std::any_of(inputs.begin(), inputs.end(),
                        [&](const Labels& labels) { return has(labels, label); }),
            kOp, ": '", label, "' of the result of \"", text, "\" is in no operand");
    }
  }

 private:
  Labels implicit_output() const {
    std::map<char, int> times;  // in ASCII order: the ellipsis, capitals, small letters
    for (const Labels& labels : inputs)
      for (const char label : labels) ++times[label];
    Labels labels;
    for (const auto& [label, count] : times)
      if (count == 1 || (label >= '0' && label <= '9')) labels.push_back(label);
    return labels;
  }
};

// The dimensions in the order of `labels`, of which the operand has all or some: size 1 for those
// that are missing.
Tensor arranged(const Operand& operand, const Labels& labels) {
  std::vector<int> order;
  Shape shape;
  for (const char label : labels) {
    const size_t at = operand.labels.find(label);
    if (at == Labels::npos) {
      shape.push_back(1);
      continue;
    }
    order.push_back(static_cast<int>(at));
    shape.push_back(operand.tensor.size(static_cast<int>(at)));
  }
  const Tensor moved = permute(operand.tensor, order);
  return moved.shape() == shape ? moved : reshape(moved, shape);
}

// Sums over the labels that `kept` has not.
Operand summed(const Operand& operand, const Labels& kept) {
  Axes axes;
  Labels left;
  for (size_t i = 0; i < operand.labels.size(); ++i) {
    if (has(kept, operand.labels[i]))
      left.push_back(operand.labels[i]);
    else
      axes.push_back(static_cast<int>(i));
  }
  if (axes.empty()) return operand;
  return {to(sum(operand.tensor, axes), operand.tensor.dtype()), left};
}

int64_t product_of(const Shape& shape, size_t first, size_t count) {
  int64_t product = 1;
  for (size_t i = first; i < first + count; ++i) product *= shape[static_cast<int>(i)];
  return product;
}

// Two operands, of whose labels `kept` are needed later.
Operand contracted(Operand a, Operand b, const Labels& kept) {
  a = summed(a, kept + b.labels);
  b = summed(b, kept + a.labels);
  Labels batch, left, right, sum_labels;
  for (const char label : a.labels)
    (!has(b.labels, label) ? left : has(kept, label) ? batch : sum_labels).push_back(label);
  for (const char label : b.labels)
    if (!has(a.labels, label)) right.push_back(label);
  if (sum_labels.empty()) {  // elementwise
    const Labels all = batch + left + right;
    return {arranged(a, all) * arranged(b, all), all};
  }
  // Sizes of 1 broadcast; what is summed has one size in both.
  const auto common = [&](char label) {
    const int64_t size = a.tensor.size(static_cast<int>(a.labels.find(label)));
    return size == 1 ? b.tensor.size(static_cast<int>(b.labels.find(label))) : size;
  };
  Shape batch_shape;
  for (const char label : batch) batch_shape.push_back(common(label));
  const auto side = [&](const Operand& operand, const Labels& own, bool sum_last) {
    const Labels order = batch + (sum_last ? own + sum_labels : sum_labels + own);
    Tensor x = arranged(operand, order);
    Shape shape = x.shape();
    for (size_t i = 0; i < order.size(); ++i)
      if (has(batch, order[i]) || has(sum_labels, order[i]))
        shape[static_cast<int>(i)] = common(order[i]);
    x = expand(x, shape);
    const size_t first = sum_last ? own.size() : sum_labels.size();
    const size_t second = own.size() + sum_labels.size() - first;
    return reshape(x, {product_of(shape, 0, batch.size()), product_of(shape, batch.size(), first),
                       product_of(shape, batch.size() + first, second)});
  };
  const auto sizes_of = [&](const Operand& operand, const Labels& labels, Shape& shape) {
    for (const char label : labels)
      shape.push_back(operand.tensor.size(static_cast<int>(operand.labels.find(label))));
  };
  const Tensor product = matmul(side(a, left, true), side(b, right, false));
  Shape shape = batch_shape;
  sizes_of(a, left, shape);
  sizes_of(b, right, shape);
  return {reshape(product, shape), batch + left + right};
}

void check_sizes(const std::string& text, const std::vector<Operand>& operands) {
  std::map<char, int64_t> sizes;
  for (const Operand& operand : operands)
    for (size_t i = 0; i < operand.labels.size(); ++i) {
      const int64_t size = operand.tensor.size(static_cast<int>(i));
      int64_t& known = sizes.emplace(operand.labels[i], size).first->second;
      if (known == 1) known = size;
      check(size == 1 || size == known, kOp, ": '", operand.labels[i], "' of \"", text, "\" is ",
            known, " in one operand and ", size, " in ", Kind{operand.tensor});
    }
}

}  // namespace

Tensor einsum(const std::string& text, const std::vector<Tensor>& tensors) {
  check(!tensors.empty(), kOp, ": there must be an operand");
  for (const Tensor& tensor : tensors) {
    check_floating(kOp, "an operand", tensor);
    check_device(kOp, {tensors.front(), tensor});
    check_same_dtype(kOp, autocast(PrecisionClass::half, tensors.front()),
                     autocast(PrecisionClass::half, tensor));
  }
  const Equation equation(text, tensors);
  std::vector<Operand> operands;
  for (size_t i = 0; i < tensors.size(); ++i)
    operands.push_back({autocast(PrecisionClass::half, tensors[i]), equation.inputs[i]});
  for (auto& [tensor, labels] : operands)
    for (size_t i = 0; i < labels.size(); ++i)
      for (size_t twin; (twin = labels.find(labels[i], i + 1)) != Labels::npos;) {
        check(tensor.size(static_cast<int>(i)) == tensor.size(static_cast<int>(twin)), kOp, ": '",
              labels[i], "' names dimensions of different sizes of ", Kind{tensor});
        tensor = diagonal(tensor, static_cast<int>(i), static_cast<int>(twin));
        labels.erase(twin, 1);
      }
  check_sizes(text, operands);

  Operand result = operands.front();
  for (size_t next = 1; next < operands.size(); ++next) {
    Labels kept = equation.output;
    for (size_t later = next + 1; later < operands.size(); ++later) kept += operands[later].labels;
    result = contracted(result, operands[next], kept);
  }
  return arranged(summed(result, equation.output), equation.output);
}

}  // namespace binade
