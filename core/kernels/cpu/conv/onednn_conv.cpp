#include <binade/core/kernels/cpu/conv/onednn_conv.h>

#if BINADE_HAVE_ONEDNN

#include <algorithm>
#include <map>
#include <mutex>
#include <numeric>
#include <vector>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/conv/onednn_part.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>

namespace binade::kernels::cpu {

namespace {

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// A run of an image's rows: those that are computed (of x for its gradient, of y otherwise) and
// those that they need.
struct Rows {
  int64_t x, y;       // the first
  ConvPartAxis axis;  // and how many

  // [first, first + count) of y.
  static Rows of_output(const ConvPartAxis& whole, int64_t first, int64_t count) {
    const int64_t begin = first * whole.stride - whole.before;
    const int64_t end = begin + (count - 1) * whole.stride + whole.reach();
    Rows rows{std::max<int64_t>(begin, 0), first, whole};
    rows.axis.size = std::min(end, whole.size) - rows.x;
    rows.axis.outputs = count;
    rows.axis.before = rows.x - begin;
    rows.axis.after = std::max<int64_t>(end - whole.size, 0);
    return rows;
  }
  // [first, first + count) of x.
  static Rows of_input(const ConvPartAxis& whole, int64_t first, int64_t count) {
    const int64_t from = first + whole.before;  // behind the zeros
    Rows rows{first, divide_up(std::max<int64_t>(from - whole.reach() + 1, 0), whole.stride),
              whole};
    const int64_t last = std::min((from + count - 1) / whole.stride, whole.outputs - 1);
    rows.axis.size = count;
    rows.axis.outputs = last + 1 - rows.y;
    rows.axis.before = from - rows.y * whole.stride;
    rows.axis.after = std::max<int64_t>(last * whole.stride + whole.reach() - from - count, 0);
    return rows;
  }
  bool valid() const { return axis.size > 0 && axis.outputs > 0 && axis.before >= 0; }
};

// How the work is cut: images, their rows, and slices of the channels that are computed, or of
// groups where there are several.
struct OneDnnTiling {
  // Numbers of x and y of a part: they stay in the second level of the cache from the change of
  // their layout on. Slices of groups read nothing twice: smaller ones. Each part's gradient of the
  // weight has to be added up: larger ones.
  static constexpr int64_t kPart = 1 << 18, kGroupPart = 1 << 17, kWeightPart = 1 << 19;
  // Fewer pixels would spend their time on reading the weight, fewer rows on those around them.
  static constexpr int64_t kFewestPixels = 256, kFewestRows = 8;
  // Fewer channels would spend it on laying out x again for each slice.
  static constexpr int64_t kBlock = 16, kFewestBlocks = 4;
  static constexpr int64_t kTasks = 16;
  static constexpr int64_t kSums = 1 << 20;  // numbers of the weight's gradients in all runs

  EvenParts images{0, 1}, rows{0, 1}, slices{0, 1};
  EvenParts runs{0, 1};    // of parts, for the weight's gradient: each has a sum of its own
  int64_t slice_unit = 1;  // channels (or groups) that are not cut

  explicit OneDnnTiling(const ConvPart& whole) {
    const bool back = whole.pass == ConvPass::input_gradient;
    const int64_t target_rows = back ? whole.rows.size : whole.rows.outputs;
    const int64_t row_pixels = back ? whole.columns.size : whole.columns.outputs;
    int64_t image = whole.channels * whole.rows.size * whole.columns.size +
                    whole.filters * whole.rows.outputs * whole.columns.outputs;
    const bool sum = whole.pass == ConvPass::weight_gradient;
    const bool large = sum && whole.groups == 1;
    const int64_t part = whole.groups > 1 ? kGroupPart : large ? kWeightPart : kPart;
    const int64_t pixels = (large ? 2 : 1) * kFewestPixels;
    int64_t units = 0;
    if (whole.groups > 1) {
      slice_unit = divide_up(kBlock, std::min(whole.channels, whole.filters) / whole.groups);
      units = divide_up(whole.groups, slice_unit);
      slices = EvenParts(units, std::max<int64_t>(units * part / image, 1));
      image /= slices.count;
    } else {
      slice_unit = kBlock;
      units = divide_up(back ? whole.channels : whole.filters, kBlock);
      slices = EvenParts(units, units);
    }
    const int64_t wanted = divide_up(kTasks, slices.count);
    const int64_t fewest_rows = std::max(kFewestRows, divide_up(pixels, row_pixels));
    rows = EvenParts(target_rows, std::max(std::min(target_rows * part / image,
                                                    target_rows * whole.images / wanted),
                                           fewest_rows));
    const int64_t fewest_images = divide_up(pixels, target_rows * row_pixels);
    images = EvenParts(whole.images,
                       std::max(std::min(part / image, whole.images / wanted), fewest_images));
    const int64_t weight = whole.filters * whole.weight_filter, parts = images.count * rows.count;
    int64_t sums = parts;
    if (sum) sums = std::min(std::clamp<int64_t>(kSums / weight, 1, wanted), parts);
    if (whole.groups == 1)
      slices = EvenParts(
          units, std::max(kFewestBlocks, divide_up(units, std::max<int64_t>(kTasks / sums, 1))));
    runs = EvenParts(parts, divide_up(parts, sums));
  }
};

// A convolution's parts, made once for its shape.
class OneDnnPlan {
 public:
  explicit OneDnnPlan(const ConvPart& whole) : whole_(whole), tiling_(whole) {
    try {
      make_parts();
    } catch (const dnnl::error&) {
      parts_.clear();
    }
  }
  bool usable() const { return !parts_.empty(); }

