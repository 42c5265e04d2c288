#include <binade/core/array.h>

#include <cstring>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/memory.h>
#include <binade/core/write_log.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/copy.h>
#endif

namespace binade {

// ---- Storage ------------------------------------------------------------------------------------

std::shared_ptr<Storage> Storage::allocate(int64_t bytes, Device device) {
  auto* data = static_cast<std::byte*>(allocate_bytes(bytes, device));
  const std::shared_ptr<Storage> storage(new Storage(data, bytes, device, nullptr));
  WriteLog::note(*storage);
  return storage;
}

std::shared_ptr<Storage> Storage::wrap(void* data, int64_t bytes, Device device,
                                       std::shared_ptr<void> owner) {
  // A pool's block has no owner; a wrapped block without one gets a token so that it is not freed.
  if (owner == nullptr) owner = std::make_shared<char>();
  return std::shared_ptr<Storage>(
      new Storage(static_cast<std::byte*>(data), bytes, device, std::move(owner)));
}

void Storage::bump_version() {
  ++version_;
  WriteLog::note(*this);
}

Storage::~Storage() {
  if (owner_ == nullptr) free_bytes(data_, bytes_, device_);
}

// ---- creation -----------------------------------------------------------------------------------

namespace {

int64_t bytes_of(const Shape& shape, DType dtype) {
  int64_t bytes = 0;
  check(!__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes), "an array of ", shape, " ",
        dtype, " has more bytes than int64 can count");
  return bytes;
}

}  // namespace

Array Array::view_of(std::shared_ptr<Storage> storage, DType dtype, const Shape& shape,
                     const Shape& strides, int64_t offset) {
  Array array;
  array.storage_ = std::move(storage);
  array.shape_ = shape;
  array.strides_ = strides;
  array.offset_ = offset;
  array.numel_ = shape.numel();
  array.dtype_ = dtype;
  return array;
}

Array Array::empty(const Shape& shape, DType dtype, Device device) {
  return view_of(Storage::allocate(bytes_of(shape, dtype), device), dtype, shape,
                 shape.row_major_strides(), 0);
}

Array Array::zeros(const Shape& shape, DType dtype, Device device) {
  return full(shape, 0, dtype, device);
}

Array Array::full(const Shape& shape, double value, DType dtype, Device device) {
  Array array = empty(shape, dtype, device);
  array.fill(value);
  return array;
}

Array Array::arange(int64_t n, DType dtype, Device device) {
  Array array = empty({n}, dtype, device);
  if (n > 0) BINADE_DISPATCH(device, arange(array, 0, 1));
  return array;
}

Array Array::from_blob(void* data, const Shape& shape, DType dtype, Device device,
                       std::shared_ptr<void> owner) {
  return view_of(Storage::wrap(data, bytes_of(shape, dtype), device, std::move(owner)), dtype,
                 shape, shape.row_major_strides(), 0);
}

Array Array::from_host(const void* values, int64_t count, const Shape& shape, DType dtype,
                       Device device) {
  check(count == shape.numel(), count, " values cannot fill an array of ", shape);
  Array host = empty(shape, dtype);
  if (count > 0) std::memcpy(host.data(), values, static_cast<size_t>(host.bytes()));
  return host.to(device);
}

// ---- views --------------------------------------------------------------------------------------

bool Array::is_contiguous() const {
  int64_t expected = 1;
  for (int i = dims() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != expected && numel_ > 0) return false;
    expected *= shape_[i];
  }
  return true;
}

Array Array::transpose(int dim0, int dim1) const {
  Array view = *this;
  const int i = shape_.wrap_dim(dim0), j = shape_.wrap_dim(dim1);
  std::swap(view.shape_[i], view.shape_[j]);
  std::swap(view.strides_[i], view.strides_[j]);
  return view;
}

Array Array::permute(std::span<const int> order) const {
  check(static_cast<int>(order.size()) == dims(), "permute needs ", dims(),
        " positions for the shape ", shape_, ", got ", order.size());
  Array view = *this;
  unsigned seen = 0;
  for (int i = 0; i < dims(); ++i) {
    const int from = shape_.wrap_dim(order[static_cast<size_t>(i)]);
    check(!(seen >> from & 1), "permute names dimension ", from, " twice");
    seen |= 1u << from;
    view.shape_[i] = shape_[from];
    view.strides_[i] = strides_[from];
  }
  return view;
}

