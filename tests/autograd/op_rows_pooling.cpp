// Pooling and interpolation.
#include "op_table.h"

namespace binade::test {

namespace {

bool inside(const Values& x, int64_t h, int64_t w) {
  return h >= 0 && w >= 0 && h < x.size(2) && w < x.size(3);
}

// Windows along one dimension, as PyTorch counts them.
int64_t windows_of(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                   bool ceil_mode) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  int64_t count = room / stride + 1;
  if (ceil_mode) {
    count = (room + stride - 1) / stride + 1;
    if ((count - 1) * stride >= size + padding) --count;
  }
  return count;
}

Values pooled(const Values& x, const Pool2dOptions& o, bool largest) {
  const auto stride = [&](size_t i) { return o.stride[i] != 0 ? o.stride[i] : o.kernel[i]; };
  const auto count = [&](size_t i) {
    return windows_of(x.size(2 + static_cast<int>(i)), o.kernel[i], stride(i), o.padding[i],
                      o.dilation[i], o.ceil_mode);
  };
  return fill({x.size(0), x.size(1), count(0), count(1)}, [&](const Index& at) {
    std::vector<double> window;
    double elements = 0;
    for_each_index({o.kernel[0], o.kernel[1]}, [&](const Index& tap) {
      const int64_t h = at[2] * stride(0) - o.padding[0] + tap[0] * o.dilation[0];
      const int64_t w = at[3] * stride(1) - o.padding[1] + tap[1] * o.dilation[1];
      if (h < x.size(2) + o.padding[0] && w < x.size(3) + o.padding[1]) elements += 1;
      if (inside(x, h, w)) window.push_back(x({at[0], at[1], h, w}));
    });
    if (largest) return *std::max_element(window.begin(), window.end());
    return total(window) / (o.count_include_pad ? elements : static_cast<double>(window.size()));
  });
}

Values adaptively_pooled(const Values& x, int64_t height, int64_t width, bool largest) {
  const auto begin = [](int64_t o, int64_t size, int64_t outputs) {
    return static_cast<int64_t>(
        std::floor(static_cast<double>(o * size) / static_cast<double>(outputs)));
  };
  const auto end = [](int64_t o, int64_t size, int64_t outputs) {
    return static_cast<int64_t>(
        std::ceil(static_cast<double>((o + 1) * size) / static_cast<double>(outputs)));
  };
  return fill({x.size(0), x.size(1), height, width}, [&](const Index& at) {
    std::vector<double> window;
    for (int64_t h = begin(at[2], x.size(2), height); h < end(at[2], x.size(2), height); ++h)
      for (int64_t w = begin(at[3], x.size(3), width); w < end(at[3], x.size(3), width); ++w)
        window.push_back(x({at[0], at[1], h, w}));
    if (largest) return *std::max_element(window.begin(), window.end());
    return total(window) / static_cast<double>(window.size());
  });
}

double place_of(int64_t o, int64_t size, int64_t outputs, bool align_corners) {
  const auto position = static_cast<double>(o), from = static_cast<double>(size),
             to = static_cast<double>(outputs);
  if (align_corners) return outputs > 1 ? position * (from - 1) / (to - 1) : 0;
  return std::clamp((position + 0.5) * from / to - 0.5, 0.0, from - 1);
}

Values interpolated(const Values& x, int64_t height, int64_t width, Interpolation mode,
                    bool align_corners) {
  return fill({x.size(0), x.size(1), height, width}, [&](const Index& at) {
    if (mode == Interpolation::nearest)
      return x({at[0], at[1], at[2] * x.size(2) / height, at[3] * x.size(3) / width});
    const double h = place_of(at[2], x.size(2), height, align_corners);
    const double w = place_of(at[3], x.size(3), width, align_corners);
    double sum = 0;  // of hats around every element
    for (int64_t i = 0; i < x.size(2); ++i)
      for (int64_t j = 0; j < x.size(3); ++j)
        sum += std::max(0.0, 1 - std::abs(h - static_cast<double>(i))) *
               std::max(0.0, 1 - std::abs(w - static_cast<double>(j))) * x({at[0], at[1], i, j});
    return sum;
  });
}

// Of sequences (N, C, L): images of one row.
Values as_image(const Values& x) {
  return {{x.size(0), x.size(1), 1, x.size(2)}, x.data};
}
Values as_sequences(Values y) {
  y.shape.erase(2);
  return y;
}

void add_sequence_rows(OpTable& table) {
  const auto pool = [&](const char* variant, int64_t length, const Pool1dOptions& options) {
    const Shape shape{2, 3, length};
    const auto reference = [options](const Values& x, bool largest) {
      const Pool2dOptions rows{{1, options.kernel},  {1, options.stride},
                               {0, options.padding}, {1, options.dilation},
                               options.ceil_mode,    options.count_include_pad};
      return as_sequences(pooled(as_image(x), rows, largest));
    };
    table
        .add(
            "max_pool1d", variant, {distinct(shape)},
            [=](const TensorList& in) -> TensorList { return {max_pool1d(in[0], options)}; },
            [=](const Lists& in) -> Lists { return {reference(in[0], true)}; })
        .no_repeats();
    if (options.dilation != 1) return;
    table.add(
        "avg_pool1d", variant, {real(shape)},
        [=](const TensorList& in) -> TensorList { return {avg_pool1d(in[0], options)}; },
        [=](const Lists& in) -> Lists { return {reference(in[0], false)}; });
  };
  pool("plain", 6, {});
  pool("no stride named", 7, {.kernel = 3});
  pool("overlapping, padded", 7, {.kernel = 3, .stride = 1, .padding = 1});
  pool("ceil_mode, padding not counted", 7,
       {.kernel = 3, .stride = 3, .padding = 1, .ceil_mode = true, .count_include_pad = false});
  pool("dilation", 8, {.kernel = 3, .stride = 2, .dilation = 2});

  for (const int64_t size : {1, 3, 9}) {
    const Shape shape{2, 2, 7};
    table
        .add(
            "adaptive_max_pool1d", concat(size), {distinct(shape)},
            [=](const TensorList& in) -> TensorList { return {adaptive_max_pool1d(in[0], size)}; },
            [=](const Lists& in) -> Lists {
              return {as_sequences(adaptively_pooled(as_image(in[0]), 1, size, true))};
            })
        .no_repeats();
    table.add(
        "adaptive_avg_pool1d", concat(size), {real(shape)},
        [=](const TensorList& in) -> TensorList { return {adaptive_avg_pool1d(in[0], size)}; },
        [=](const Lists& in) -> Lists {
          return {as_sequences(adaptively_pooled(as_image(in[0]), 1, size, false))};
        });
  }
}

}  // namespace