  void output(const float* x, const float* weight, const float* bias, float* y) const {
    thread_local Workspace<float> memory;
    const float* const packed = pack_weight(weight, memory);
    const Sources sources = pack_sources(x);
    parallel_tasks(static_cast<int64_t>(parts_.size()), [&](int64_t task) {
      const Place place = place_of(task);
      part(task).output(sources.of(task, place.x), packed + place.slice * weight_numbers_,
                        bias ? bias + place.filter : nullptr, y + place.y);
    });
  }
  void input_gradient(const float* dy, const float* weight, float* dx) const {
    thread_local Workspace<float> memory;
    const float* const packed = pack_weight(weight, memory);
    const Sources sources = pack_sources(dy);
    parallel_tasks(static_cast<int64_t>(parts_.size()), [&](int64_t task) {
      const Place place = place_of(task);
      part(task).input_gradient(sources.of(task, place.y), packed + place.slice * weight_numbers_,
                                dx + place.x);
    });
  }
  void weight_gradient(const float* x, const float* dy, float* dweight) const {
    const int64_t slices = tiling_.slices.count, runs = tiling_.runs.count;
    thread_local Workspace<float> memory;
    float* const sums = memory.reserve(runs * slices * weight_numbers_);
    const Sources sources = pack_sources(x);
    parallel_tasks(runs * slices, [&](int64_t task) {
      thread_local Workspace<float> own;
      const int64_t slice = task % slices, first = tiling_.runs.begin(task / slices);
      float* const sum = sums + task * weight_numbers_;
      for (int64_t i = first; i < tiling_.runs.begin(task / slices + 1); ++i) {
        const int64_t index = i * slices + slice;
        float* const target = i == first ? sum : own.reserve(weight_numbers_);
        const Place place = place_of(index);
        part(index).weight_gradient(sources.of(index, place.x), dy + place.y, target);
        if (i != first) add(target, part(index).weight_numbers(), sum);
      }
    });
    parallel_tasks(slices, [&](int64_t slice) {
      float* const sum = sums + slice * weight_numbers_;
      for (int64_t run = 1; run < runs; ++run)
        add(sums + (run * slices + slice) * weight_numbers_, part(slice).weight_numbers(), sum);
      part(slice).unpack_weight(sum, dweight + place_of(slice).weight);
    });
  }

 private:
  // Where a part begins in each array.
  struct Place {
    int64_t slice, x, y, weight, filter;
  };

  // What parts read that slices share: where there are several it is packed once for all.
  struct Sources {
    const float* whole;
    const float* packed;  // null: each part packs its own
    int64_t slices, numbers;

    OneDnnPart::Source of(int64_t task, int64_t place) const {
      if (packed == nullptr) return {whole + place, false};
      return {packed + task / slices * numbers, true};
    }
  };

  const OneDnnPart& part(int64_t task) const { return *parts_[static_cast<size_t>(task)]; }

  Sources pack_sources(const float* whole) const {
    const int64_t slices = tiling_.slices.count;
    Sources sources{whole, nullptr, slices, 0};
    if (slices == 1 || whole_.groups > 1) return sources;
    const int64_t count = static_cast<int64_t>(parts_.size()) / slices;
    for (int64_t i = 0; i < count; ++i)
      sources.numbers = std::max(sources.numbers, part(i * slices).source_numbers());
    thread_local Workspace<float> memory;
    float* const packed = memory.reserve(count * sources.numbers);
    parallel_tasks(count, [&](int64_t i) {
      const Place place = place_of(i * slices);
      part(i * slices)
          .pack_source(whole + (whole_.pass == ConvPass::input_gradient ? place.y : place.x),
                       packed + i * sources.numbers);
    });
    sources.packed = packed;
    return sources;
  }

