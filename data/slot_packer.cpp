#include <binade/data/slot_packer.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <binade/core/kernels/split_rules.h>

namespace binade::data {

namespace {

bool is_image(PartKind kind) {
  return kind == PartKind::vit || kind == PartKind::vae || kind == PartKind::noise;
}

const PatchGrid& grid_of(PartKind kind, const SlotLayout& layout) {
  return kind == PartKind::vit ? layout.pixels : layout.latents;
}

}  // namespace

Part text_part(std::vector<int32_t> ids, bool loss, double drop) {
  return {.kind = PartKind::text, .ids = std::move(ids), .loss = loss, .drop = drop};
}

Part image_part(PartKind kind, Array grid, double drop) {
  check(is_image(kind), "an image part is of kind vit, vae or noise");
  return {.kind = kind, .grid = std::move(grid), .loss = kind == PartKind::noise, .drop = drop};
}

Sample thinned(const Sample& sample, RandomStream& random) {
  Sample left = sample;
  for (size_t i = 0; i < left.size(); ++i) {
    Part& part = left[i];
    if (part.drop == 0) continue;
    check(part.drop > 0 && part.drop <= 1, "part ", i, " of a sample is dropped with probability ",
          part.drop, "; that is none");
    check(!part.loss && part.kind != PartKind::noise, "part ", i,
          " of a sample has a loss and may be dropped; only what others are learned from may be");
    if (random.chance(part.drop))
      part.kind = part.kind == PartKind::text ? PartKind::no_text : PartKind::no_image;
  }
  return left;
}

int64_t PatchGrid::tokens(const Array& grid) const {
  check(grid.defined() && grid.dims() == 3 && grid.dtype() == DType::f32 &&
            grid.device().is_cpu() && grid.size(0) == channels,
        "an image part needs a grid (", channels, ", H, W) f32 on the CPU");
  const int64_t height = grid.size(1), width = grid.size(2);
  check(height > 0 && width > 0 && height % patch == 0 && width % patch == 0, "an image of ",
        height, " x ", width, " cannot be cut into patches of ", patch, " x ", patch);
  check(height / patch <= side && width / patch <= side, "an image of ", height / patch, " x ",
        width / patch, " patches exceeds the position table of ", side, " x ", side);
  const Array all = grid.contiguous();
  const auto* values = all.data<float>();
  check(std::all_of(values, values + all.numel(), [](float v) { return std::isfinite(v); }),
        "an image holds a value that is not finite");
  return height / patch * (width / patch);
}

namespace {

// visit(element of the grid, element of the patches), for grids (C, H, W).
template <class Visit>
void for_patches(int64_t channels, int64_t height, int64_t width, int64_t patch,
                 const Visit& visit) {
  const int64_t columns = width / patch;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t column = 0; column < columns; ++column) {
        const int64_t first = (c * height + y) * width + column * patch;
        const int64_t place = (y / patch * columns + column) * patch + y % patch;
        for (int64_t x = 0; x < patch; ++x) visit(first + x, (place * patch + x) * channels + c);
      }
}

}  // namespace

Array to_patches(const Array& grid, int64_t patch) {
  const Array from = grid.contiguous();
  const int64_t height = grid.size(1), width = grid.size(2);
  const Array to =
      Array::empty({height / patch * (width / patch), patch * patch * grid.size(0)}, DType::f32);
  for_patches(
      grid.size(0), height, width, patch,
      [a = from.data<float>(), b = to.data<float>()](int64_t i, int64_t j) { b[j] = a[i]; });
  return to;
}

Array from_patches(const Array& patches, int64_t patch, int64_t channels, int64_t width) {
  const Array from = patches.contiguous();
  const int64_t height = patches.size(0) * patch * patch / width;
  const Array to = Array::empty({channels, height, width}, DType::f32);
  for_patches(
      channels, height, width, patch,
      [a = from.data<float>(), b = to.data<float>()](int64_t i, int64_t j) { b[i] = a[j]; });
  return to;
}

SlotCounts slots_of(const Sample& sample, const SlotLayout& layout) {
  SlotCounts counts;
  for (const Part& part : sample) {
    if (part.kind == PartKind::text) counts.understanding += std::ssize(part.ids) + 2;
    if (!is_image(part.kind)) continue;
    const int64_t tokens = grid_of(part.kind, layout).tokens(part.grid);
    const bool seen_by_vit = part.kind == PartKind::vit;
    counts.understanding += 2 + (seen_by_vit ? tokens : 0);
    counts.vit += seen_by_vit ? tokens : 0;
    counts.generation += seen_by_vit ? 0 : tokens;
  }
  return counts;
}