Array Array::slice(int dim, int64_t start, int64_t end, int64_t step) const {
  const int d = shape_.wrap_dim(dim);
  const int64_t size = shape_[d];
  const auto clamp = [size](int64_t i) {
    return std::clamp<int64_t>(i < 0 ? i + size : i, 0, size);
  };
  check(step > 0, "slice needs a step above 0, got ", step);
  start = clamp(start);
  end = std::max(clamp(end), start);
  Array view = *this;
  view.shape_[d] = end > start ? (end - start - 1) / step + 1 : 0;
  if (view.shape_[d] > 1) view.strides_[d] *= step;
  view.offset_ += start * strides_[d];
  view.numel_ = view.shape_.numel();
  return view;
}

Array Array::select(int dim, int64_t index) const {
  const int d = shape_.wrap_dim(dim);
  const int64_t size = shape_[d];
  check(index >= -size && index < size, "select: index ", index, " is out of range for size ", size,
        " of dimension ", d, " of ", shape_);
  Array view = *this;
  view.offset_ += (index < 0 ? index + size : index) * strides_[d];
  view.shape_.erase(d);
  view.strides_.erase(d);
  view.numel_ = view.shape_.numel();
  return view;
}

Array Array::unsqueeze(int dim) const {
  check(dim >= -dims() - 1 && dim <= dims(), "unsqueeze: dimension ", dim,
        " is out of range for the shape ", shape_);
  const int d = dim < 0 ? dim + dims() + 1 : dim;
  Array view = *this;
  view.strides_.insert(d, d < dims() ? shape_[d] * strides_[d] : 1);
  view.shape_.insert(d, 1);
  return view;
}

Array Array::squeeze(int dim) const {
  const int d = shape_.wrap_dim(dim);
  check(shape_[d] == 1, "squeeze: dimension ", d, " of ", shape_, " has size ", shape_[d],
        ", not 1");
  return select(d, 0);
}

Array Array::expand(const Shape& shape) const {
  const int added = shape.dims() - dims();
  check(added >= 0, "cannot expand ", shape_, " to ", shape);
  Shape strides = Shape::filled(shape.dims(), 0);
  for (int i = 0; i < dims(); ++i) {
    const int j = i + added;
    check(shape_[i] == shape[j] || shape_[i] == 1, "cannot expand ", shape_, " to ", shape);
    strides[j] = shape_[i] == shape[j] ? strides_[i] : 0;
  }
  return view_of(storage_, dtype_, shape, strides, offset_);
}

namespace {

// Fills in a single -1.
Shape complete(Shape shape, int64_t numel, const Shape& from) {
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < shape.dims(); ++i) {
    if (shape[i] == -1) {
      check(unknown < 0, "reshape: more than one size is -1 in ", shape);
      unknown = i;
    } else {
      check(!__builtin_mul_overflow(known, shape[i], &known), "cannot reshape ", from, " to ",
            shape);
    }
  }
  if (unknown >= 0) {
    check(known > 0 && numel % known == 0, "cannot reshape ", from, " to ", shape);
    shape[unknown] = numel / known;
  }
  check(shape.numel() == numel, "cannot reshape ", from, " to ", shape, ": ", numel, " and ",
        shape.numel(), " elements");
  return shape;
}

// Strides of `shape` over the same elements in the same order; false if that needs a copy.
bool strides_for_view(const Array& array, const Shape& shape, Shape& strides) {
  strides = shape.row_major_strides();
  if (array.is_contiguous()) return true;
  // Walk runs of old dimensions that are contiguous among themselves, and cut each into new ones.
  int new_dim = shape.dims() - 1;
  int64_t run_numel = 1, run_stride = 0;
  bool in_run = false;
  for (int old_dim = array.dims() - 1; old_dim >= 0; --old_dim) {
    if (array.shape()[old_dim] == 1) continue;
    if (!in_run) {
      run_stride = array.strides()[old_dim];
      run_numel = 1;
      in_run = true;
    }
    run_numel *= array.shape()[old_dim];
    int next = old_dim - 1;
    while (next >= 0 && array.shape()[next] == 1) --next;
    if (next >= 0 && array.strides()[next] == run_stride * run_numel) continue;  // run goes on
    int64_t covered = 1;
    while (new_dim >= 0 && (covered < run_numel || shape[new_dim] == 1)) {
      strides[new_dim] = run_stride * covered;
      covered *= shape[new_dim];
      --new_dim;
    }
    if (covered != run_numel) return false;
    in_run = false;
  }
  while (new_dim >= 0 && shape[new_dim] == 1) strides[new_dim--] = 1;
  return new_dim < 0;
}

}  // namespace

