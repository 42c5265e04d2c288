#include <binade/core/kernels/cpu/conv/patches.h>

#include <algorithm>

namespace binade::kernels::cpu {

namespace {

constexpr int64_t kCacheLine = 64;  // bytes

int64_t floor_div(int64_t a, int64_t b) {
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

template <class T>
void copy_vector(const T* from, T* to) {
  std::memcpy(to, from, PatchReader<T>::kLanes * sizeof(T));
}

// Runs are short: a call would cost as much.
template <class T>
void copy_run(const T* from, int64_t count, T* to) {
  constexpr int64_t kLanes = PatchReader<T>::kLanes;
  if (count >= kLanes) {
    for (int64_t i = 0; i + kLanes < count; i += kLanes) copy_vector(from + i, to + i);
    copy_vector(from + count - kLanes, to + count - kLanes);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

}  // namespace

int64_t PatchAxis::first() const {
  return *std::min_element(offsets.begin(), offsets.end());
}

int64_t PatchAxis::last() const {
  return *std::max_element(offsets.begin(), offsets.end());
}

template <class T>
PatchReader<T>::PatchReader(const Array& images, const PatchGrid& grid)
    : images_(images), grid_(grid) {
  const PatchAxis &rows = grid.rows, &columns = grid.columns;
  const auto within = [](const PatchAxis& axis) {
    return axis.first() >= 0 && (axis.outputs - 1) * axis.step + axis.last() < axis.size;
  };
  inside_ = images.dtype() == dtype_of<T>() && columns.step == 1 && within(rows) && within(columns);

  const int64_t step = columns.step;
  low_ = floor_div(columns.first(), step);
  length_ = floor_div(columns.last(), step) - low_ + columns.outputs;
  for (const int64_t offset : columns.offsets)
    if (const int64_t phase = offset - floor_div(offset, step) * step;
        std::find(phases_.begin(), phases_.end(), phase) == phases_.end())
      phases_.push_back(phase);
  const int64_t pitch = static_cast<int64_t>(phases_.size()) * length_;
  used_rows_.assign(static_cast<size_t>(rows.step), 0);
  for (const int64_t row : rows.offsets) {
    used_rows_[static_cast<size_t>((row - rows.first()) % rows.step)] = 1;
    for (const int64_t column : columns.offsets) {
      const int64_t place = floor_div(column, step), phase = column - place * step;
      const auto at = std::find(phases_.begin(), phases_.end(), phase) - phases_.begin();
      strip_taps_.push_back((row - rows.first()) * pitch + at * length_ + place - low_);
      plane_taps_.push_back(row * columns.size + column);
    }
  }
}

template <class T>
void PatchReader<T>::select(int64_t begin, int64_t end, bool copied) {
  begin_ = begin;
  end_ = end;
  cut_width_ = 0;
  lines_.clear();
  parts_.clear();
  in_place_ = !copied && inside_ && fits_in_place(end);
  if (in_place_)
    select_in_place(begin, end);
  else
    select_strip(begin, end);
}

// Whether vectors from any pixel of the selection, in any channel, end inside of the array.
template <class T>
bool PatchReader<T>::fits_in_place(int64_t end) const {
  const int64_t plane = images_.size(2) * images_.size(3), columns = grid_.columns.outputs;
  const int64_t image = (end - 1) / grid_.pixels(), pixel = (end - 1) % grid_.pixels();
  const int64_t last = pixel / columns * grid_.rows.step * grid_.columns.size + pixel % columns +
                       *std::max_element(plane_taps_.begin(), plane_taps_.end());
  return ((image + 1) * images_.size(1) - 1) * plane + last + kSlack < images_.numel();
}

template <class T>
void PatchReader<T>::select_in_place(int64_t begin, int64_t end) {
  const int64_t columns = grid_.columns.outputs;
  channel_pitch_ = images_.size(2) * images_.size(3);
  for (int64_t pixel = begin; pixel < end;) {
    const int64_t image = pixel / grid_.pixels(), within = pixel % grid_.pixels();
    const int64_t row = within / columns, column = within % columns;
    const int64_t count = std::min(columns - column, end - pixel);
    const int64_t base = image * images_.size(1) * channel_pitch_ +
                         row * grid_.rows.step * grid_.columns.size + column;
    lines_.push_back({pixel - begin, count, base});
    pixel += count;
  }
}

template <class T>
void PatchReader<T>::select_strip(int64_t begin, int64_t end) {
  const int64_t pixels = grid_.pixels(), columns = grid_.columns.outputs;
  const int64_t pitch = static_cast<int64_t>(phases_.size()) * length_;
  const PatchAxis& rows = grid_.rows;
  int64_t place = 0;
  for (int64_t image = begin / pixels; image * pixels < end; ++image) {
    const int64_t first = std::max<int64_t>(begin - image * pixels, 0);
    const int64_t last = std::min(end - image * pixels, pixels) - 1;
    const int64_t from = first / columns, to = last / columns;
    parts_.push_back({image, place, from * rows.step + rows.first(),
                      (to - from) * rows.step + rows.last() - rows.first() + 1});
    for (int64_t row = from; row <= to; ++row) {
      const int64_t low = std::max(first - row * columns, int64_t{0});
      const int64_t high = std::min(last - row * columns + 1, columns);
      lines_.push_back({image * pixels + row * columns + low - begin, high - low,
                        place + (row - from) * rows.step * pitch + low});
    }
    place += parts_.back().rows * pitch;
  }
  channel_pitch_ = place;
}

// A row of an image as a row of the strip.
template <class T>
void PatchReader<T>::fill_row(const std::byte* row, T* line) const {
  const int64_t step = grid_.columns.step, size = grid_.columns.size;
  for (const int64_t phase : phases_) {
    // Columns (low_ + i) · step + phase.
    const int64_t start = low_ * step + phase;
    const int64_t begin = std::min(start >= 0 ? 0 : (-start + step - 1) / step, length_);
    const int64_t end =
        std::max(begin, std::min(length_, start >= size ? 0 : (size - 1 - start) / step + 1));
    std::fill(line, line + begin, T(0));
    const int64_t first = start + begin * step, count = end - begin;
    if (images_.dtype() == dtype_of<T>()) {
      const T* from = reinterpret_cast<const T*>(row) + first;
      T* to = line + begin;
      if (step == 1)
        copy_run(from, count, to);
      else if (step == 2)
        for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
      else
        for (int64_t i = 0; i < count; ++i) to[i] = from[step * i];
    } else if (count > 0) {
      load_row(row + first * size_of(images_.dtype()), images_.dtype(), step, count, line + begin);
    }
    std::fill(line + end, line + length_, T(0));
    line += length_;
  }
}

template <class T>
void PatchReader<T>::load(int64_t channel, int64_t count) {
  const int64_t height = images_.size(2), width = images_.size(3);
  if (in_place_) {
    data_ = images_.data<T>() + channel * height * width;
    return;
  }
  const int64_t pitch = static_cast<int64_t>(phases_.size()) * length_;
  T* const strip = strip_.reserve(count * channel_pitch_ + kSlack);
  for (int64_t c = 0; c < count; ++c)
    for (const Part& part : parts_) {
      T* line = strip + c * channel_pitch_ + part.place;
      const std::byte* plane =
          static_cast<const std::byte*>(images_.data()) +
          (part.image * images_.size(1) + channel + c) * height * width * size_of(images_.dtype());
      const int64_t next = c + 1 < count ? height * width * size_of(images_.dtype()) : 0;
      for (int64_t i = 0; i < part.rows; ++i, line += pitch) {
        if (!used_rows_[static_cast<size_t>(i % grid_.rows.step)]) continue;
        const int64_t row = part.low + i;
        if (row < 0 || row >= height) {
          std::fill_n(line, pitch, T(0));
          continue;
        }
        const std::byte* const from = plane + row * width * size_of(images_.dtype());
        for (int64_t ahead = 0; ahead < width * size_of(images_.dtype()); ahead += kCacheLine)
          __builtin_prefetch(from + next + ahead);
        fill_row(from, line);
      }
    }
  std::fill_n(strip + count * channel_pitch_, kSlack, T(0));
  data_ = strip;
}

template <class T>
std::vector<typename PatchReader<T>::Line> PatchReader<T>::runs() const {
  std::vector<Line> runs;
  for (const Line& line : lines_)
    if (!runs.empty() && runs.back().base + runs.back().count == line.base)
      runs.back().count += line.count;
    else
      runs.push_back(line);
  return runs;
}

// Cuts the lines into vectors. The last one of a run brings numbers too many, which the next one in
// the order of memory overwrites.
template <class T>
void PatchReader<T>::cut(int64_t width) {
  cut_width_ = width;
  moves_.clear();
  panel_moves_.clear();
  for (const Line& run : runs())
    for (int64_t done = 0; done < run.count;) {
      const int64_t to = (run.first + done) % width;
      if (to == 0) panel_moves_.push_back(moves_.size());
      moves_.push_back({run.base + done, to});
      done += std::min({kLanes, width - to, run.count - done});
    }
  panel_moves_.push_back(moves_.size());
}

template <class T>
template <int Moves>
void PatchReader<T>::pack_panel(const Move* moves, int64_t count, int64_t channels, int64_t width,
                                T* to) const {
  Move own[Moves > 0 ? Moves : 1];
  for (int i = 0; i < Moves; ++i) own[i] = moves[i];
  const std::vector<int64_t>& offsets = taps();
  for (int64_t c = 0; c < channels; ++c) {
    const T* const channel = data_ + c * channel_pitch_;
    for (const int64_t offset : offsets) {
      const T* const from = channel + offset;
      if constexpr (Moves > 0) {
#pragma GCC unroll 8
        for (int i = 0; i < Moves; ++i) copy_vector(from + own[i].from, to + own[i].to);
      } else {
        for (int64_t i = 0; i < count; ++i) copy_vector(from + moves[i].from, to + moves[i].to);
      }
      to += width;
    }
  }
}

// The rows of all panels, one after the other: in place, rows are far apart.
template <class T>
void PatchReader<T>::pack_rows(int64_t channels, int64_t width, T* packed, int64_t panel) const {
  const std::vector<int64_t>& offsets = taps();
  const bool fetch_ahead = offsets.size() == 1;  // the next row is the next channel's
  for (int64_t c = 0; c < channels; ++c)
    for (size_t t = 0; t < offsets.size(); ++t) {
      const T* const from = data_ + c * channel_pitch_ + offsets[t];
      T* to = packed + (c * static_cast<int64_t>(offsets.size()) + static_cast<int64_t>(t)) * width;
      for (size_t p = 0; p + 1 < panel_moves_.size(); ++p, to += panel)
        for (size_t i = panel_moves_[p]; i < panel_moves_[p + 1]; ++i) {
          const auto& [place, column] = moves_[i];
          if (fetch_ahead && column * static_cast<int64_t>(sizeof(T)) % kCacheLine == 0)
            __builtin_prefetch(from + place + channel_pitch_);
          copy_vector(from + place, to + column);
        }
    }
}

template <class T>
void PatchReader<T>::pack(int64_t channels, int64_t width, T* packed, int64_t panel) {
  if (width != cut_width_) cut(width);
  const size_t panels = panel_moves_.size() - 1;
  if (in_place_) pack_rows(channels, width, packed, panel);
  for (size_t p = 0; p < panels && !in_place_; ++p) {
    T* const to = packed + static_cast<int64_t>(p) * panel;
    const Move* const moves = moves_.data() + panel_moves_[p];
    const auto count = static_cast<int64_t>(panel_moves_[p + 1] - panel_moves_[p]);
    switch (count) {
      case 2:
        pack_panel<2>(moves, count, channels, width, to);
        break;
      case 3:
        pack_panel<3>(moves, count, channels, width, to);
        break;
      case 4:
        pack_panel<4>(moves, count, channels, width, to);
        break;
      default:
        pack_panel<0>(moves, count, channels, width, to);
    }
  }
  const int64_t before = static_cast<int64_t>(panels - 1), filled = end_ - begin_ - before * width;
  if (filled < width)
    for (int64_t row = 0; row < channels * grid_.taps(); ++row)
      std::fill_n(packed + before * panel + row * width + filled, width - filled, T(0));
}

template class PatchReader<float>;
template class PatchReader<double>;

}  // namespace binade::kernels::cpu
