// What convolutions on the CPU read of images: for a run of output pixels, the pixels that each
// element of the kernel meets. Private to this folder.
#pragma once

#include <cstring>
#include <vector>

#include <binade/core/array.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>

namespace binade::kernels::cpu {

// One dimension of a convolution: output o and element e of the kernel meet pixel
// o · step + offsets[e] of `size`; outside of the image that is a zero.
struct PatchAxis {
  int64_t size, outputs, step;
  std::vector<int64_t> offsets;

  int64_t first() const;  // the least offset …
  int64_t last() const;   // … and the largest
};

struct PatchGrid {
  PatchAxis rows, columns;

  int64_t pixels() const { return rows.outputs * columns.outputs; }
  int64_t taps() const {  // elements of a channel's kernel, row by row
    return static_cast<int64_t>(rows.offsets.size() * columns.offsets.size());
  }
};

// Reads the patches of images (N, C, H, W): of any floating dtype, converted to T.
//
// Where kernels stay inside of the images and step by one pixel, these are read in place. Otherwise
// the rows that are needed are copied into a strip first, with zeros around them, and with those
// columns together that one element of the kernel meets. In both cases pixel `base` of a line and
// tap t of channel c is data()[c · channel_pitch() + taps()[t] + base + i] for neighbours i.
template <class T>
class PatchReader {
 public:
  using Vector __attribute__((vector_size(32))) = T;
  static constexpr int64_t kLanes = 32 / sizeof(T);    // of a vector
  static constexpr int64_t kRoundUp = 64 / sizeof(T);  // at least a vector, in whole cache lines
  static constexpr int64_t kSlack = 4 * kLanes;        // numbers that may be read behind a line

  // Output pixels of one row: [first, first + count) of the selection.
  struct Line {
    int64_t first, count, base;
  };

  PatchReader(const Array& images, const PatchGrid& grid);

  // Output pixels [begin, end) of all images, one image after the other. With `copied`, a strip is
  // made even where they could be read in place, as channels lie close to each other there.
  void select(int64_t begin, int64_t end, bool copied = false);
  // Makes `count` channels of the selection readable, and kSlack numbers behind each line.
  void load(int64_t channel, int64_t count);
  // Lays the loaded channels out in panels of `width` pixels, a multiple of what a vector holds
  // or all of them: pixel j, channel c and tap t at
  // packed[j / width · panel + (c · taps + t) · width + j % width], zeros behind the last pixel. A
  // panel has room for kRoundUp numbers behind its last row.
  void pack(int64_t channels, int64_t width, T* packed, int64_t panel);

  const std::vector<Line>& lines() const { return lines_; }
  std::vector<Line> runs() const;  // lines, those that follow one another in memory as one
  const T* data() const { return data_; }
  int64_t channel_pitch() const { return channel_pitch_; }
  const std::vector<int64_t>& taps() const { return in_place_ ? plane_taps_ : strip_taps_; }

 private:
  // Rows of one image in the strip.
  struct Part {
    int64_t image, place, low, rows;
  };
  // A vector of a panel's row.
  struct Move {
    int64_t from, to;
  };

  bool fits_in_place(int64_t end) const;
  void select_in_place(int64_t begin, int64_t end);
  void select_strip(int64_t begin, int64_t end);
  void fill_row(const std::byte* row, T* line) const;
  void cut(int64_t width);
  void pack_rows(int64_t channels, int64_t width, T* packed, int64_t panel) const;
  template <int Moves>
  void pack_panel(const Move* moves, int64_t count, int64_t channels, int64_t width, T* to) const;

  const Array& images_;
  const PatchGrid& grid_;
  bool inside_;  // kernels stay inside of the images, which are read as they lie
  std::vector<int64_t> plane_taps_, strip_taps_;
  std::vector<int64_t> phases_;   // of columns: offsets modulo the step …
  int64_t low_ = 0, length_ = 0;  // … and columns [low_, low_ + length_) of each in the strip
  std::vector<char> used_rows_;   // modulo the step

  int64_t begin_ = 0, end_ = 0, cut_width_ = 0;
  bool in_place_ = false;
  int64_t channel_pitch_ = 0;
  std::vector<Line> lines_;
  std::vector<Part> parts_;
  std::vector<Move> moves_;
  std::vector<size_t> panel_moves_;  // where each panel's begin
  Workspace<T> strip_;
  const T* data_ = nullptr;
};

}  // namespace binade::kernels::cpu