void add_pooling_rows(OpTable& table) {
  add_sequence_rows(table);
  const auto pool = [&](const char* variant, const Shape& shape, const Pool2dOptions& options) {
    table
        .add(
            "max_pool2d", variant, {distinct(shape)},
            [=](const TensorList& in) -> TensorList { return {max_pool2d(in[0], options)}; },
            [=](const Lists& in) -> Lists { return {pooled(in[0], options, true)}; })
        .no_repeats();
    if (options.dilation != std::array<int64_t, 2>{1, 1}) return;
    for (const bool count_include_pad : {true, false}) {
      Pool2dOptions counted = options;
      counted.count_include_pad = count_include_pad;
      table.add(
          "avg_pool2d", concat(variant, count_include_pad ? "" : ", padding not counted"),
          {real(shape)},
          [=](const TensorList& in) -> TensorList { return {avg_pool2d(in[0], counted)}; },
          [=](const Lists& in) -> Lists { return {pooled(in[0], counted, false)}; });
    }
  };
  const Shape shape{1, 2, 5, 6};
  pool("plain", shape, {});
  pool("no stride named", {1, 2, 7, 6}, {.kernel = {3, 2}});
  pool("overlapping, padded", shape, {{3, 2}, {2, 1}, {1, 1}});
  pool("ceil_mode", shape, {.ceil_mode = true});
  pool("ceil_mode, padded", {1, 1, 6, 7},
       {.kernel = {3, 2}, .stride = {2, 3}, .padding = {1, 1}, .ceil_mode = true});
  pool("ceil_mode, a window in the padding", {1, 1, 4, 4},
       {.kernel = {2, 2}, .stride = {3, 3}, .padding = {1, 1}, .ceil_mode = true});
  pool("dilation", {1, 2, 7, 6}, {.kernel = {2, 3}, .stride = {2, 1}, .dilation = {3, 2}});
  pool("dilation, padded, ceil_mode", {1, 1, 8, 7},
       {.kernel = {3, 2},
        .stride = {3, 2},
        .padding = {1, 1},
        .dilation = {2, 3},
        .ceil_mode = true});

  for (const auto& [height, width] :
       {std::pair(1, 1), std::pair(2, 3), std::pair(5, 6), std::pair(3, 4), std::pair(7, 9)}) {
    const int64_t h = height, w = width;
    table
        .add(
            "adaptive_max_pool2d", concat(h, " × ", w), {distinct(shape)},
            [=](const TensorList& in) -> TensorList {
              return {adaptive_max_pool2d(in[0], {h, w})};
            },
            [=](const Lists& in) -> Lists { return {adaptively_pooled(in[0], h, w, true)}; })
        .no_repeats();
    table.add(
        "adaptive_avg_pool2d", concat(h, " × ", w), {real(shape)},
        [=](const TensorList& in) -> TensorList {
          return {adaptive_avg_pool2d(in[0], {h, w})};
        },
        [=](const Lists& in) -> Lists { return {adaptively_pooled(in[0], h, w, false)}; });
  }

  for (const auto& [height, width] :
       {std::pair(10, 12), std::pair(3, 4), std::pair(1, 1), std::pair(7, 2), std::pair(5, 6)})
    for (const auto& [mode, align_corners, name] :
         {std::tuple(Interpolation::nearest, false, "nearest"),
          std::tuple(Interpolation::bilinear, false, "bilinear"),
          std::tuple(Interpolation::bilinear, true, "bilinear, corners aligned")}) {
      const int64_t h = height, w = width;
      table.add(
          "interpolate", concat(name, ", ", h, " × ", w), {real(shape)},
          [=, mode = mode, align = align_corners](const TensorList& in) -> TensorList {
            return {interpolate(in[0], {h, w}, mode, align)};
          },
          [=, mode = mode, align = align_corners](const Lists& in) -> Lists {
            return {interpolated(in[0], h, w, mode, align)};
          });
    }
}

}  // namespace binade::test