  static void add(const float* from, int64_t count, float* sum) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) sum[i] += from[i];
  }

  // [begin, end) of the channels that are computed, or of groups.
  std::pair<int64_t, int64_t> slice(int64_t index) const {
    const int64_t all = whole_.groups > 1                         ? whole_.groups
                        : whole_.pass == ConvPass::input_gradient ? whole_.channels
                                                                  : whole_.filters;
    return {tiling_.slices.begin(index) * tiling_.slice_unit,
            std::min(tiling_.slices.begin(index + 1) * tiling_.slice_unit, all)};
  }
  Place place_of(int64_t task) const {
    const int64_t slices = tiling_.slices.count, index = task % slices;
    const int64_t row = task / slices % tiling_.rows.count;
    const int64_t image = tiling_.images.begin(task / slices / tiling_.rows.count);
    const Rows& rows = rows_[static_cast<size_t>(row)];
    const bool back = whole_.pass == ConvPass::input_gradient, grouped = whole_.groups > 1;
    const int64_t first = slice(index).first;
    const int64_t channel = grouped ? first * (whole_.channels / whole_.groups) : back ? first : 0;
    const int64_t filter = grouped ? first * (whole_.filters / whole_.groups) : back ? 0 : first;
    const int64_t plane = whole_.rows.kernel * whole_.columns.kernel;
    return {index, image * whole_.x_image + channel * whole_.x_plane + rows.x * whole_.columns.size,
            image * whole_.y_image + filter * whole_.y_plane + rows.y * whole_.columns.outputs,
            filter * whole_.weight_filter + (grouped ? 0 : channel * plane), filter};
  }

  void make_parts() {
    for (int64_t row = 0; row < tiling_.rows.count; ++row) {
      const int64_t first = tiling_.rows.begin(row), count = tiling_.rows.length(row);
      rows_.push_back(whole_.pass == ConvPass::input_gradient
                          ? Rows::of_input(whole_.rows, first, count)
                          : Rows::of_output(whole_.rows, first, count));
      if (!rows_.back().valid()) return;
    }
    for (int64_t image = 0; image < tiling_.images.count; ++image)
      for (const Rows& rows : rows_)
        for (int64_t index = 0; index < tiling_.slices.count; ++index)
          parts_.push_back(kernel_for(tiling_.images.length(image), rows, index));
    for (int64_t task = 0; task < static_cast<int64_t>(parts_.size()); ++task) {
      const int64_t index = task % tiling_.slices.count;
      if (!part(task).shares_weight_with(part(index)) ||
          !part(task).shares_source_with(part(task - index)))
        return parts_.clear();
    }
  }
  const OneDnnPart* kernel_for(int64_t images, const Rows& rows, int64_t index) {
    const auto [begin, end] = slice(index);
    ConvPart part = whole_;
    part.images = images;
    part.rows = rows.axis;
    if (whole_.groups > 1) {
      part.groups = end - begin;
      part.channels = part.groups * (whole_.channels / whole_.groups);
      part.filters = part.groups * (whole_.filters / whole_.groups);
    } else {
      (whole_.pass == ConvPass::input_gradient ? part.channels : part.filters) = end - begin;
    }
    auto& kernel = kernels_[part];
    if (!kernel) kernel = std::make_unique<OneDnnPart>(part);
    weight_numbers_ = std::max(weight_numbers_, kernel->weight_numbers());
    return kernel.get();
  }

  const float* pack_weight(const float* weight, Workspace<float>& memory) const {
    float* const packed = memory.reserve(tiling_.slices.count * weight_numbers_);
    parallel_tasks(tiling_.slices.count, [&](int64_t slice) {
      part(slice).pack_weight(weight + place_of(slice).weight, packed + slice * weight_numbers_);
    });
    return packed;
  }

  ConvPart whole_;
  OneDnnTiling tiling_;
  std::vector<Rows> rows_;
  std::map<ConvPart, std::unique_ptr<OneDnnPart>> kernels_;
  std::vector<const OneDnnPart*> parts_;  // by images, rows and slices
  int64_t weight_numbers_ = 0;            // of a slice
};

