// Array: a value-semantic handle on shared storage: dtype, device, shape, strides. It knows nothing
// of gradients. Copying an Array copies the handle; `clone()` copies the elements. Views share
// storage. Sizes and strides are int64_t, strides in elements, row-major by default.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <span>
#include <vector>

#include <binade/core/device.h>
#include <binade/core/dtype.h>
#include <binade/core/shape.h>

namespace binade {

// A block of memory on one device. `version` counts in-place writes, so that the tape can tell when
// a value that backward needs was changed after it was saved.
class Storage : public std::enable_shared_from_this<Storage> {
 public:
  // Memory of the device's pool; throws OutOfMemory.
  static std::shared_ptr<Storage> allocate(int64_t bytes, Device device);
  // Memory owned by somebody else, kept alive through `owner`.
  static std::shared_ptr<Storage> wrap(void* data, int64_t bytes, Device device,
                                       std::shared_ptr<void> owner);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  bool is_foreign() const { return owner_ != nullptr; }  // memory owned by somebody else
  uint64_t version() const { return version_; }
  void bump_version();  // noted in the thread's WriteLog, too

 private:
  Storage(std::byte* data, int64_t bytes, Device device, std::shared_ptr<void> owner)
      : data_(data), bytes_(bytes), device_(device), owner_(std::move(owner)) {}
  std::byte* data_;
  int64_t bytes_;
  Device device_;
  uint64_t version_ = 0;
  std::shared_ptr<void> owner_;  // null: the pool's
};

// What kernels share about a slice: positions [start, end) with a step > 0.
inline constexpr int64_t kToEnd = INT64_MAX;

class Array {
 public:
  Array() = default;  // undefined: no storage

  // ---- creation --------------------------------------------------------------------------------
  static Array empty(const Shape& shape, DType dtype, Device device = {});
  static Array zeros(const Shape& shape, DType dtype, Device device = {});
  static Array full(const Shape& shape, double value, DType dtype, Device device = {});
  // 0, 1, ..., n-1.
  static Array arange(int64_t n, DType dtype, Device device = {});
  // Elements copied from host memory, row-major.
  template <class T>
  static Array from(std::span<const T> values, const Shape& shape, Device device = {}) {
    return from_host(values.data(), static_cast<int64_t>(values.size()), shape, dtype_of<T>(),
                     device);
  }
  template <class T>
  static Array from(const std::vector<T>& values, const Shape& shape, Device device = {}) {
    return from(std::span<const T>(values), shape, device);
  }
  // Foreign memory, not copied; `owner` keeps it alive (may be null when the caller does).
  static Array from_blob(void* data, const Shape& shape, DType dtype, Device device = {},
                         std::shared_ptr<void> owner = nullptr);
  // A view of `storage` from `offset` (in elements).
  static Array view_of(std::shared_ptr<Storage> storage, DType dtype, const Shape& shape,
                       const Shape& strides, int64_t offset);

  // ---- what it is ------------------------------------------------------------------------------
  bool defined() const { return storage_ != nullptr; }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device(); }
  const Shape& shape() const { return shape_; }
  const Shape& strides() const { return strides_; }
  int dims() const { return shape_.dims(); }
  int64_t size(int dim) const { return shape_.at(dim); }
  int64_t stride(int dim) const { return strides_.at(dim); }
  int64_t numel() const { return numel_; }
  int64_t bytes() const { return numel_ * size_of(dtype_); }
  int64_t offset() const { return offset_; }  // elements
  bool is_contiguous() const;                 // row-major without gaps
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  bool shares_storage(const Array& other) const { return storage_ == other.storage_; }
  // Whether this handle alone sees the memory, which is the pool's: it may be written over.
  bool is_unshared() const { return storage_.use_count() == 1 && !storage_->is_foreign(); }

  // First element. The typed form checks the dtype.
  void* data() const { return storage_->data() + offset_ * size_of(dtype_); }
  template <class T>
  T* data() const {
    check(dtype_of<T>() == dtype_, "array holds ", name_of(dtype_), ", asked for ",
          name_of(dtype_of<T>()));
    return static_cast<T*>(data());
  }

  // ---- views (share storage) -------------------------------------------------------------------
  Array transpose(int dim0, int dim1) const;
  Array permute(std::span<const int> order) const;
  Array slice(int dim, int64_t start, int64_t end = kToEnd, int64_t step = 1) const;
  Array select(int dim, int64_t index) const;  // drops the dimension
  Array unsqueeze(int dim) const;
  Array squeeze(int dim) const;             // the dimension must have size 1
  Array expand(const Shape& shape) const;   // broadcasts with stride 0
  bool can_view(const Shape& shape) const;  // whether view() works without a copy
  Array view(const Shape& shape) const;     // one size may be -1; throws if a copy is needed
  Array reshape(const Shape& shape) const;  // view() where possible, otherwise a copy
  Array flatten() const { return reshape({-1}); }

  // ---- copies ----------------------------------------------------------------------------------
  Array contiguous() const;       // itself if contiguous
  Array clone() const;            // always a contiguous copy
  Array to(DType dtype) const;    // itself if nothing changes
  Array to(Device device) const;  // itself if nothing changes; waits for the copy

  // ---- in place (bump the storage's version) ----------------------------------------------------

  const Array& fill(double value) const;
  const Array& zero() const;
  // Elements of `source`, broadcast and converted; the devices may differ (then it waits).
  const Array& copy_from(const Array& source) const;
  void bump_version() const { storage_->bump_version(); }

  // ---- reading (host synchronisation on a GPU) -------------------------------------------------
  double item() const;  // the only element, as double
  template <class T>
  std::vector<T> to_vector() const {  // row-major; converts the dtype
    std::vector<T> values(static_cast<size_t>(numel_));
    copy_to_host(values.data(), dtype_of<T>());
    return values;
  }

 private:
  static Array from_host(const void* values, int64_t count, const Shape& shape, DType dtype,
                         Device device);
  void copy_to_host(void* values, DType dtype) const;

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  Shape strides_;
  int64_t offset_ = 0;
  int64_t numel_ = 0;
  DType dtype_ = DType::f32;
};

// Reads well: values of small arrays, corners of large ones, with shape, dtype and device.
std::ostream& operator<<(std::ostream& out, const Array& array);

}  // namespace binade
