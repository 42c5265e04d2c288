// The op harness: every row of the op table over dtypes, layouts and devices.
#include <algorithm>
#include <set>

#include <catch2/catch.hpp>

#include <binade/autograd/gradcheck.h>

#include "exported_ops.h"
#include "gpu.h"
#include "op_harness.h"
#include "op_layouts.h"

using namespace binade;
using namespace binade::test;

namespace {

// Backward twice, into buffers that held NaN: the gradient, and twice the gradient.
void check_bound_buffers(const OpRow& row) {
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

// The gradients of a tied row are those of the original, of which the tied ones are added up: taken
// in f64 on the CPU with a tensor for each place.
void check_tied_gradients(const OpRow& original, const TiedRow& tied, DType dtype, Device device) {
  const auto& [row, first, second] = tied;
  INFO(row.name() << ", " << dtype << " on " << device);
  const std::vector<Values> got = gradients_of(row, make_inputs(row, dtype, device));
  TensorList apart = in_f64(row, make_inputs(row, dtype));
  apart.insert(apart.begin() + static_cast<long>(second),
               Tensor(apart[first].array().clone(), true));
  std::vector<Values> expected;
  double share = 0;  // of the sum; two that cancel keep the rounding errors of each
  size_t next = 0;
  const std::vector<Values> gradients = gradients_of(original, apart);
  size_t at_first = 0;
  for (size_t i = 0; i < apart.size(); ++i) {
    if (!apart[i].requires_grad()) continue;
    const Values& gradient = gradients[next++];
    if (i == first || i == second) share = std::max(share, largest_magnitude(gradient.data));
    if (i == first) at_first = expected.size();
    if (i == second)
      expected[at_first] = map(expected[at_first], gradient, std::plus<>());
    else
      expected.push_back(gradient);
  }
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i)
    CHECK(difference(got[i].data, expected[i].data, dtype, 12, 12 * unit_roundoff(dtype) * share) ==
          "");
}

}  // namespace

TEST_CASE("every op equals its f64 reference in every dtype and layout", "[ops]") {
  const NoGrad off;
  for (const OpRow& row : op_rows())
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
  for (const OpRow& row : op_rows()) {
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

TEST_CASE("gradients in f32 and half types equal those in f64", "[ops]") {
  for (const OpRow& row : op_rows()) {
    if (!row.differentiable) continue;
    for (const DType dtype : dtypes_of(row)) {
      if (dtype == DType::f64) continue;
      INFO(row.name() << ", " << dtype);
      const TensorList inputs = make_inputs(row, dtype);
      std::vector<DType> dtypes;
      const std::vector<Values> got = gradients_of(row, inputs, &dtypes);
      const std::vector<Values> expected = gradients_of(row, in_f64(row, inputs));
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
  for (const OpRow& row : op_rows()) {
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
  for (const OpRow& row : op_rows())
    if (row.differentiable) check_bound_buffers(row);
}

TEST_CASE("one tensor in two places of an op gets both gradients", "[ops][gradcheck]") {
  size_t pairs = 0;
  for (const OpRow& original : op_rows())
    for (const auto& [row, first, second] : tied_rows(original)) {
      ++pairs;
      INFO(row.name());
      CHECK(gradcheck(row.call, make_inputs(row, DType::f64)) == "");
      const auto of_results = [&call = row.call](TensorList inputs) {
        for (Tensor& input : inputs)
          if (input.requires_grad()) input = input * 1.0;
        return call(inputs);
      };
      CHECK(gradcheck(of_results, make_inputs(row, DType::f64)) == "");
      check_bound_buffers(row);
    }
  CHECK(pairs > 60);  // they are still found
}

TEST_CASE("one tensor in two places gets the sum in f32 and half types", "[ops]") {
  for (const OpRow& original : op_rows())
    for (const TiedRow& tied : tied_rows(original))
      for (const DType dtype : dtypes_of(original))
        if (dtype != DType::f64) check_tied_gradients(original, tied, dtype, Device());
}

TEST_CASE("one tensor in two places gets the sum on the GPU", "[ops][cuda]") {
  require_gpu();
  for (const OpRow& original : op_rows())
    for (const TiedRow& tied : tied_rows(original))
      for (const DType dtype : dtypes_of(original))
        if (dtype != DType::f64) check_tied_gradients(original, tied, dtype, test_gpu());
}

TEST_CASE("every op on the GPU equals the CPU", "[ops][cuda]") {
  require_gpu();
  const Device gpu = test_gpu();
  for (const OpRow& row : op_rows())
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
  for (const OpRow& row : op_rows()) {
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
  for (const OpRow& row : op_rows()) known.insert(row.op);
  size_t found = 0;
  for (const auto& [family, ops] : exported_ops(BINADE_SOURCE_DIR))
    for (const std::string& op : ops) {
      ++found;
      INFO(op << " of ops/" << family << ".h");
      CHECK(known.count(op) == 1);
    }
  CHECK(found > 90);  // the declarations are still recognised
}
