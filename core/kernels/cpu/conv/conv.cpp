// Convolution as matmuls: the patches that a run of output pixels sees are laid out as the
// columns of a (C/groups · R · S, pixels) matrix, a piece of an image at a time, so that it stays
// in cache. f16 and bf16 become f32 as patches are read.
#include <algorithm>
#include <vector>

#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>

namespace binade::kernels::cpu {

namespace {

struct ConvShape {
  ConvShape(const Array& x, const Array& weight, const Array& y, const ConvParams& conv_params)
      : params(conv_params),
        images(x.size(0)),
        groups(conv_params.groups),
        channels(x.size(1) / groups),
        filters(weight.size(0) / groups),
        height(x.size(2)),
        width(x.size(3)),
        kernel_h(weight.size(2)),
        kernel_w(weight.size(3)),
        out_height(y.size(2)),
        out_width(y.size(3)) {
    constexpr int64_t kColumnElements = 1 << 17;  // half a MiB of f32
    piece = std::clamp(kColumnElements / std::max<int64_t>(patch(), 1) / 16 * 16, int64_t{64},
                       std::max<int64_t>(pixels(), 64));
  }

  int64_t patch() const { return channels * kernel_h * kernel_w; }
  int64_t pixels() const { return out_height * out_width; }
  int64_t pieces() const { return (pixels() + piece - 1) / piece; }
  // A patch is one pixel: x itself is the matrix of columns.
  bool pointwise() const {
    return kernel_h == 1 && kernel_w == 1 && params.stride_h == 1 && params.stride_w == 1 &&
           params.padding_h == 0 && params.padding_w == 0;
  }

