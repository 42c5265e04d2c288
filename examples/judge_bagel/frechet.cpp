#include "frechet.h"

#include <Eigen/Eigenvalues>

#include <binade/core/error.h>

namespace binade::examples {

namespace {

struct Gaussian {
  Eigen::VectorXd mean;
  Eigen::MatrixXd covariance;
};

Gaussian gaussian_of(const Array& features) {
  check(features.dims() == 2 && features.dtype() == DType::f32 && features.size(0) > 1,
        "a Fréchet distance is between features (N, D) f32 of two rows at least");
  const Array rows = features.contiguous();
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::MatrixXd x =
      Eigen::Map<const Rows>(rows.data<float>(), rows.size(0), rows.size(1)).cast<double>();
  Gaussian gaussian{x.colwise().mean(), {}};
  const Eigen::MatrixXd centred = x.rowwise() - gaussian.mean.transpose();
  gaussian.covariance = centred.transpose() * centred / static_cast<double>(features.size(0) - 1);
  return gaussian;
}

// Square root of a matrix that has no eigenvalue below 0 but by rounding.
Eigen::MatrixXd root_of(const Eigen::MatrixXd& matrix) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(matrix);
  return solver.eigenvectors() * solver.eigenvalues().cwiseMax(0).cwiseSqrt().asDiagonal() *
         solver.eigenvectors().transpose();
}

}  // namespace

double frechet_distance(const Array& a, const Array& b) {
  const Gaussian x = gaussian_of(a), y = gaussian_of(b);
  check(x.mean.size() == y.mean.size(), "a Fréchet distance is between features of one width, got ",
        x.mean.size(), " and ", y.mean.size());
  const Eigen::MatrixXd root = root_of(x.covariance);
  return (x.mean - y.mean).squaredNorm() + (x.covariance + y.covariance).trace() -
         2 * root_of(root * y.covariance * root).trace();
}

}  // namespace binade::examples
