#include "op_harness.h"

#include <algorithm>
#include <random>
#include <set>

namespace binade::test {

const std::vector<OpRow>& op_rows() {
  static const OpTable table = [] {
    OpTable all;
    add_elementwise_rows(all);
    add_function_rows(all);
    add_reduction_rows(all);
    add_fold_rows(all);
    add_shape_rows(all);
    add_rearrangement_rows(all);
    add_selection_rows(all);
    add_matmul_rows(all);
    add_einsum_rows(all);
    add_norm_rows(all);
    add_attention_rows(all);
    add_image_rows(all);
    add_conv_variant_rows(all);
    add_pooling_rows(all);
    add_loss_rows(all);
    add_weighted_loss_rows(all);
    add_recurrent_rows(all);
    return all;
  }();
  return table.rows();
}

// ---- inputs -------------------------------------------------------------------------------------

DType dtype_for(const Input& input, DType row) {
  switch (input.dtype) {
    case Input::Dtype::row:
      return row;
    case Input::Dtype::statistics:
      return row == DType::f64 ? DType::f64 : DType::f32;
    case Input::Dtype::f32:
      return DType::f32;
    case Input::Dtype::i64:
      return DType::i64;
    case Input::Dtype::i32:
      return DType::i32;
    default:
      return DType::boolean;
  }
}

std::vector<double> draw(const Input& input, uint32_t seed) {
  if (!input.values.empty()) return input.values;
  std::mt19937 random(seed);
  const auto count = static_cast<size_t>(input.shape.numel());
  std::vector<double> values(count);
  if (input.distinct) {
    for (size_t i = 0; i < count; ++i)
      values[i] = (static_cast<double>(i) - static_cast<double>(count) / 2) / 16 + 0x1p-6;
    std::shuffle(values.begin(), values.end(), random);
  } else {
    std::uniform_real_distribution<double> uniform(input.low, input.high);
    for (double& value : values) value = uniform(random);
  }
  return values;
}

TensorList make_inputs(const OpRow& row, DType dtype, Device device) {
  TensorList inputs;
  uint32_t seed = static_cast<uint32_t>(std::hash<std::string>()(row.name()));
  for (const Input& input : row.inputs) {
    const Array values =
        Array::from(draw(input, seed++), input.shape).to(dtype_for(input, dtype)).to(device);
    inputs.emplace_back(values, input.differentiable && row.differentiable);
  }
  return inputs;
}

std::vector<Values> values_of(const TensorList& tensors) {
  std::vector<Values> values;
  for (const Tensor& tensor : tensors)
    values.push_back({tensor.shape(), tensor.to_vector<double>()});
  return values;
}

// ---- comparison ---------------------------------------------------------------------------------

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 0x1p-53;
    case DType::f32:
      return 0x1p-24;
    case DType::f16:
      return 0x1p-11;
    case DType::bf16:
      return 0x1p-8;
    default:
      return 0;  // integers and bools are exact
  }
}

double largest_magnitude(const std::vector<double>& values) {
  double largest = 0;
  for (double value : values)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  return largest;
}

std::string difference(const std::vector<double>& got, const std::vector<double>& expected,
                       DType storage, int roundings, double absolute) {
  if (got.size() != expected.size())
    return concat(got.size(), " elements, expected ", expected.size());
  const double unit = unit_roundoff(storage);
  const double compute = storage == DType::f64 ? 0x1p-53 : unit > 0 ? 0x1p-24 : 0;
  const double largest = largest_magnitude(expected);
  for (size_t i = 0; i < got.size(); ++i) {
    if (got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i]))) continue;
    const double magnitude = roundings > 1 ? largest : std::abs(expected[i]);
    const double allowed = roundings * unit * magnitude + 64 * compute * largest + absolute;
    if (!(std::abs(got[i] - expected[i]) <= allowed))
      return concat("element ", i, " is ", got[i], ", expected ", expected[i], " ± ", allowed);
  }
  return "";
}

std::vector<DType> dtypes_of(const OpRow& row) {
  std::vector<DType> dtypes = {DType::f64, DType::f32};
  if (row.half) dtypes.insert(dtypes.end(), {DType::f16, DType::bf16});
  return dtypes;
}

