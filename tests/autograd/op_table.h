// One row per exported op, or several where it has several faces: inputs, the call, and the same in
// plain f64. The harness (op_table_test.cpp) runs every row over dtypes and layouts, checks its
// gradients with finite differences, and compares devices. A whole row, for x·w by columns:
//
//   table.add(
//       "scale_columns", "distinct weights",              // the function; what this row is about
//       {real({3, 4}, -2, 2), distinct({4})},             // x in [-2, 2), w without equal values
//       [](const TensorList& in) -> TensorList {          // what is tested: its results
//         return {scale_columns(in[0], in[1])};
//       },
//       [](const Lists& in) -> Lists {                    // the formula, in plain f64
//         return {fill(in[0].shape, [&](const Index& at) { return in[0](at) * in[1]({at[1]}); })};
//       })
//       .rounded(2);   // halves round twice on the way to the result
//
// The op's gradient must have gradients of every order. One that has none says what to do instead:
// .differentiable_once("use …").
//
// docs/adding-an-op.md takes an op through all its files.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <binade/autograd/ops.h>

#include "reference.h"

namespace binade::test {

struct Input {
  enum class Dtype : uint8_t { row, statistics, f32, i64, i32, boolean };

  Shape shape;
  double low = -2, high = 2;
  // row: the dtype a row is run in; statistics: f32 (f64 in f64), as norm weights.
  Dtype dtype = Dtype::row;
  bool differentiable = true;
  bool distinct = false;            // no two values closer than 1/16, no two of one magnitude, no 0
  std::vector<double> values = {};  // given; otherwise random in [low, high)

  Input& fixed() {
    differentiable = false;
    return *this;
  }
  Input& as(Dtype type) {
    dtype = type;
    if (type != Dtype::row && type != Dtype::statistics) differentiable = false;
    return *this;
  }
};

inline Input real(const Shape& shape, double low = -2, double high = 2) {
  Input input;
  input.shape = shape;
  input.low = low;
  input.high = high;
  return input;
}
inline Input distinct(const Shape& shape) {
  Input input = real(shape);
  input.distinct = true;
  return input;
}
inline Input integers(const Shape& shape, std::vector<double> values,
                      Input::Dtype dtype = Input::Dtype::i64) {
  Input input = real(shape);
  input.values = std::move(values);
  return input.as(dtype);
}
inline Input mask(const Shape& shape, std::vector<double> values) {
  return integers(shape, std::move(values), Input::Dtype::boolean);
}

using Lists = std::vector<Values>;
using Call = std::function<TensorList(const TensorList&)>;
using Reference = std::function<Lists(const Lists&)>;

struct OpRow {
  std::string op;       // the exported function
  std::string variant;  // what this row adds
  std::vector<Input> inputs;
  Call call;
  Reference reference;

  int roundings = 1;           // to the storage dtype on the way to the result
  bool wide_result = false;    // f32 for half inputs (losses)
  bool differentiable = true;  // checked against finite differences, and so is its gradient,
  std::string once = {};       // unless the op has none for it and says so with these words,
  std::string once_when = {};  // where only some calls of the op have none: which
  bool half = true;            // runs in f16 and bf16
  bool repeats = true;         // values may repeat along dimension 0 (the expanded layout)
  bool one_size = false;       // the reference holds for the sizes of this row only

  std::string name() const { return variant.empty() ? op : op + " (" + variant + ")"; }
  OpRow& rounded(int times) {
    roundings = times;
    return *this;
  }
  OpRow& wide() {
    wide_result = true;
    return *this;
  }
  OpRow& constant() {
    differentiable = false;
    return *this;
  }
  OpRow& differentiable_once(std::string words, std::string when = {}) {
    once = std::move(words);
    once_when = std::move(when);
    return *this;
  }
  OpRow& no_half() {
    half = false;
    return *this;
  }
  OpRow& no_repeats() {
    repeats = false;
    return *this;
  }
  OpRow& of_one_size() {
    one_size = true;
    return *this;
  }
};

class OpTable {
 public:
  OpRow& add(std::string op, std::string variant, std::vector<Input> inputs, Call call,
             Reference reference) {
    OpRow row;
    row.op = std::move(op);
    row.variant = std::move(variant);
    row.inputs = std::move(inputs);
    row.call = std::move(call);
    row.reference = std::move(reference);
    rows_.push_back(std::move(row));
    return rows_.back();
  }
  const std::vector<OpRow>& rows() const { return rows_; }

 private:
  std::vector<OpRow> rows_;
};

// By family, each in its own file.
void add_elementwise_rows(OpTable& table);
void add_function_rows(OpTable& table);
void add_reduction_rows(OpTable& table);
void add_fold_rows(OpTable& table);
void add_shape_rows(OpTable& table);
void add_rearrangement_rows(OpTable& table);
void add_selection_rows(OpTable& table);
void add_matmul_rows(OpTable& table);
void add_einsum_rows(OpTable& table);
void add_norm_rows(OpTable& table);
void add_attention_rows(OpTable& table);
void add_image_rows(OpTable& table);
void add_conv_variant_rows(OpTable& table);
void add_pooling_rows(OpTable& table);
void add_loss_rows(OpTable& table);
void add_weighted_loss_rows(OpTable& table);
void add_recurrent_rows(OpTable& table);

}  // namespace binade::test
