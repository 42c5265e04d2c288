// The op harness: every row of the op table over dtypes, layouts and devices.
#include <algorithm>
#include <fstream>
#include <random>
#include <regex>
#include <set>

#include <catch2/catch.hpp>

#include <binade/autograd/gradcheck.h>

#include "gpu.h"
#include "op_table.h"

using namespace binade;
using namespace binade::test;

namespace {

const std::vector<OpRow>& rows() {
  static const OpTable table = [] {
    OpTable all;
    add_elementwise_rows(all);
    add_reduction_rows(all);
    add_shape_rows(all);
    add_network_rows(all);
    add_loss_rows(all);
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
      values[i] = (static_cast<double>(i) - static_cast<double>(count) / 2) / 16;
    std::shuffle(values.begin(), values.end(), random);
  } else {
    std::uniform_real_distribution<double> uniform(input.low, input.high);
    for (double& value : values) value = uniform(random);
  }
  return values;
}

enum class Layout : uint8_t { contiguous, transposed, strided, expanded };
const std::pair<Layout, const char*> kLayouts[] = {{Layout::contiguous, "contiguous"},
                                                   {Layout::transposed, "transposed"},
                                                   {Layout::strided, "strided"},
                                                   {Layout::expanded, "expanded"}};

// The values of x (in `expanded`: of its first entry along dimension 0) in another layout, on the
// tape where x is.
Tensor arranged(const Tensor& x, Layout layout) {
  const int dims = x.dims();
  if (dims == 0) return x;
  switch (layout) {
    case Layout::transposed:
      if (dims > 1) return transpose(clone(transpose(x, -1, -2)), -1, -2);
      [[fallthrough]];
    case Layout::strided:
      return select(stack({x, x}, dims), -1, 1);
    case Layout::expanded:
      return x.size(0) > 1 ? expand(slice(x, 0, 0, 1), x.shape()) : x;
    default:
      return x;
  }
}

TensorList make_inputs(const OpRow& row, DType dtype, Device device = {}) {
  TensorList inputs;
  uint32_t seed = static_cast<uint32_t>(std::hash<std::string>()(row.name()));
  for (const Input& input : row.inputs) {
    const Array values =
        Array::from(draw(input, seed++), input.shape).to(dtype_for(input, dtype)).to(device);
    inputs.emplace_back(values, input.differentiable && row.differentiable);
  }
  return inputs;
}

TensorList arrange_all(const OpRow& row, const TensorList& inputs, Layout layout) {
  TensorList arranged_inputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool given = !row.inputs[i].values.empty();  // indices that must not repeat
    arranged_inputs.push_back(
        arranged(inputs[i], given && layout == Layout::expanded ? Layout::contiguous : layout));
  }
  return arranged_inputs;
}

std::vector<Values> values_of(const TensorList& tensors) {
  std::vector<Values> values;
  for (const Tensor& tensor : tensors)
    values.push_back({tensor.shape(), tensor.to_vector<double>()});
  return values;
}

// ---- comparison ---------------------------------------------------------------------------------

// Half an ulp at 1.
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

