// Rearranged copies, a row of out at a time: what is not beyond x is one run of memory.
#include <algorithm>
#include <cstring>
#include <vector>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/cpu/common/strided.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/rearrange.h>
#include <binade/core/visit_bits.h>

namespace binade::kernels::cpu {
namespace {

// T is as wide as an element, whatever the bits mean.
template <class T>
class Rearrangement {
 public:
  Rearrangement(const Array& x, std::span<const AxisMap> maps, T number, const Array& out)
      : x_(static_cast<const T*>(x.data())),
        out_(static_cast<T*>(out.data())),
        maps_(maps),
        number_(number),
        shape_(out.shape()),
        strides_(x.strides()),
        width_(out.size(-1)) {}

  void run() const {
    const int64_t rows = shape_.numel() / width_;
    parallel_for(rows, std::max<int64_t>(1, kGrain / width_), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) copy_row(row);
    });
  }

 private:
  void copy_row(int64_t row) const {
    T* const to = out_ + row * width_;
    int64_t offset = 0;
    for (int d = shape_.dims() - 2; d >= 0; --d) {
      const int64_t rest = row / shape_[d];
      const int64_t source = maps_[static_cast<size_t>(d)].source(row - rest * shape_[d]);
      if (source < 0) return std::fill_n(to, width_, number_), void();
      offset += source * strides_[d];
      row = rest;
    }
    const AxisMap& map = maps_.back();
    const int64_t stride = strides_[shape_.dims() - 1];
    const T* const from = x_ + offset;
    const auto copy_element = [&](int64_t i) {
      const int64_t source = map.source(i);
      to[i] = source < 0 ? number_ : from[source * stride];
    };
    int64_t begin = 0, end = 0;  // the run
    if (map.repeats == 1 && !map.reversed && stride == 1) {
      begin = std::clamp<int64_t>(-map.offset, 0, width_);
      end = std::clamp<int64_t>(map.size - map.offset, begin, width_);
      if (end > begin)
        std::memcpy(to + begin, from + begin + map.offset,
                    static_cast<size_t>(end - begin) * sizeof(T));
    }
    for (int64_t i = 0; i < begin; ++i) copy_element(i);
    for (int64_t i = end; i < width_; ++i) copy_element(i);
  }

  const T* x_;
  T* out_;
  std::span<const AxisMap> maps_;
  T number_;
  Shape shape_, strides_;
  int64_t width_;
};

// The gradient, a row of dx at a time: the sum of the lines of dy that rearrange() fills from it.
// C is what sums run in.
template <class C>
class GradientRows {
 public:
  GradientRows(const Array& dy, std::span<const AxisMap> maps, const Array& dx)
      : dy_(dy), dx_(dx), maps_(maps), last_(dx.dims() - 1) {}

  void run() {
    const int64_t width = dx_.shape[last_], rows = dx_.shape.numel() / width;
    parallel_for(rows, row_grain(width), [&](int64_t begin, int64_t end) {
      RowReader<C> reader;
      RowWriter<C> writer;
      std::vector<AxisReaders<int64_t>> readers;
      for (int64_t row = begin; row < end; ++row) {
        readers.clear();
        for (int64_t rest = row, d = last_ - 1; d >= 0; --d) {
          const auto dim = static_cast<int>(d);
          readers.emplace_back(maps_[static_cast<size_t>(d)], rest % dx_.shape[dim],
                               dy_.shape[dim]);
          rest /= dx_.shape[dim];
        }
        C* const sum =
            writer.target(dx_.data + row * width * dx_.item(), dx_.item(), dx_.dtype, width);
        std::fill_n(sum, width, C(0));
        add_lines(readers, 0, dy_.data, reader, sum);
        writer.store();
      }
    });
  }

 private:
  // readers: of the dimensions but the last, innermost first; `walked` of them, from the outermost
  // on, are.
  void add_lines(const std::vector<AxisReaders<int64_t>>& readers, size_t walked,
                 const std::byte* from, RowReader<C>& reader, C* sum) const {
    if (walked == readers.size()) {
      const int64_t outputs = dy_.shape[last_];
      return add_line(reader.read(from, dy_.strides[last_], dy_.dtype, outputs), outputs, sum);
    }
    const size_t at = readers.size() - 1 - walked;  // the first dimension is the outermost loop
    const int64_t stride = dy_.strides[static_cast<int>(walked)];
    for (int64_t k = 0; k < readers[at].count(); ++k)
      add_lines(readers, walked + 1, from + readers[at].at(k) * stride, reader, sum);
  }
  void add_line(const C* line, int64_t outputs, C* sum) const {
    const AxisMap& map = maps_.back();
    const int64_t own = std::clamp<int64_t>(-map.offset, 0, outputs);
    const int64_t behind = std::clamp<int64_t>(map.size - map.offset, own, outputs);
    const auto add_element = [&](int64_t i) {
      const int64_t source = map.source(i);
      if (source >= 0) sum[source] += line[i];
    };
    for (int64_t i = 0; i < own; ++i) add_element(i);
    for (int64_t i = own; i < behind; ++i) sum[i + map.offset] += line[i];
    for (int64_t i = behind; i < outputs; ++i) add_element(i);
  }

  View dy_, dx_;
  std::span<const AxisMap> maps_;
  int last_;
};

constexpr AxisMap kOne{.size = 1};  // of a single element

}  // namespace

void rearrange(const Array& x_in, std::span<const AxisMap> maps, double number,
               const Array& out_in) {
  if (out_in.numel() == 0) return;
  const bool single = out_in.dims() == 0;
  const Array x = single ? x_in.view({1}) : x_in, out = single ? out_in.view({1}) : out_in;
  if (single) maps = std::span(&kOne, 1);
  const Array filling = Array::full({1}, number, out.dtype());
  const auto run = [&]<class T>(T bits) {
    std::memcpy(&bits, filling.data(), sizeof(T));
    Rearrangement<T>(x, maps, bits, out).run();
  };
  visit_bits(out.dtype(), run);
}

void rearrange_backward(const Array& dy_in, std::span<const AxisMap> maps, const Array& dx_in) {
  if (dx_in.numel() == 0) return;
  const bool single = dx_in.dims() == 0;
  const Array dy = single ? dy_in.view({1}) : dy_in, dx = single ? dx_in.view({1}) : dx_in;
  if (single) maps = std::span(&kOne, 1);
  if (dx.dtype() == DType::f64)
    GradientRows<double>(dy, maps, dx).run();
  else
    GradientRows<float>(dy, maps, dx).run();
}

}  // namespace binade::kernels::cpu
