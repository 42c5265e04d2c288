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

  // Without a weight: 1, and no gradient for it.
  const auto ones = [](const Values& x) {
    return fill({x.size(-1)}, [](const Index&) { return 1.0; });
  };
  table.add(
      "layer_norm", "no weight", {x},
      [](const TensorList& in) -> TensorList { return {layer_norm(in[0], {}, {}, kEps)}; },
      [=](const Lists& in) -> Lists { return {norm_of(in[0], ones(in[0]), nullptr, kEps, true)}; });
  table.add(
      "layer_norm", "a bias alone", {x, bias},
      [](const TensorList& in) -> TensorList { return {layer_norm(in[0], {}, in[1], kEps)}; },
      [=](const Lists& in) -> Lists { return {norm_of(in[0], ones(in[0]), &in[1], kEps, true)}; });
  table.add(
      "rms_norm", "no weight", {x},
      [](const TensorList& in) -> TensorList { return {rms_norm(in[0], {}, kEps)}; },
      [=](const Lists& in) -> Lists {
        return {norm_of(in[0], ones(in[0]), nullptr, kEps, false)};
      });
  table
      .add(
          "add_rms_norm", "no weight", {x, x},
          [](const TensorList& in) -> TensorList {
            const auto [sum, y] = add_rms_norm(in[0], in[1], {}, kEps);
            return {sum, y};
          },
          [=](const Lists& in) -> Lists {
            const Values sum = map(in[0], in[1], add);
            return {sum, norm_of(sum, ones(sum), nullptr, kEps, false)};
          })
      .rounded(2);

  const auto grouped = [](const Lists& in, int64_t groups, const Values* weight,
                          const Values* bias) {
    const Values& x = in[0];
    const int64_t together = x.size(1) / groups;
    return fill(x.shape, [&](const Index& at) {
      std::vector<double> values;
      for_each_index(x.shape, [&](const Index& other) {
        if (other[0] == at[0] && other[1] / together == at[1] / together)
          values.push_back(x(other));
      });
      const double count = static_cast<double>(values.size()), mean = total(values) / count;
      double square = 0;
      for (const double value : values) square += (value - mean) * (value - mean);
      const Index c = {at[1]};
      return (x(at) - mean) / std::sqrt(square / count + kEps) * (weight ? (*weight)(c) : 1) +
             (bias ? (*bias)(c) : 0);
    });
  };
  const Input channels = real({4}).as(Input::Dtype::statistics);
  for (const Shape& shape : {Shape{2, 4, 3}, Shape{3, 4, 2, 3}, Shape{3, 4}})
    for (const int64_t groups : {int64_t{1}, int64_t{2}}) {
      // Of two elements the gradient is what remains of terms that cancel.
      if (shape.numel() / shape[0] / groups <= 2) continue;
      table
          .add(
              "group_norm", concat(groups, " groups of ", shape), {real(shape), channels, channels},
              [=](const TensorList& in) -> TensorList {
                return {group_norm(in[0], groups, in[1], in[2], kEps)};
              },
              [=](const Lists& in) -> Lists { return {grouped(in, groups, &in[1], &in[2])}; })
          .rounded(3)
          .of_one_size();
      table
          .add(
              "group_norm", concat("no weight, ", groups, " groups of ", shape), {real(shape)},
              [=](const TensorList& in) -> TensorList {
                return {group_norm(in[0], groups, {}, {}, kEps)};
              },
              [=](const Lists& in) -> Lists { return {grouped(in, groups, nullptr, nullptr)}; })
          .of_one_size();
    }
  for (const bool weighted : {false, true}) {
    std::vector<Input> inputs = {real({2, 4, 2, 3})};
    if (weighted) inputs.insert(inputs.end(), {channels, channels});
    table
        .add(
            "instance_norm", weighted ? "weights" : "", inputs,
            [=](const TensorList& in) -> TensorList {
              return {weighted ? instance_norm(in[0], in[1], in[2], kEps)
                               : instance_norm(in[0], {}, {}, kEps)};
            },
            [=](const Lists& in) -> Lists {
              return {grouped(in, 4, weighted ? &in[1] : nullptr, weighted ? &in[2] : nullptr)};
            })
        .rounded(weighted ? 3 : 1)
        .of_one_size();
  }
}

}  // namespace binade::test
