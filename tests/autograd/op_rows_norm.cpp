// Norms.
#include "op_table.h"

namespace binade::test {

namespace {

Values norm_of(const Values& x, const Values& weight, const Values* bias, double eps,
               bool subtract_mean) {
  return fill(x.shape, [&](const Index& at) {
    const std::vector<double> line = row(x, but_last(at));
    const double count = static_cast<double>(line.size());
    const double mean = subtract_mean ? total(line) / count : 0;
    double square = 0;
    for (double value : line) square += (value - mean) * (value - mean);
    const double y = (x(at) - mean) / std::sqrt(square / count + eps) * weight({at.back()});
    return bias ? y + (*bias)({at.back()}) : y;
  });
}

}  // namespace

void add_norm_rows(OpTable& table) {
  constexpr double kEps = 0x1p-10;  // a float, so that f64 agrees to the last digits
  const Input x = real({2, 3, 8});
  const Input weight = real({8}).as(Input::Dtype::statistics), bias = weight;
  table.add(
      "layer_norm", "f32 weights", {x, weight, bias},
      [](const TensorList& in) -> TensorList { return {layer_norm(in[0], in[1], in[2], kEps)}; },
      [](const Lists& in) -> Lists { return {norm_of(in[0], in[1], &in[2], kEps, true)}; });
  table.add(
      "layer_norm", "no bias", {x, real({8})},
      [](const TensorList& in) -> TensorList { return {layer_norm(in[0], in[1], {}, kEps)}; },
      [](const Lists& in) -> Lists { return {norm_of(in[0], in[1], nullptr, kEps, true)}; });
  table.add(
      "rms_norm", "", {x, weight},
      [](const TensorList& in) -> TensorList { return {rms_norm(in[0], in[1], kEps)}; },
      [](const Lists& in) -> Lists { return {norm_of(in[0], in[1], nullptr, kEps, false)}; });
  const auto add = [](double a, double b) { return a + b; };
  table
      .add(
          "add_layer_norm", "", {x, x, weight, bias},
          [](const TensorList& in) -> TensorList {
            const auto [sum, y] = add_layer_norm(in[0], in[1], in[2], in[3], kEps);
            return {sum, y};
          },
          [=](const Lists& in) -> Lists {
            const Values sum = map(in[0], in[1], add);
            return {sum, norm_of(sum, in[2], &in[3], kEps, true)};
          })
      .rounded(4);  // the sum is rounded before the norm divides by its deviation
  table
      .add(
          "add_rms_norm", "", {x, x, weight},
          [](const TensorList& in) -> TensorList {
            const auto [sum, y] = add_rms_norm(in[0], in[1], in[2], kEps);
            return {sum, y};
          },
          [=](const Lists& in) -> Lists {
            const Values sum = map(in[0], in[1], add);
            return {sum, norm_of(sum, in[2], nullptr, kEps, false)};
          })
      .rounded(4);
  for (const bool second : {false, true})
    table
        .add(
            "add_rms_norm", second ? "only the norm used" : "only the sum used", {x, x, weight},
            [second](const TensorList& in) -> TensorList {
              const auto [sum, y] = add_rms_norm(in[0], in[1], in[2], kEps);
              return {second ? y : sum};
            },
            [=](const Lists& in) -> Lists {
              const Values sum = map(in[0], in[1], add);
              return {second ? norm_of(sum, in[2], nullptr, kEps, false) : sum};
            })
        .rounded(4);
}

}  // namespace binade::test