namespace {

bool have_room(const SlotLayout& layout, const SlotCounts& used, const SlotCounts& counts) {
  return used.understanding + counts.understanding <= layout.understanding &&
         used.generation + counts.generation <= layout.generation &&
         used.vit + counts.vit <= layout.vit;
}

void check_room(const SlotLayout& layout, const SlotCounts& used, const SlotCounts& counts) {
  check(have_room(layout, used, counts), "a sample of ", counts.understanding, " understanding, ",
        counts.generation, " generation and ", counts.vit, " ViT slots does not fit a row of ",
        layout.understanding, ", ", layout.generation, " and ", layout.vit, ", of which ",
        used.understanding, ", ", used.generation, " and ", used.vit, " are used");
}

}  // namespace

void check_fits(const Sample& sample, const SlotLayout& layout) {
  check_room(layout, {}, slots_of(sample, layout));
}

SlotPacker::SlotPacker(const SlotLayout& layout, int64_t rows)
    : layout_(layout),
      used_(static_cast<size_t>(std::max<int64_t>(rows, 0))),
      samples_(used_.size()) {
  const int64_t U = layout.understanding, G = layout.generation, V = layout.vit;
  check(rows > 0 && U > 0 && G > 0 && V > 0, "a pack needs rows and slots of every kind, got ",
        rows, " rows of ", U, " understanding, ", G, " generation and ", V, " ViT slots");
  const auto i32 = [&](const Shape& shape, double value = 0) {
    return Array::full(shape, value, DType::i32);
  };
  packed_.ids = i32({rows, U});
  packed_.targets = i32({rows, U}, -100);
  packed_.slots = i32({rows, kernels::kSlotFields, U + G});
  packed_.slots.slice(1, 0, 1).fill(-1);
  packed_.positions = i32({rows, U + G});
  packed_.latents = Array::zeros({rows, G, layout.latents.values()}, DType::f32);
  packed_.logit_times =
      Array::full({rows, G}, -std::numeric_limits<double>::infinity(), DType::f32);
  packed_.noised = Array::zeros({rows, G}, DType::f32);
  packed_.latent_places = i32({rows, G});
  packed_.patches = Array::zeros({rows, V, layout.pixels.values()}, DType::f32);
  packed_.patch_places = i32({rows, V});
  packed_.patch_images = i32({rows, V}, -1);
  packed_.patch_slots = i32({rows, V}, static_cast<double>(U));
}

bool SlotPacker::fits(int64_t row, const SlotCounts& counts) const {
  return have_room(layout_, used_[static_cast<size_t>(row)], counts);
}

// Writes the parts of one sample into a row.
class SlotPacker::Writer {
 public:
  Writer(SlotPacker& packer, int64_t row, const SampleEnd& from)
      : packer_(packer),
        packed_(packer.packed_),
        layout_(packer.layout_),
        row_(row),
        used_(packer.used_[static_cast<size_t>(row)]),
        at_(from) {}

  void add(const Part& part, RandomStream& random) {
    if (part.kind == PartKind::text) text(part);
    if (is_image(part.kind)) image(part, random);
    if (part.kind == PartKind::no_image) ++at_.position;
  }
  const SampleEnd& end() const { return at_; }

 private:
  void text(const Part& part) {
    const int64_t first = used_.understanding, count = std::ssize(part.ids) + 2;
    auto* const ids = packed_.ids.select(0, row_).data<int32_t>() + first;
    ids[0] = layout_.text_begin;
    std::copy(part.ids.begin(), part.ids.end(), ids + 1);
    ids[count - 1] = layout_.text_end;
    if (part.loss) {
      std::copy(ids + 1, ids + count, packed_.targets.select(0, row_).data<int32_t>() + first);
      packed_.labels += count - 1;
    }
    for (int64_t i = 0; i < count; ++i, ++at_.position) mark(first + i, kernels::kCausalSplit);
    used_.understanding += count;
    ++at_.split;
  }

  void image(const Part& part, RandomStream& random) {
    const bool seen_by_vit = part.kind == PartKind::vit, noised = part.kind == PartKind::noise;
    const auto mode = noised ? kernels::kNoiseSplit : kernels::kFullSplit;
    const PatchGrid& grid = grid_of(part.kind, layout_);
    const Array values = to_patches(part.grid, grid.patch);
    auto* const ids = packed_.ids.select(0, row_).data<int32_t>();
    ids[used_.understanding] = layout_.image_begin;
    mark(used_.understanding++, mode);
    const auto u = static_cast<float>(noised ? random.normal() : 0);
    const auto* token = values.data<float>();
    for (int64_t i = 0; i < values.size(0); ++i, token += values.size(1)) {
      const auto place = static_cast<int32_t>(place_of(part.grid, grid, i));
      if (seen_by_vit) {
        patch(token, place, used_.understanding);
        mark(used_.understanding++, mode);
      } else {
        latent(token, place, noised, u);
        mark(layout_.understanding + used_.generation++, mode);
      }
    }
    ids[used_.understanding] = layout_.image_end;
    mark(used_.understanding++, mode);
    packer_.images_ += seen_by_vit;
    ++at_.split;
    at_.position += !noised;
  }

  static int64_t place_of(const Array& image, const PatchGrid& grid, int64_t token) {
    const int64_t columns = image.size(2) / grid.patch;
    return token / columns * grid.side + token % columns;
  }