bool Array::can_view(const Shape& shape) const {
  const Shape full = complete(shape, numel_, shape_);
  Shape strides;
  return numel_ == 0 || strides_for_view(*this, full, strides);
}

Array Array::view(const Shape& shape) const {
  const Shape full = complete(shape, numel_, shape_);
  Shape strides = full.row_major_strides();
  check(numel_ == 0 || strides_for_view(*this, full, strides), "cannot view ", shape_,
        " with strides ", strides_, " as ", full, " without a copy; use reshape");
  return view_of(storage_, dtype_, full, strides, offset_);
}

Array Array::reshape(const Shape& shape) const {
  return can_view(shape) ? view(shape) : clone().view(shape);
}

// ---- copies -------------------------------------------------------------------------------------

Array Array::contiguous() const {
  return is_contiguous() ? *this : clone();
}

Array Array::clone() const {
  Array copy = empty(shape_, dtype_, device());
  copy.copy_from(*this);
  return copy;
}

Array Array::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Array copy = empty(shape_, dtype, device());
  copy.copy_from(*this);
  return copy;
}

Array Array::to(Device target) const {
  if (target == device()) return *this;
  Array copy = empty(shape_, dtype_, target);
  copy.copy_from(*this);
  return copy;
}

const Array& Array::fill(double value) const {
  check(defined(), "fill: the array is undefined");
  if (numel_ > 0) BINADE_DISPATCH(device(), fill(*this, value));
  storage_->bump_version();
  return *this;
}

const Array& Array::zero() const {
  return fill(0);
}

namespace {

// The bytes from the first to behind the last element of an array that is not empty.
std::pair<const std::byte*, const std::byte*> extent_of(const Array& array) {
  int64_t last = 0;
  for (int i = 0; i < array.dims(); ++i) last += (array.shape()[i] - 1) * array.strides()[i];
  const auto* first = static_cast<const std::byte*>(array.data());
  return {first, first + (last + 1) * size_of(array.dtype())};
}

// Whether writing one may change the other while it is read; false for the very same elements.
bool interfere(const Array& a, const Array& b) {
  if (!a.shares_storage(b)) return false;
  const auto [a_begin, a_end] = extent_of(a);
  const auto [b_begin, b_end] = extent_of(b);
  const bool same = a_begin == b_begin && a.strides() == b.strides() && a.dtype() == b.dtype();
  return a_begin < b_end && b_begin < a_end && !same;
}

}  // namespace

const Array& Array::copy_from(const Array& source) const {
  check(defined() && source.defined(), "copy_from: an array is undefined");
  const Array from = source.expand(shape_);
  storage_->bump_version();
  if (numel_ == 0) return *this;
  if (source.device() == device()) {
    BINADE_DISPATCH(device(), copy(interfere(*this, from) ? from.clone() : from, *this));
    return *this;
  }
#if BINADE_HAVE_CUDA
  // Across devices the bytes travel between contiguous arrays of one dtype; conversion and layout
  // are done on the side that has them.
  const Array packed = from.to(dtype_).contiguous();
  if (is_contiguous()) {
    cuda::copy_and_wait(data(), device(), packed.data(), packed.device(), bytes());
  } else {
    const Array landed = empty(shape_, dtype_, device());
    cuda::copy_and_wait(landed.data(), device(), packed.data(), packed.device(), bytes());
    BINADE_DISPATCH(device(), copy(landed, *this));
  }
  return *this;
#else
  fail("cannot copy from ", source.device(), " to ", device(), ": ", cuda_unavailable_reason());
#endif
}

// ---- reading ------------------------------------------------------------------------------------

double Array::item() const {
  check(numel_ == 1, "item() needs one element, the array has shape ", shape_);
  double value = 0;
  copy_to_host(&value, DType::f64);
  return value;
}

void Array::copy_to_host(void* values, DType dtype) const {
  if (numel_ == 0) return;
  const Array host = to(Device::cpu()).to(dtype).contiguous();
  std::memcpy(values, host.data(), static_cast<size_t>(host.bytes()));
}

}  // namespace binade
