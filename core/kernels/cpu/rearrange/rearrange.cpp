// Rearranged copies, a row of out at a time: what is not beyond x is one run of memory.
#include <algorithm>
#include <cstring>

#include <binade/core/kernels/cpu/common/parallel.h>
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

}  // namespace

void rearrange(const Array& x_in, std::span<const AxisMap> maps, double number,
               const Array& out_in) {
  if (out_in.numel() == 0) return;
  const bool single = out_in.dims() == 0;
  const Array x = single ? x_in.view({1}) : x_in, out = single ? out_in.view({1}) : out_in;
  static constexpr AxisMap kOne{.size = 1};
  if (single) maps = std::span(&kOne, 1);
  const Array filling = Array::full({1}, number, out.dtype());
  const auto run = [&]<class T>(T bits) {
    std::memcpy(&bits, filling.data(), sizeof(T));
    Rearrangement<T>(x, maps, bits, out).run();
  };
  visit_bits(out.dtype(), run);
}

}  // namespace binade::kernels::cpu
