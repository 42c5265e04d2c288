// Layer norm and RMS norm, a row at a time: a row stays in the first-level cache between the passes
// over it. RMS norm is layer norm with the mean taken as 0.
#include <binade/core/kernels/norm.h>

#include <cmath>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/reduce.h>

namespace binade::kernels::cpu {
namespace {

template <class C>
std::vector<C> to_vector(const Array& array, int64_t size, C otherwise) {
  std::vector<C> values(static_cast<size_t>(size), otherwise);
  if (!array.defined()) return values;
  RowReader<C> reader;
  const C* elements = reader.read(static_cast<const std::byte*>(array.data()),
                                  array.stride(0) * size_of(array.dtype()), array.dtype(), size);
  std::copy_n(elements, size, values.begin());
  return values;
}

// y = norm of x, or of sum = x + residual where a residual is given.
template <class C>
void forward(const Array& x, const Array& residual, const Array& sum, const Array& weight,
             const Array& bias, double eps, const Array& y, const Array& mean, const Array& rstd) {
  const int64_t rows = x.size(0), width = x.size(1);
  const bool centered = mean.defined(), add = residual.defined();
  const std::vector<C> weights = to_vector<C>(weight, width, 1),
                       biases = to_vector<C>(bias, width, 0);
  const C *w = weights.data(), *b = biases.data();
  C* means = centered ? mean.data<C>() : nullptr;
  C* rstds = rstd.data<C>();
  const Rows x_rows(x), y_rows(y), residual_rows(add ? residual : x), sum_rows(add ? sum : x);

  parallel_for(rows, row_grain(width), [&](int64_t begin, int64_t end) {
    RowReader<C> x_reader, residual_reader;
    RowWriter<C> sum_writer, y_writer;
    for (int64_t row = begin; row < end; ++row) {
      const C* in = x_reader.read(x_rows[row], x.dtype(), width);
      if (add) {
        const C* other = residual_reader.read(residual_rows[row], residual.dtype(), width);
        C* total = sum_writer.target(sum_rows[row], sum.dtype(), width);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) total[i] = in[i] + other[i];
        sum_writer.store();
        in = x_reader.read(sum_rows[row], sum.dtype(), width);  // as rounded
      }
      const C count = static_cast<C>(width);
      // What the sum's rounding left of the deviations is taken out of the mean: in a constant row
      // 1/√eps would make something of it.
      C mu = 0;
      if (centered) {
        mu = sum_of<C>(width, [=](int64_t i) { return in[i]; }) / count;
        mu += sum_of<C>(width, [=](int64_t i) { return in[i] - mu; }) / count;
      }
      const C variance =
          sum_of<C>(width, [=](int64_t i) { return (in[i] - mu) * (in[i] - mu); }) / count;
      const C r = 1 / std::sqrt(variance + static_cast<C>(eps));
      if (centered) means[row] = mu;
      rstds[row] = r;
      C* out = y_writer.target(y_rows[row], y.dtype(), width);
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) out[i] = (in[i] - mu) * r * w[i] + b[i];
      y_writer.store();
    }
  });
}

// target = beta·target + column sums of partial sums (chunks, 2, width), of the first or second
// half.
template <class C>
void store_column_sums(const std::vector<C>& partials, int64_t width, int64_t half,
                       const Array& target, float beta) {
  if (!target.defined() || width == 0) return;
  const int64_t chunks = static_cast<int64_t>(partials.size()) / (2 * width);
  std::vector<double> sums(static_cast<size_t>(width));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const C* row = partials.data() + (2 * chunk + half) * width;
    for (int64_t i = 0; i < width; ++i) sums[i] += static_cast<double>(row[i]);
  }
  const Array result = Array::from_blob(sums.data(), {width}, DType::f64);
  if (beta == 0)
    map<double>([](double value) { return value; }, target, result);
  else
    map<double>([](double old, double value) { return old + value; }, target, target, result);
}

