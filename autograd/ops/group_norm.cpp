// Norms of groups of channels, from norm.h. Each group of an image has its statistics, each channel
// its parameters: planes of images, (N·C, H·W), are what the kernels call channels.
#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/norm.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/norm.h>

namespace binade {

using namespace ops;

namespace {

// A vector over the channels, as it broadcasts to (N, C, …).
Tensor per_channel(const Tensor& x, int dims) {
  Shape shape = Shape::filled(dims - 1, 1);
  shape[0] = x.numel();
  return reshape(x, shape);
}

// The op in public ones.
Tensor group_norm_in_ops(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias,
                         double eps) {
  const int64_t rows = x.size(0) * groups;
  const Tensor y =
      reshape(layer_norm(reshape(x, {rows, x.numel() / rows}), {}, {}, eps), x.shape());
  if (!weight.defined() && !bias.defined()) return y;
  const Tensor gain = weight.defined() ? per_channel(weight, x.dims()) : Tensor();
  if (!bias.defined()) return to(y * gain, x.dtype());
  const Tensor shift = per_channel(bias, x.dims());
  return to(gain.defined() ? addcmul(shift, y, gain) : y + shift, x.dtype());
}

// How vectors over planes, (N, G, C/G), come from such over groups and over channels.
struct Planes {
  int64_t images, groups, each;  // channels of a group

  Planes(const Array& x, int64_t group_count)
      : images(x.size(0)), groups(group_count), each(x.size(1) / group_count) {}

  Array of_groups(const Tensor& x) const {
    return expand(reshape(x, {images, groups, 1}), {images, groups, each})
        .array()
        .reshape({count()})
        .contiguous();
  }
  Array of_channels(const Tensor& x) const {
    return expand(reshape(x, {1, groups * each}), {images, groups * each})
        .array()
        .reshape({count()})
        .contiguous();
  }
  int64_t count() const { return images * groups * each; }
};

struct GroupNormGradient {
  Saved x, weight, bias;  // x contiguous; the others may be undefined
  Array mean, rstd;       // (N·G), f32 (f64)
  int64_t groups;
  double eps;

  Tensor channel_weight(const Array& like) const {
    if (weight.defined()) return Tensor(weight.array().to(mean.dtype()));
    return Tensor(Array::full({like.size(1)}, 1, mean.dtype(), like.device()));
  }

  // With w the channel's weight, x̂ = (x − mean)·rstd and L values in a group:
  // dx = rstd·(w·dy − Σ w·dy / L − x̂·Σ w·dy·x̂ / L).
  void operator()(Backward& backward) const {
    const NoGrad no_grad;
    const Array images = x.array(), dy = backward.grad().contiguous();
    const Planes planes(images, groups);
    const Shape flat{1, planes.count(), images.numel() / planes.count()};
    const Shape by_group{planes.images, groups, planes.each};
    const Array means = planes.of_groups(Tensor(mean)), rstds = planes.of_groups(Tensor(rstd));
    const Array products = empty_like(means), sums = empty_like(means);
    BINADE_DISPATCH(dy.device(),
                    channel_sums(dy.view(flat), images.view(flat), means, rstds, products, sums));
    const Shape by_channel{planes.images, images.size(1)};
    const auto give = [&](int input, const Saved& vector, const Array& of_planes) {
      if (!vector.defined() || !backward.needed(input)) return;
      backward.slot(input).add(
          to(sum(reshape(Tensor(of_planes), by_channel), {0}), vector.array().dtype()).array());
    };
    give(1, weight, products);
    give(2, bias, sums);
    if (!backward.needed(0)) return;

    const Tensor gain = Tensor(planes.of_channels(channel_weight(images)));
    const auto mean_of = [&](const Array& of_planes) {
      const Tensor weighted = sum(reshape(gain * Tensor(of_planes), by_group), {2});
      return weighted / static_cast<double>(planes.each * flat[2]);
    };
    const Tensor scale = reshape(Tensor(rstd), {planes.images, groups});
    const Array slope = (gain * Tensor(rstds)).array();
    const Array offset = planes.of_groups(scale * mean_of(sums));
    const Array along = planes.of_groups(square(scale) * mean_of(products));
    const Array dx = empty_like(images);
    BINADE_DISPATCH(dy.device(), channel_gradient(dy.view(flat), images.view(flat), means, slope,
                                                  offset, along, dx.view(flat)));
    backward.slot(0).add(dx);
  }

  void operator()(BackwardOnTape& tape) const {
    const auto vector = [&](int input, const Saved& saved) {
      return saved.defined() ? tape.input(input, saved.array()) : Tensor();
    };
    tape.through(group_norm_in_ops(tape.input(0, x.array()), groups, vector(1, weight),
                                   vector(2, bias), eps),
                 tape.grad());
  }
};

Tensor norm_of_groups(const char* op, const Tensor& x, int64_t groups, const Tensor& weight,
                      const Tensor& bias, double eps) {
  check_floating(op, "x", x);
  check_device(op, {x, weight, bias});
  check(x.dims() >= 2, op, ": x must be (N, C, …), got ", Kind{x});
  const int64_t channels = x.size(1);
  check(groups >= 1 && channels % groups == 0, op, ": ", groups, " groups do not divide the ",
        channels, " channels of x ", Kind{x});
  for (const Tensor& vector : {weight, bias})
    check(!vector.defined() || (is_floating(vector.dtype()) && vector.shape() == Shape{channels}),
          op, ": weight and bias must be (", channels, ") for x ", Kind{x}, ", got ", Kind{vector});
  if (x.numel() == 0) return x;

  const Array images = x.array().contiguous(), y = empty_like(images);
  const Planes planes(images, groups);
  const int64_t rows = planes.images * groups;
  const Array mean = Array::empty({rows}, statistics_dtype(x.dtype()), x.device());
  const Array rstd = empty_like(mean);
  BINADE_DISPATCH(x.device(),
                  channel_moments(images.view({1, rows, images.numel() / rows}), eps, mean, rstd));
  const auto saved = [](const Tensor& vector) {
    return vector.defined() ? Saved(vector.array().contiguous()) : Saved();
  };
  const GroupNormGradient gradient{Saved(images), saved(weight), saved(bias), mean,
                                   rstd,          groups,        eps};
  {
    const NoGrad no_grad;
    const Shape flat{1, planes.count(), images.numel() / planes.count()};
    const Array rstds = planes.of_groups(Tensor(rstd));
    const Array scale =
        (Tensor(planes.of_channels(gradient.channel_weight(images))) * Tensor(rstds)).array();
    const Array shift =
        planes.of_channels(bias.defined() ? to(bias, mean.dtype())
                                          : Tensor::zeros({channels}, mean.dtype(), mean.device()));
    BINADE_DISPATCH(x.device(), channel_affine(images.view(flat), planes.of_groups(Tensor(mean)),
                                               scale, shift, y.view(flat)));
  }
  return record(op, {x, weight, bias}, y, gradient);
}

}  // namespace

Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias,
                  double eps) {
  return norm_of_groups("group_norm", x, groups, weight, bias, eps);
}

Tensor instance_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  check_floating("instance_norm", "x", x);
  check(x.dims() >= 3 && (x.numel() == 0 || x.numel() / (x.size(0) * x.size(1)) > 1),
        "instance_norm: x must be (N, C, …) with at least two elements a channel, got ", Kind{x});
  if (x.numel() == 0) return x;
  return norm_of_groups("instance_norm", x, x.size(1), weight, bias, eps);
}

}  // namespace binade