// Whether oneDNN's kernels are the faster ones, where there are any.
bool worth_trying(const ConvPart& whole) {
  // It would copy the pixels that are met first.
  const bool point = whole.rows.kernel * whole.columns.kernel == 1;
  if (point && whole.rows.stride * whole.columns.stride > 1) return false;
  // Few channels: sums for blocks of them would be mostly empty, and images are read as they lie,
  // unless they have to be cut.
  constexpr int64_t kFewChannels = 8;
  if (whole.groups > 1 || whole.channels >= kFewChannels) return true;
  return whole.pass == ConvPass::weight_gradient ||
         (whole.pass == ConvPass::output && OneDnnTiling(whole).rows.count == 1);
}

// Null where there is none. Plans of the shapes that were met last are kept, up to a number.
std::shared_ptr<const OneDnnPlan> plan_for(const ConvPart& whole) {
  if (!worth_trying(whole)) return nullptr;
  constexpr size_t kMost = 256;
  static std::mutex mutex;
  static std::map<ConvPart, std::shared_ptr<const OneDnnPlan>> plans;
  const std::lock_guard lock(mutex);
  if (plans.size() >= kMost && !plans.contains(whole)) plans.clear();
  auto& plan = plans[whole];
  if (!plan) plan = std::make_shared<OneDnnPlan>(whole);
  return plan->usable() ? plan : nullptr;
}

ConvPart whole_part(ConvPass pass, const Array& x, const Array& weight, const Array& y,
                    const ConvParams& params) {
  const auto axis = [&](int dim, int64_t stride, int64_t padding, int64_t dilation) {
    return ConvPartAxis{x.size(dim), y.size(dim), weight.size(dim), stride,
                        dilation,    padding,     padding};
  };
  const int64_t x_plane = x.size(2) * x.size(3), y_plane = y.size(2) * y.size(3);
  ConvPart part{pass,
                x.size(0),
                x.size(1),
                y.size(1),
                params.groups,
                axis(2, params.stride_h, params.padding_h, params.dilation_h),
                axis(3, params.stride_w, params.padding_w, params.dilation_w),
                x.size(1) * x_plane,
                x_plane,
                y.size(1) * y_plane,
                y_plane,
                weight.numel() / std::max<int64_t>(weight.size(0), 1)};
  return part;
}

// Whether these arrays are what its kernels read.
bool readable(const Array& x, const Array& weight, const Array& y) {
  for (const Array* array : {&x, &weight, &y})
    if (array->dtype() != DType::f32 || !array->is_contiguous() || array->numel() == 0)
      return false;
  return true;
}

}  // namespace

bool onednn_conv2d(const Array& x, const Array& weight, const Array& bias, const ConvParams& params,
                   const Array& y) {
  if (!readable(x, weight, y)) return false;
  if (bias.defined() && (bias.dtype() != DType::f32 || !bias.is_contiguous())) return false;
  ConvPart whole = whole_part(ConvPass::output, x, weight, y, params);
  whole.bias = bias.defined();
  const auto plan = plan_for(whole);
  if (!plan) return false;
  plan->output(x.data<float>(), weight.data<float>(), whole.bias ? bias.data<float>() : nullptr,
               y.data<float>());
  return true;
}

bool onednn_conv2d_input_gradient(const Array& weight, const Array& dy, const ConvParams& params,
                                  const Array& dx, float beta) {
  if (!readable(dx, weight, dy)) return false;
  ConvPart whole = whole_part(ConvPass::input_gradient, dx, weight, dy, params);
  whole.accumulate = beta != 0;
  const auto plan = plan_for(whole);
  if (!plan) return false;
  plan->input_gradient(dy.data<float>(), weight.data<float>(), dx.data<float>());
  return true;
}

bool onednn_conv2d_weight_gradient(const Array& x, const Array& dy, const ConvParams& params,
                                   const Array& dweight, float beta) {
  if (!readable(x, dweight, dy)) return false;
  ConvPart whole = whole_part(ConvPass::weight_gradient, x, dweight, dy, params);
  whole.accumulate = beta != 0;
  const auto plan = plan_for(whole);
  if (!plan) return false;
  plan->weight_gradient(x.data<float>(), dy.data<float>(), dweight.data<float>());
  return true;
}

}  // namespace binade::kernels::cpu

#else

namespace binade::kernels::cpu {

bool onednn_conv2d(const Array&, const Array&, const Array&, const ConvParams&, const Array&) {
  return false;
}
bool onednn_conv2d_input_gradient(const Array&, const Array&, const ConvParams&, const Array&,
                                  float) {
  return false;
}
bool onednn_conv2d_weight_gradient(const Array&, const Array&, const ConvParams&, const Array&,
                                   float) {
  return false;
}

}  // namespace binade::kernels::cpu

#endif