// Empty, or the first element that differs by more than `roundings` to the storage dtype and the
// error of f32 (f64) arithmetic allow, or by `absolute` beyond that.
std::string difference(const std::vector<double>& got, const std::vector<double>& expected,
                       DType storage, int roundings, double absolute = 0) {
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

// Gradients of the floating inputs for a fixed seed on every output that has a gradient.
std::vector<Values> gradients_of(const OpRow& row, const TensorList& inputs,
                                 std::vector<DType>* dtypes = nullptr) {
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

}  // namespace

TEST_CASE("every op equals its f64 reference in every dtype and layout", "[ops]") {
  const NoGrad off;
  for (const OpRow& row : rows())
    for (const DType dtype : dtypes_of(row))
      for (const auto& [layout, layout_name] : kLayouts) {
        if (layout == Layout::expanded && !row.repeats) continue;
        INFO(row.name() << ", " << dtype << ", " << layout_name);
        const TensorList inputs = arrange_all(row, make_inputs(row, dtype), layout);
        const std::vector<Values> expected = row.reference(values_of(inputs));
        const TensorList outputs = row.call(inputs);
        REQUIRE(outputs.size() == expected.size());
        for (size_t i = 0; i < outputs.size(); ++i) {
          INFO("output " << i);
          CHECK(outputs[i].shape() == expected[i].shape);
          if (row.wide_result && dtype != DType::f64) CHECK(outputs[i].dtype() == DType::f32);
          CHECK(difference(outputs[i].to_vector<double>(), expected[i].data, outputs[i].dtype(),
                           row.roundings) == "");
        }
      }
}

TEST_CASE("every op's gradient equals finite differences", "[ops][gradcheck]") {
  for (const OpRow& row : rows()) {
    if (!row.differentiable) continue;
    for (const auto& [layout, layout_name] : kLayouts) {
      if (layout == Layout::expanded && !row.repeats) continue;
      INFO(row.name() << ", " << layout_name);
      const auto function = [&row, layout = layout](const TensorList& inputs) {
        return row.call(arrange_all(row, inputs, layout));
      };
      CHECK(gradcheck(function, make_inputs(row, DType::f64)) == "");
    }
  }
}

TEST_CASE("gradients written in public ops are differentiable again", "[ops][gradcheck]") {
  for (const OpRow& row : rows()) {
    if (!row.differentiable || !row.twice) continue;
    INFO(row.name());
    CHECK(gradgradcheck(row.call, make_inputs(row, DType::f64)) == "");
  }
}

TEST_CASE("gradients in f32 and half types equal those in f64", "[ops]") {
  for (const OpRow& row : rows()) {
    if (!row.differentiable) continue;
    for (const DType dtype : dtypes_of(row)) {
      if (dtype == DType::f64) continue;
      INFO(row.name() << ", " << dtype);
      const TensorList inputs = make_inputs(row, dtype);
      TensorList exact;  // the same values
      for (size_t i = 0; i < inputs.size(); ++i)
        exact.emplace_back(inputs[i].array().to(dtype_for(row.inputs[i], DType::f64)),
                           inputs[i].requires_grad());
      std::vector<DType> dtypes;
      const std::vector<Values> got = gradients_of(row, inputs, &dtypes);
      const std::vector<Values> expected = gradients_of(row, exact);
      size_t i = 0;
      for (const Tensor& input : inputs) {
        if (!input.requires_grad()) continue;
        INFO("gradient " << i);
        CHECK(dtypes[i] == input.dtype());
        CHECK(got[i].shape == input.shape());
        // Values kept for backward and the incoming gradient were rounded to the row's dtype.
        const std::string found = difference(got[i].data, expected[i].data, dtype, 12);
        CHECK(found == "");
        ++i;
      }
    }
  }
}

TEST_CASE("ops leave the gradients of constant inputs undone", "[ops]") {
  for (const OpRow& row : rows()) {
    if (!row.differentiable) continue;
    INFO(row.name());
    for (size_t chosen = 0; chosen < row.inputs.size(); ++chosen) {
      if (!row.inputs[chosen].differentiable) continue;
      TensorList inputs = make_inputs(row, DType::f64);
      const std::vector<Values> all = gradients_of(row, inputs);
      size_t position = 0;
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (i < chosen && inputs[i].requires_grad()) ++position;
        if (i != chosen) inputs[i].set_requires_grad(false);
      }
      const std::vector<Values> alone = gradients_of(row, inputs);
      REQUIRE(alone.size() == 1);
      CHECK(difference(alone[0].data, all[position].data, DType::f64, 1) == "");
    }
  }
}

TEST_CASE("gradients overwrite a bound buffer first and add to it then", "[ops]") {
  for (const OpRow& row : rows()) {
    if (!row.differentiable) continue;
    INFO(row.name());
    const TensorList inputs = make_inputs(row, DType::f64);
    std::vector<Values> once;
    for (int pass = 0; pass < 2; ++pass) {
      Tensor total;
      for (const Tensor& output : row.call(inputs)) {
        if (!output.requires_grad()) continue;
        const Tensor weighted = sum(square(output));
        total = total.defined() ? total + weighted : weighted;
      }
      for (const Tensor& input : inputs)
        if (pass == 0 && input.requires_grad())
          input.bind_grad(Array::full(input.shape(), NAN, DType::f64));
      total.backward();
      size_t i = 0;
      for (const Tensor& input : inputs) {
        if (!input.requires_grad() || !input.grad().defined()) continue;
        Values gradient{input.shape(), input.grad().to_vector<double>()};
        if (pass == 0) {
          once.push_back(std::move(gradient));
        } else {
          for (double& value : once[i].data) value *= 2;
          CHECK(difference(gradient.data, once[i].data, DType::f64, 2) == "");
        }
        ++i;
      }
    }
    for (const Values& gradient : once)
      CHECK(std::none_of(gradient.data.begin(), gradient.data.end(),
                         [](double value) { return std::isnan(value); }));
  }
}