  ConvParams params;
  int64_t images, groups;
  int64_t channels, filters;  // of a group
  int64_t height, width, kernel_h, kernel_w, out_height, out_width;
  int64_t piece;  // output pixels taken at a time
};

// One group's channels of one image as a (rows, pixels) matrix.
MatrixView image_of(const Array& array, int64_t image, int64_t group, int64_t rows) {
  const int64_t pixels = array.size(2) * array.size(3);
  const int64_t offset = (image * array.size(1) + group * rows) * pixels;
  return {static_cast<std::byte*>(array.data()) + offset * size_of(array.dtype()), array.dtype(),
          pixels, 1};
}

MatrixView filters_of(const ConvShape& shape, const Array& weight, int64_t group) {
  const int64_t offset = group * shape.filters * shape.patch();
  return {static_cast<std::byte*>(weight.data()) + offset * size_of(weight.dtype()), weight.dtype(),
          shape.patch(), 1};
}

// A stretch of output pixels within one row, and the input pixels that one element of the kernel
// meets there: output pixels [first, first + count) of the piece read `input`, input + stride_w, …;
// what lies outside of the image was cut off.
struct Stretch {
  int64_t first, count, input;
};

// Calls body(stretch) for each row of the pixels [begin, end) and kernel element (r, s).
template <class Body>
void for_each_stretch(const ConvShape& shape, int64_t begin, int64_t end, int64_t r, int64_t s,
                      const Body& body) {
  const ConvParams& params = shape.params;
  // Columns [low, high) of a row meet the image: 0 ≤ w0 + column·stride_w < width.
  const int64_t w0 = s * params.dilation_w - params.padding_w;
  const int64_t low = w0 >= 0 ? 0 : (-w0 + params.stride_w - 1) / params.stride_w;
  const int64_t high =
      w0 >= shape.width ? 0
                        : std::min(shape.out_width, (shape.width - 1 - w0) / params.stride_w + 1);
  const int64_t row = begin / shape.out_width;
  int64_t h = row * params.stride_h - params.padding_h + r * params.dilation_h;
  for (int64_t pixel = row * shape.out_width; pixel < end;
       pixel += shape.out_width, h += params.stride_h) {
    if (h < 0 || h >= shape.height) continue;
    const int64_t from = std::max(low, begin - pixel), to = std::min(high, end - pixel);
    if (from < to)
      body(Stretch{pixel + from - begin, to - from, h * shape.width + w0 + from * params.stride_w});
  }
}

// count pixels, `step` apart, converted into `row`. Stretches are short: a call would cost as much
// as the copy.
template <class T>
void load_stretch(const MatrixView& image, int64_t channel, int64_t pixel, int64_t step,
                  int64_t count, T* row) {
  const std::byte* from = image.at(channel, pixel);
  if (image.dtype != dtype_of<T>()) return load_row(from, image.dtype, step, count, row);
  const T* pixels = reinterpret_cast<const T*>(from);
  if (step == 1)
    for (int64_t i = 0; i < count; ++i) row[i] = pixels[i];
  else
    for (int64_t i = 0; i < count; ++i) row[i] = pixels[i * step];
}

// The columns of output pixels [begin, end): (patch, end − begin).
template <class T>
Block<const T> columns_of(const ConvShape& shape, const MatrixView& image, int64_t begin,
                          int64_t end, Workspace<T>& buffer) {
  const int64_t count = end - begin;
  if (shape.pointwise() && image.dtype == dtype_of<T>())
    return block_of<T>(image, 0, begin, shape.channels, count, nullptr);
  T* const columns = buffer.reserve(shape.patch() * count);
  T* row = columns;
  for (int64_t c = 0; c < shape.channels; ++c)
    for (int64_t r = 0; r < shape.kernel_h; ++r)
      for (int64_t s = 0; s < shape.kernel_w; ++s, row += count) {
        int64_t filled = 0;
        for_each_stretch(shape, begin, end, r, s, [&](const Stretch& stretch) {
          std::fill(row + filled, row + stretch.first, T(0));
          load_stretch(image, c, stretch.input, shape.params.stride_w, stretch.count,
                       row + stretch.first);
          filled = stretch.first + stretch.count;
        });
        std::fill(row + filled, row + count, T(0));
      }
  return {columns, count, false};
}

// The transpose of columns_of: adds every element of the columns to the pixel that it came from.
template <class T>
void add_columns(const ConvShape& shape, const T* columns, int64_t begin, int64_t end, T* image) {
  const int64_t count = end - begin, step = shape.params.stride_w;
  const T* row = columns;
  for (int64_t c = 0; c < shape.channels; ++c)
    for (int64_t r = 0; r < shape.kernel_h; ++r)
      for (int64_t s = 0; s < shape.kernel_w; ++s, row += count) {
        T* const plane = image + c * shape.height * shape.width;
        for_each_stretch(shape, begin, end, r, s, [&](const Stretch& stretch) {
          const T* from = row + stretch.first;
          T* to = plane + stretch.input;
          if (step == 1)
            for (int64_t i = 0; i < stretch.count; ++i) to[i] += from[i];
          else
            for (int64_t i = 0; i < stretch.count; ++i) to[i * step] += from[i];
        });
      }
}

template <class T>
void forward(const ConvShape& shape, const Array& x, const Array& weight, const Array& bias,
             const Array& y) {
  std::vector<T> biases(static_cast<size_t>(weight.size(0)), T(0));
  if (bias.defined())
    load_row(bias.data(), bias.dtype(), bias.stride(0), bias.numel(), biases.data());
  const int64_t filters = shape.filters;
  parallel_tasks(shape.images * shape.groups * shape.pieces(), [&](int64_t task) {
    const int64_t piece = task % shape.pieces(), group = task / shape.pieces() % shape.groups;
    const int64_t image = task / shape.pieces() / shape.groups;
    const int64_t begin = piece * shape.piece, end = std::min(begin + shape.piece, shape.pixels());
    const int64_t count = end - begin;

    thread_local Workspace<T> column_buffer, filter_buffer, out_buffer;
    const Block<const T> columns =
        columns_of(shape, image_of(x, image, group, shape.channels), begin, end, column_buffer);
    const MatrixView out = image_of(y, image, group, filters);
    const bool direct = out.dtype == dtype_of<T>();
    T* const sums =
        direct ? reinterpret_cast<T*>(out.at(0, begin)) : out_buffer.reserve(filters * count);
    const int64_t leading = direct ? shape.pixels() : count;
    for (int64_t k = 0; k < filters; ++k)
      std::fill_n(sums + k * leading, count, biases[static_cast<size_t>(group * filters + k)]);
    const Block<const T> left =
        block_of(filters_of(shape, weight, group), 0, 0, filters, shape.patch(),
                 filter_buffer.reserve(direct ? 0 : filters * shape.patch()));
    gemm(filters, count, shape.patch(), left, columns, true, sums, leading);
    if (direct) return;
    for (int64_t k = 0; k < filters; ++k)
      store_row(sums + k * count, count, out.at(k, begin), out.dtype, 1);
  });
}

// `row` + beta · what `target` holds, stored there.
template <class T>
void store_with_beta(T* row, int64_t count, std::byte* target, DType dtype, float beta) {
  if (beta != 0) {
    thread_local Workspace<T> buffer;
    T* const old = buffer.reserve(count);
    load_row(target, dtype, 1, count, old);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) row[i] += old[i];
  }
  store_row(row, count, target, dtype, 1);
}

// A task owns one group of an image: patches overlap only within it.
template <class T>
void backward_input(const ConvShape& shape, const Array& weight, const Array& dy, const Array& dx,
                    float beta) {
  parallel_tasks(shape.images * shape.groups, [&](int64_t task) {
    const int64_t image = task / shape.groups, group = task % shape.groups;
    thread_local Workspace<T> image_buffer, column_buffer, filter_buffer, dy_buffer;
    const int64_t size = shape.channels * shape.height * shape.width;
    T* const sums = image_buffer.reserve(size);
    std::fill_n(sums, size, T(0));
    const Block<const T> filters =
        block_of(filters_of(shape, weight, group), 0, 0, shape.filters, shape.patch(),
                 filter_buffer.reserve(shape.filters * shape.patch()));
    const MatrixView gradients = image_of(dy, image, group, shape.filters);
    T* const columns = column_buffer.reserve(shape.patch() * shape.piece);
    for (int64_t begin = 0; begin < shape.pixels(); begin += shape.piece) {
      const int64_t end = std::min(begin + shape.piece, shape.pixels()), count = end - begin;
      const Block<const T> right = block_of(gradients, 0, begin, shape.filters, count,
                                            dy_buffer.reserve(shape.filters * count));
      gemm(shape.patch(), count, shape.filters, filters.flipped(), right, false, columns, count);
      add_columns(shape, columns, begin, end, sums);
    }
    store_with_beta(sums, size, image_of(dx, image, group, shape.channels).data, dx.dtype(), beta);
  });
}

// Each task sums a slice of the batch; the slices are added up in order.
template <class T>
void backward_weight(const ConvShape& shape, const Array& x, const Array& dy, const Array& dweight,
                     float beta) {
  constexpr int64_t kMaxSlices = 16, kPartialElements = 1 << 23;
  const int64_t size = shape.filters * shape.patch(), all = shape.groups * size;
  const int64_t slices = std::max<int64_t>(
      1, std::min({shape.images, kMaxSlices,
                   std::max<int64_t>(kPartialElements / std::max<int64_t>(all, 1), 2)}));
  std::vector<T> partial(static_cast<size_t>(slices * all), T(0));
  parallel_tasks(slices * shape.groups, [&](int64_t task) {
    const int64_t slice = task / shape.groups, group = task % shape.groups;
    thread_local Workspace<T> column_buffer, dy_buffer;
    T* const sums = partial.data() + slice * all + group * size;
    const int64_t last = (slice + 1) * shape.images / slices;
    for (int64_t image = slice * shape.images / slices; image < last; ++image) {
      const MatrixView pixels = image_of(x, image, group, shape.channels);
      const MatrixView gradients = image_of(dy, image, group, shape.filters);
      for (int64_t begin = 0; begin < shape.pixels(); begin += shape.piece) {
        const int64_t end = std::min(begin + shape.piece, shape.pixels()), count = end - begin;
        const Block<const T> columns = columns_of(shape, pixels, begin, end, column_buffer);
        const Block<const T> left = block_of(gradients, 0, begin, shape.filters, count,
                                             dy_buffer.reserve(shape.filters * count));
        gemm(shape.filters, shape.patch(), count, left, columns.flipped(), true, sums,
             shape.patch());
      }
    }
  });
  for (int64_t slice = 1; slice < slices; ++slice)
    for (int64_t i = 0; i < all; ++i)
      partial[static_cast<size_t>(i)] += partial[static_cast<size_t>(slice * all + i)];
  store_with_beta(partial.data(), all, static_cast<std::byte*>(dweight.data()), dweight.dtype(),
                  beta);
}

template <class T>
void backward_bias(const Array& dy, const Array& dbias, float beta) {
  const int64_t images = dy.size(0), filters = dy.size(1), pixels = dy.size(2) * dy.size(3);
  std::vector<T> sums(static_cast<size_t>(filters), T(0));
  parallel_tasks(filters, [&](int64_t filter) {
    thread_local Workspace<T> buffer;
    T* const row = buffer.reserve(pixels);
    T total = 0;
    for (int64_t image = 0; image < images; ++image) {
      const MatrixView plane = image_of(dy, image, filter, 1);
      load_row(plane.data, plane.dtype, 1, pixels, row);
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < pixels; ++i) sum += row[i];
      total += sum;
    }
    sums[static_cast<size_t>(filter)] = total;
  });
  store_with_beta(sums.data(), filters, static_cast<std::byte*>(dbias.data()), dbias.dtype(), beta);
}

}  // namespace

void conv2d(const Array& x, const Array& weight, const Array& bias, const ConvParams& params,
            const Array& y) {
  check(is_floating(x.dtype()), "conv2d needs a floating-point dtype, got ", name_of(x.dtype()));
  const ConvShape shape(x, weight, y, params);
  if (x.dtype() == DType::f64)
    forward<double>(shape, x, weight, bias, y);
  else
    forward<float>(shape, x, weight, bias, y);
}

void conv2d_backward(const Array& x, const Array& weight, const Array& dy, const ConvParams& params,
                     const Array& dx, float dx_beta, const Array& dweight, float dweight_beta,
                     const Array& dbias, float dbias_beta) {
  const ConvShape shape(x, weight, dy, params);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    if (dx.defined()) backward_input<T>(shape, weight, dy, dx, dx_beta);
    if (dweight.defined()) backward_weight<T>(shape, x, dy, dweight, dweight_beta);
    if (dbias.defined()) backward_bias<T>(dy, dbias, dbias_beta);
  };
  if (x.dtype() == DType::f64)
    run(double{});
  else
    run(float{});
}

}  // namespace binade::kernels::cpu
