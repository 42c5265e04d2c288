// Tensors from numbers in the source, counts and chance. All are leaves without a gradient;
// set_requires_grad(true) makes one that has.
//
// Random ones draw from RandomState (Philox): set_seed() or begin_step() before them makes them the
// same on every device and in every run.
#pragma once

#include <initializer_list>

#include <binade/autograd/tensor.h>

namespace binade {

// tensor({1, 2, 3}) is a vector, tensor({{1, 2}, {3, 4}}) a matrix with these rows; Error unless
// they are equally long. Values are rounded to the dtype. A column is unsqueeze(tensor({1, 2}), 1):
// C++ cannot tell whether {{1}, {2}} is a vector.
Tensor tensor(std::initializer_list<double> values, DType dtype = DType::f32, Device device = {});
Tensor tensor(std::initializer_list<std::initializer_list<double>> rows, DType dtype = DType::f32,
              Device device = {});

// 0, 1, …, n − 1.
Tensor arange(int64_t n, DType dtype = DType::i64, Device device = {});
// start, start + step, … before `end`: ⌈(end − start) / step⌉ numbers, computed in f64 and rounded
// to the dtype. Error for a step of 0 or away from `end`, and for fractions in an integer dtype.
Tensor arange(double start, double end, double step = 1, DType dtype = DType::i64,
              Device device = {});
// `count` numbers at even distances from start to end, both included; one is start. Floating
// dtypes.
Tensor linspace(double start, double end, int64_t count, DType dtype = DType::f32,
                Device device = {});
// (rows, columns): 1 on the diagonal, 0 elsewhere. Any dtype.
Tensor eye(int64_t rows, int64_t columns, DType dtype = DType::f32, Device device = {});
Tensor eye(int64_t n, DType dtype = DType::f32, Device device = {});  // (n, n)

// Standard normals, and uniforms in [0, 1), f32.
Tensor randn(const Shape& shape, Device device = {});
Tensor rand(const Shape& shape, Device device = {});
// Whole numbers (i64) in [low, high), each as likely within 2^-24 · (high − low); Error unless
// there are 1 to 2^24 of them.
Tensor randint(int64_t low, int64_t high, const Shape& shape, Device device = {});
// 0, 1, …, n − 1 in random order (i64): what index_select() takes to shuffle rows.
Tensor randperm(int64_t n, Device device = {});

}  // namespace binade
