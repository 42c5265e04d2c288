// What the tests over the op table share: the rows, their inputs in a dtype and on a device, how
// two results are compared, and rows made from others.
#pragma once

#include <string>
#include <vector>

#include "op_table.h"

namespace binade::test {

// Every row of the table.
const std::vector<OpRow>& op_rows();
// A row with one tensor as input `first` and as input `second` of another, which it has once.
struct TiedRow {
  OpRow row;
  size_t first, second;
};
// For every two differentiable inputs of a row that have one shape and dtype. The range of random
// values is that of both, or of the second where they have none in common.
std::vector<TiedRow> tied_rows(const OpRow& row);
// The row with sizes 0: of every size n that its inputs have, all that are n; and every dimension
// of every input alone, which an op may refuse.
std::vector<OpRow> rows_with_zero_sizes(const OpRow& row);

// f64, f32 and, where the row runs in them, the half types.
std::vector<DType> dtypes_of(const OpRow& row);
DType dtype_for(const Input& input, DType row);
std::vector<double> draw(const Input& input, uint32_t seed);
// Leaves that require a gradient where the row has one for them; the same values in every dtype.
TensorList make_inputs(const OpRow& row, DType dtype, Device device = {});
std::vector<Values> values_of(const TensorList& tensors);
// The same values as f64 leaves (statistics too); what has another dtype stays.
TensorList in_f64(const OpRow& row, const TensorList& inputs);

// Half an ulp at 1; 0 for integers and bools, which are exact.
double unit_roundoff(DType dtype);
double largest_magnitude(const std::vector<double>& values);
// Empty, or the first element that differs by more than `roundings` to the storage dtype and the
// error of f32 (f64) arithmetic allow, or by `absolute` beyond that.
std::string difference(const std::vector<double>& got, const std::vector<double>& expected,
                       DType storage, int roundings, double absolute = 0);
// Gradients of the inputs that require one, for a fixed seed on every output that has a gradient;
// zeros where none arrives.
std::vector<Values> gradients_of(const OpRow& row, const TensorList& inputs,
                                 std::vector<DType>* dtypes = nullptr);

}  // namespace binade::test