template <class C>
void backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
              const Array& rstd, const Array& dx, float dx_beta, const Array& dweight,
              float dweight_beta, const Array& dbias, float dbias_beta) {
  const int64_t rows = x.size(0), width = x.size(1);
  const bool centered = mean.defined();
  const std::vector<C> weights = to_vector<C>(weight, width, 1);
  const C* w = weights.data();
  const C* means = centered ? mean.data<C>() : nullptr;
  const C* rstds = rstd.data<C>();
  const bool want_dx = dx.defined(), want_sums = dweight.defined() || dbias.defined();
  const Rows x_rows(x), dy_rows(dy), dx_rows(want_dx ? dx : x);

  // Column sums in two stages: chunks of rows, then over the chunks.
  const int64_t chunk_rows = std::clamp<int64_t>(row_grain(width), 4, 64);
  const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  std::vector<C> partials(want_sums ? static_cast<size_t>(chunks * 2 * width) : 0);

  parallel_tasks(chunks, [&](int64_t chunk) {
    RowReader<C> x_reader, dy_reader, dx_reader;
    RowWriter<C> dx_writer;
    C* dw = want_sums ? partials.data() + chunk * 2 * width : nullptr;
    C* db = want_sums ? dw + width : nullptr;
    for (int64_t row = chunk * chunk_rows; row < std::min(rows, (chunk + 1) * chunk_rows); ++row) {
      const C* in = x_reader.read(x_rows[row], x.dtype(), width);
      const C* d = dy_reader.read(dy_rows[row], dy.dtype(), width);
      const C mu = centered ? means[row] : C{0}, r = rstds[row];
      if (want_sums) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          dw[i] += d[i] * ((in[i] - mu) * r);
          db[i] += d[i];
        }
      }
      if (!want_dx) continue;
      const C count = static_cast<C>(width);
      const C mean_g =
          centered ? sum_of<C>(width, [=](int64_t i) { return d[i] * w[i]; }) / count : C{0};
      const C mean_gx =
          sum_of<C>(width, [=](int64_t i) { return d[i] * w[i] * ((in[i] - mu) * r); }) / count;
      const C* old = dx_beta == 0 ? nullptr : dx_reader.read(dx_rows[row], dx.dtype(), width);
      C* out = dx_writer.target(dx_rows[row], dx.dtype(), width);
      const auto gradient = [=](int64_t i) {
        return r * (d[i] * w[i] - mean_g - (in[i] - mu) * r * mean_gx);
      };
      if (dx_beta == 0) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) out[i] = gradient(i);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) out[i] = old[i] + gradient(i);
      }
      dx_writer.store();
    }
  });
  store_column_sums(partials, width, 0, dweight, dweight_beta);
  store_column_sums(partials, width, 1, dbias, dbias_beta);
}

}  // namespace

void layer_norm(const Array& x, const Array& weight, const Array& bias, double eps, const Array& y,
                const Array& mean, const Array& rstd) {
  visit_real(x.dtype(), "layer_norm", [&](auto zero) {
    forward<decltype(zero)>(x, {}, {}, weight, bias, eps, y, mean, rstd);
  });
}

void layer_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& mean,
                         const Array& rstd, const Array& dx, float dx_beta, const Array& dweight,
                         float dweight_beta, const Array& dbias, float dbias_beta,
                         const Array& dx_sums) {
  visit_real(x.dtype(), "layer_norm_backward", [&](auto zero) {
    backward<decltype(zero)>(dy, x, weight, mean, rstd, dx, dx_beta, dweight, dweight_beta, dbias,
                             dbias_beta);
  });
  if (dx_sums.defined()) reduce(ReduceOp::sum, dx, dx_sums.unsqueeze(0), 0);
}

void rms_norm(const Array& x, const Array& weight, double eps, const Array& y, const Array& rstd) {
  visit_real(x.dtype(), "rms_norm",
             [&](auto zero) { forward<decltype(zero)>(x, {}, {}, weight, {}, eps, y, {}, rstd); });
}

void rms_norm_backward(const Array& dy, const Array& x, const Array& weight, const Array& rstd,
                       const Array& dx, float dx_beta, const Array& dweight, float dweight_beta) {
  visit_real(x.dtype(), "rms_norm_backward", [&](auto zero) {
    backward<decltype(zero)>(dy, x, weight, {}, rstd, dx, dx_beta, dweight, dweight_beta, {}, 0);
  });
}

void add_norm(const Array& x, const Array& residual, const Array& weight, const Array& bias,
              double eps, const Array& sum, const Array& y, const Array& mean, const Array& rstd) {
  visit_real(x.dtype(), "add_norm", [&](auto zero) {
    forward<decltype(zero)>(x, residual, sum, weight, bias, eps, y, mean, rstd);
  });
}

}  // namespace binade::kernels::cpu
