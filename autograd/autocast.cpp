#include <binade/autograd/autocast.h>

#include <unordered_map>

#include <binade/autograd/graph.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/write_log.h>

namespace binade {

namespace {

// A leaf's values in another dtype. Only the values are kept: every use records a cast of its own,
// so that gradients of several uses, and of several backward passes, are summed in the leaf's
// dtype.
struct CachedCast {
  std::weak_ptr<TensorState> leaf;
  uint64_t version = 0;  // of the leaf's storage when it was cast
  uint64_t scope = 0;  // WriteLog::current_scope() then: a captured cast has values in replays only
  Array values;
};

thread_local std::unordered_map<const TensorState*, CachedCast> cast_cache;

Array cached_cast(const Tensor& leaf, DType dtype) {
  CachedCast& entry = cast_cache[leaf.state().get()];
  const uint64_t version = leaf.array().storage()->version();
  const uint64_t scope = WriteLog::current_scope();
  if (entry.leaf.lock() != leaf.state() || entry.version != version || entry.scope != scope ||
      entry.values.dtype() != dtype)
    entry = {leaf.state(), version, scope, leaf.array().to(dtype)};
  return entry.values;
}

Tensor cast(const Tensor& tensor, DType dtype) {
  if (tensor.dtype() == dtype) return tensor;
  if (tensor.is_leaf() && tensor.requires_grad())
    return ops::record_cast(tensor, cached_cast(tensor, dtype));
  return to(tensor, dtype);
}

}  // namespace

Tensor autocast(PrecisionClass precision, const Tensor& tensor) {
  const PrecisionPolicy* policy = current_precision_policy();
  const DType dtype = tensor.dtype();
  if (!policy || !is_floating(dtype) || dtype == DType::f64) return tensor;
  switch (precision) {
    case PrecisionClass::half:
      return cast(tensor, policy->half_dtype);
    case PrecisionClass::full:
      return cast(tensor, DType::f32);
    default:
      return tensor;  // two operands are needed to say which is the widest
  }
}

void autocast_widest(Tensor& a, Tensor& b) {
  const DType dtype = promote(a.dtype(), b.dtype());
  a = to(a, dtype);
  b = to(b, dtype);
}

void clear_cast_cache() {
  cast_cache.clear();
}

}  // namespace binade
