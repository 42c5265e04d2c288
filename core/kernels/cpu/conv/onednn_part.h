// One part of a convolution, computed by one of oneDNN's kernels on the calling thread. These read
// and write channels in blocks; a part's numbers are laid out for them, and back, while they are in
// cache. Private to this folder, and empty where oneDNN is not there.
#pragma once

#if BINADE_HAVE_ONEDNN

#include <compare>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>

#include <binade/core/kernels/cpu/matmul/block_gemm.h>

namespace binade::kernels::cpu {

enum class ConvPass : uint8_t { output, input_gradient, weight_gradient };

// A dimension of images: of x and y, and zeros around x.
struct ConvPartAxis {
  int64_t size, outputs, kernel, stride, dilation, before, after;

  int64_t reach() const { return (kernel - 1) * dilation + 1; }  // of the kernel
  auto operator<=>(const ConvPartAxis&) const = default;
};

// What a kernel is made for: x (images, channels, rows.size, columns.size), weight (filters,
// channels / groups, rows.kernel, columns.kernel) and y (images, filters, rows.outputs,
// columns.outputs), each a part of a larger array whose last dimension is whole. Pitches are the
// distances in these, in numbers: of images, channels (or filters) and, for the weight, filters.
struct ConvPart {
  ConvPass pass;
  int64_t images, channels, filters, groups;
  ConvPartAxis rows, columns;
  int64_t x_image, x_plane, y_image, y_plane, weight_filter;
  bool bias = false;        // of the output
  bool accumulate = false;  // gradients are added to what is there

  auto operator<=>(const ConvPart&) const = default;
};

// Safe to be used by several threads at once.
class OneDnnPart {
 public:
  struct Source {
    const float* data;
    bool packed;
  };

  // Throws dnnl::error where oneDNN has no direct kernel for it.
  explicit OneDnnPart(const ConvPart& part);

  // Numbers of the weight as the kernel reads (or, of its gradient, writes) it.
  int64_t weight_numbers() const;
  void pack_weight(const float* weight, float* packed) const;
  void unpack_weight(const float* packed, float* weight) const;

  // The same of what parts that differ in their filters (for the gradient of x: in its channels)
  // share: x, or dy.
  int64_t source_numbers() const;
  void pack_source(const float* source, float* packed) const;
  // Whether the other one reads the same packed numbers.
  bool shares_source_with(const OneDnnPart& other) const;
  bool shares_weight_with(const OneDnnPart& other) const;

  // The source is packed, or `source` are its first numbers in the whole array. So are those of the
  // other pointers, but for the weight and its gradient, which are packed.
  void output(Source source, const float* weight, const float* bias, float* y) const;
  void input_gradient(Source source, const float* weight, float* dx) const;
  void weight_gradient(Source source, const float* dy, float* dweight) const;

 private:
  // A part of an array, and the same as the kernel has it.
  struct Layout {
    dnnl::memory::desc plain, blocked;
    std::optional<dnnl::reorder> move;  // none where both are one
  };
  class Run;

  static void pack(const Layout& layout, const float* from, float* packed);

  template <class Kernel>
  void choose(const typename Kernel::primitive_desc& chosen);
  static Layout inward(const dnnl::memory::desc& plain, const dnnl::memory::desc& blocked);
  static Layout outward(const dnnl::memory::desc& plain, const dnnl::memory::desc& blocked,
                        bool accumulate);

  const Layout& source() const { return pass_ == ConvPass::input_gradient ? y_ : x_; }

  ConvPass pass_;
  dnnl::primitive kernel_;
  dnnl::memory::desc bias_, scratchpad_;
  Layout x_, y_, weight_;
};

}  // namespace binade::kernels::cpu

#endif