TEST_CASE("every op on the GPU equals the CPU", "[ops][cuda]") {
  require_gpu();
  const Device gpu = test_gpu();
  for (const OpRow& row : rows())
    for (const DType dtype : dtypes_of(row)) {
      if (dtype == DType::f64) continue;  // the CPU's, for gradient checks
      for (const auto& [layout, layout_name] : kLayouts) {
        if (layout == Layout::expanded && !row.repeats) continue;
        INFO(row.name() << ", " << dtype << ", " << layout_name);
        const NoGrad off;
        const TensorList outputs = row.call(arrange_all(row, make_inputs(row, dtype, gpu), layout));
        const TensorList expected = row.call(arrange_all(row, make_inputs(row, dtype), layout));
        REQUIRE(outputs.size() == expected.size());
        // cuBLASLt's GELU epilogue approximates tanh; its arguments here are of order one.
        const double absolute = row.name().rfind("gelu_mlp", 0) == 0 ? 1e-5 : 0;
        for (size_t i = 0; i < outputs.size(); ++i) {
          CHECK(outputs[i].device() == gpu);
          CHECK(outputs[i].dtype() == expected[i].dtype());
          CHECK(difference(outputs[i].to_vector<double>(), expected[i].to_vector<double>(),
                           outputs[i].dtype(), 2 * row.roundings, absolute) == "");
        }
      }
      if (!row.differentiable) continue;
      INFO(row.name() << ", " << dtype << ", gradients");
      const std::vector<Values> got = gradients_of(row, make_inputs(row, dtype, gpu));
      const std::vector<Values> expected = gradients_of(row, make_inputs(row, dtype));
      for (size_t i = 0; i < got.size(); ++i)
        CHECK(difference(got[i].data, expected[i].data, dtype, 12) == "");
    }
}

// Where there is no second device, arrays in host memory that claim to be on one: an op must look
// at the devices before it looks at the values. A row that works on its inputs before it calls its
// op may then find the device missing first.
TEST_CASE("every op refuses inputs on different devices, and on different GPUs", "[ops][errors]") {
  const int gpus = cuda_device_count();
  const auto put = [&](const Tensor& x, Device device) {
    if (gpus > 0) return Tensor(x.array().to(device));
    return Tensor(
        Array::from_blob(x.array().data(), x.shape(), x.dtype(), device, x.array().storage()));
  };
  std::vector<std::pair<Device, Device>> pairs = {{Device::cpu(), Device::cuda()}};
  if (gpus != 1) pairs.emplace_back(Device::cuda(0), Device::cuda(1));
  const std::string missing = gpus > 0     ? "different devices"
                              : kCudaBuilt ? cuda_unavailable_reason()
                                           : "has no CUDA kernels";
  for (const OpRow& row : rows()) {
    if (row.inputs.size() < 2) continue;
    const TensorList host = make_inputs(row, DType::f32);
    for (size_t i = 0; i < host.size(); ++i) {
      for (const auto& [others, one] : pairs) {
        INFO(row.name() << ", input " << i << " on " << one << ", the others on " << others);
        TensorList inputs;
        for (size_t k = 0; k < host.size(); ++k)
          inputs.push_back(put(host[k], k == i ? one : others));
        CHECK_THROWS_WITH(row.call(inputs), Catch::Contains("different devices") ||
                                                Catch::Contains("one device") ||
                                                Catch::Contains(missing));
      }
    }
  }
}

TEST_CASE("every exported op has a row", "[ops]") {
  std::set<std::string> known;
  for (const OpRow& row : rows()) known.insert(row.op);
  const std::regex declaration(
      R"(^(?:Tensor|std::pair<Tensor, Tensor>|std::vector<Tensor>) (operator\S|\w+)\()");
  size_t found = 0;
  for (const char* family : {"activation", "arithmetic", "attention", "conv", "indexing", "linear",
                             "loss", "matmul", "norm", "reduce", "shape"}) {
    std::ifstream header(concat(BINADE_SOURCE_DIR "/autograd/ops/", family, ".h"));
    REQUIRE(header);
    for (std::string line; std::getline(header, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, declaration)) continue;
      ++found;
      INFO(match[1] << " of ops/" << family << ".h");
      CHECK(known.count(match[1]) == 1);
    }
  }
  CHECK(found > 90);  // the declarations are still recognised
}