  void patch(const float* token, int32_t place, int64_t slot) {
    const int64_t v = used_.vit++;
    copy(token, packed_.patches, v);
    set(packed_.patch_places, v, place);
    set(packed_.patch_images, v, packer_.images_);
    set(packed_.patch_slots, v, static_cast<int32_t>(slot));
  }

  void latent(const float* token, int32_t place, bool noised, float u) {
    const int64_t g = used_.generation;
    copy(token, packed_.latents, g);
    set(packed_.latent_places, g, place);
    if (!noised) return;
    set(packed_.logit_times, g, u);
    set(packed_.noised, g, 1.0f);
    ++packed_.noised_tokens;
  }

  // The slot at `place` of the row is the next of the sample.
  void mark(int64_t place, int32_t mode) {
    const int64_t tokens = packed_.slots.size(2);
    auto* field = packed_.slots.data<int32_t>() + row_ * kernels::kSlotFields * tokens + place;
    for (const int32_t value : {at_.sample, at_.order++, at_.split, mode}) {
      *field = value;
      field += tokens;
    }
    set(packed_.positions, place, at_.position);
    ++packed_.used;
  }

  // A token to its place in the row of `rows` (R, places, values).
  void copy(const float* token, const Array& rows, int64_t place) const {
    const int64_t values = rows.size(2);
    std::copy_n(token, values, rows.data<float>() + (row_ * rows.size(1) + place) * values);
  }
  template <class T>
  void set(const Array& rows, int64_t place, T value) const {
    rows.data<T>()[row_ * rows.size(1) + place] = value;
  }

  SlotPacker& packer_;
  PackedSlots& packed_;
  const SlotLayout& layout_;
  int64_t row_;
  SlotCounts& used_;
  SampleEnd at_;
};

SampleEnd SlotPacker::add(int64_t row, const Sample& sample, RandomStream& random,
                          const SampleEnd& from) {
  check(row >= 0 && row < std::ssize(used_), "there is no row ", row, " among ", used_.size());
  check_room(layout_, used_[static_cast<size_t>(row)], slots_of(sample, layout_));
  Writer writer(*this, row, from);
  for (const Part& part : sample) writer.add(part, random);
  ++samples_[static_cast<size_t>(row)];
  ++packed_.samples;
  return writer.end();
}

SampleEnd SlotPacker::add(int64_t row, const Sample& sample, RandomStream& random) {
  check(row >= 0 && row < std::ssize(samples_), "there is no row ", row, " among ",
        samples_.size());
  return add(row, sample, random, {.sample = samples_[static_cast<size_t>(row)]});
}

PackedSlots pack_step(const SlotLayout& layout, const PackOptions& options, int64_t step,
                      const std::function<Sample(RandomStream&)>& make_sample) {
  RandomStream random(options.seed, static_cast<uint64_t>(step));
  SlotPacker packer(layout, options.rows);
  struct Waiting {
    Sample sample;
    SlotCounts counts;
  };
  std::vector<Waiting> waiting;
  for (int64_t row = 0; row < options.rows; ++row) {
    if (std::ssize(waiting) > kWaiting)  // the newest
      waiting.erase(waiting.begin(), waiting.end() - kWaiting);
    // First those that did not fit before, then fresh ones.
    for (size_t next = 0; next < static_cast<size_t>(kWaiting);) {
      if (next == waiting.size()) {
        Sample sample = make_sample(random);
        if (options.thin) sample = thinned(sample, random);
        const SlotCounts counts = slots_of(sample, layout);
        check_room(layout, {}, counts);
        waiting.push_back({std::move(sample), counts});
      }
      if (packer.fits(row, waiting[next].counts)) {
        packer.add(row, waiting[next].sample, random);
        waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(next));
      } else {
        ++next;
      }
    }
  }
  return packer.packed();
}

PackedSlots pack_each(const std::vector<Sample>& samples, SlotLayout layout, RandomStream& random,
                      std::vector<SampleEnd>* ends) {
  check(!samples.empty(), "there is no sample to pack");
  check(ends == nullptr || ends->size() == samples.size(),
        "samples that go on need an end each; got ", ends ? ends->size() : 0, " for ",
        samples.size());
  layout.understanding = layout.generation = layout.vit = 1;
  for (const Sample& sample : samples) {
    const SlotCounts counts = slots_of(sample, layout);
    layout.understanding = std::max(layout.understanding, counts.understanding);
    layout.generation = std::max(layout.generation, counts.generation);
    layout.vit = std::max(layout.vit, counts.vit);
  }
  SlotPacker packer(layout, std::ssize(samples));
  for (size_t i = 0; i < samples.size(); ++i) {
    const SampleEnd from = ends ? (*ends)[i] : SampleEnd{};
    const SampleEnd end = packer.add(static_cast<int64_t>(i), samples[i], random, from);
    if (ends) (*ends)[i] = end;
  }
  return packer.packed();
}

}  // namespace binade::data