std::vector<Values> gradients_of(const OpRow& row, const TensorList& inputs,
                                 std::vector<DType>* dtypes) {
  TensorList outputs, wanted, seeds;
  for (const Tensor& output : row.call(inputs)) {
    if (!output.requires_grad()) continue;
    Input seed = real(output.shape(), 0.5, 1.5);
    outputs.push_back(output);
    seeds.emplace_back(
        Array::from(draw(seed, 99), output.shape()).to(output.dtype()).to(output.device()));
  }
  for (const Tensor& input : inputs)
    if (input.requires_grad()) wanted.push_back(input);
  std::vector<Values> gradients;
  const TensorList found = grad(outputs, wanted, seeds);
  for (size_t i = 0; i < found.size(); ++i) {
    const Tensor& like = wanted[i];  // not reached: a gradient of zero
    const Tensor gradient =
        found[i].defined() ? found[i] : Tensor::zeros(like.shape(), like.dtype());
    gradients.push_back({gradient.shape(), gradient.to_vector<double>()});
    if (dtypes) dtypes->push_back(gradient.dtype());
  }
  return gradients;
}

TensorList in_f64(const OpRow& row, const TensorList& inputs) {
  TensorList exact;
  for (size_t i = 0; i < inputs.size(); ++i)
    exact.emplace_back(inputs[i].array().to(dtype_for(row.inputs[i], DType::f64)),
                       inputs[i].requires_grad());
  return exact;
}

// ---- rows made from others ----------------------------------------------------------------------

namespace {

// `list` with the element at `from` also at `to`, which lies behind it.
template <class T>
std::vector<T> with_twin(std::vector<T> list, size_t from, size_t to) {
  const T twin = list[from];
  list.insert(list.begin() + static_cast<long>(to), twin);
  return list;
}

OpRow tied(const OpRow& row, size_t from, size_t to) {
  OpRow result = row;
  result.variant =
      concat(row.variant, row.variant.empty() ? "" : ", ", "input ", from, " also as input ", to);
  Input& input = result.inputs[from];
  const Input& other = row.inputs[to];
  const double low = std::max(input.low, other.low), high = std::min(input.high, other.high);
  input.low = low < high ? low : other.low;
  input.high = low < high ? high : other.high;
  result.inputs.erase(result.inputs.begin() + static_cast<long>(to));
  result.call = [=, call = row.call](const TensorList& in) {
    return call(with_twin(in, from, to));
  };
  result.reference = [=, reference = row.reference](const std::vector<Values>& in) {
    return reference(with_twin(in, from, to));
  };
  return result;
}

OpRow resized(const OpRow& row, const std::vector<Shape>& shapes, const std::string& what) {
  OpRow result = row;
  result.variant = concat(row.variant, row.variant.empty() ? "" : ", ", what);
  for (size_t i = 0; i < shapes.size(); ++i) {
    result.inputs[i].shape = shapes[i];
    if (shapes[i].numel() == 0) result.inputs[i].values.clear();
  }
  return result;
}

}  // namespace

std::vector<TiedRow> tied_rows(const OpRow& row) {
  std::vector<TiedRow> result;
  if (!row.differentiable) return result;
  for (size_t to = 0; to < row.inputs.size(); ++to)
    for (size_t from = 0; from < to; ++from) {
      const Input &a = row.inputs[from], &b = row.inputs[to];
      if (a.differentiable && b.differentiable && a.shape == b.shape && a.dtype == b.dtype)
        result.push_back({tied(row, from, to), from, to});
    }
  return result;
}

std::vector<OpRow> rows_with_zero_sizes(const OpRow& row) {
  std::vector<Shape> shapes;
  std::set<int64_t> sizes;
  for (const Input& input : row.inputs) {
    shapes.push_back(input.shape);
    for (const int64_t size : input.shape)
      if (size > 0) sizes.insert(size);
  }
  std::vector<OpRow> result;
  std::vector<std::vector<Shape>> made = {shapes};
  const auto add = [&](const std::vector<Shape>& changed, const std::string& what) {
    if (std::find(made.begin(), made.end(), changed) != made.end()) return;
    made.push_back(changed);
    result.push_back(resized(row, changed, what));
  };
  for (const int64_t size : sizes) {
    std::vector<Shape> changed = shapes;
    for (Shape& shape : changed)
      for (int d = 0; d < shape.dims(); ++d)
        if (shape[d] == size) shape[d] = 0;
    add(changed, concat("0 for ", size));
  }
  for (size_t i = 0; i < shapes.size(); ++i)
    for (int d = 0; d < shapes[i].dims(); ++d) {
      std::vector<Shape> changed = shapes;
      changed[i][d] = 0;
      add(changed, concat("dimension ", d, " of input ", i, " 0"));
    }
  return result;
}

}  // namespace binade::test
