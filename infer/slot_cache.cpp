#include <binade/infer/slot_cache.h>

#include <binade/autograd/ops/attention.h>
#include <binade/autograd/tape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/split_rules.h>

namespace binade::infer {

namespace {

void copy_to(const Array& from, const Array& to) {
  BINADE_DISPATCH(to.device(), copy(from, to));
}

}  // namespace

SlotCache::SlotCache(int64_t layers, int64_t rows, int64_t capacity, Device device)
    : layers_(layers) {
  check(layers > 0 && rows > 0 && capacity > 0,
        "a cache of slots needs layers, rows and a capacity, got ", layers, ", ", rows, " and ",
        capacity);
  slots_ = Array::full({rows, kernels::kSlotFields, capacity}, -1, DType::i32, device);
}

void SlotCache::begin(const Tensor& slots) {
  check(slots.dims() == 3 && slots.size(0) == slots_.size(0) &&
            slots.size(1) == kernels::kSlotFields && slots.dtype() == DType::i32,
        "a pass of this cache has slots (", slots_.size(0), ", 4, T) i32, got ", slots.shape());
  pass_ = slots.size(2);
  check(held_ + pass_ <= capacity(), "a pass of ", pass_, " slots does not fit a cache of ",
        capacity(), " that holds ", held_);
  copy_to(slots.array(), slots_.slice(2, held_, held_ + pass_));
}

Tensor SlotCache::attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v) {
  check(!will_record({q, k, v}), "a cache of slots has no gradient; use NoGrad");
  check(layer >= 0 && layer < layers_ && k.size(2) == pass_, "layer ", layer, " brings ", k.size(2),
        " keys to a cache of ", layers_, " layers in a pass of ", pass_, " slots");
  if (!keys_.defined()) {
    const Shape shape{layers_, k.size(0), k.size(1), capacity(), k.size(3)};
    keys_ = Array::empty(shape, k.dtype(), k.device());
    values_ = Array::empty(shape, k.dtype(), k.device());
  }
  const int64_t end = held_ + pass_;
  const Array keys = keys_.select(0, layer), values = values_.select(0, layer);
  copy_to(k.array(), keys.slice(2, held_, end));
  copy_to(v.array(), values.slice(2, held_, end));
  AttentionOptions options;
  options.query_slots = Tensor(slots_.slice(2, held_, end));
  options.key_slots = Tensor(slots_.slice(2, 0, end));
  return scaled_dot_product_attention(q, Tensor(keys.slice(2, 0, end)),
                                      Tensor(values.slice(2, 0, end)), options);
}

void SlotCache::keep() {
  held_ += pass_;
  pass_ = 0;
}

}  // namespace binade::infer
