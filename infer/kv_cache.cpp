#include <binade/infer/kv_cache.h>

#include <algorithm>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/indexing.h>

namespace binade::infer {

KvCache::KvCache(int64_t layers, int64_t batch, int64_t capacity)
    : layers_(static_cast<size_t>(layers)),
      lengths_(static_cast<size_t>(batch), 0),
      capacity_(capacity) {
  check(layers > 0 && batch > 0 && capacity >= 0, "a KV cache needs layers and rows, got ", layers,
        " layers, a batch of ", batch, ", capacity ", capacity);
}

int64_t KvCache::longest() const {
  return *std::max_element(lengths_.begin(), lengths_.end());
}

bool KvCache::is_ragged() const {
  return std::any_of(lengths_.begin(), lengths_.end(),
                     [&](int64_t length) { return length != lengths_.front(); });
}

nn::Sequence KvCache::next(int64_t tokens) {
  check(tokens > 0, "a pass needs tokens, got ", tokens);
  nn::Sequence sequence;
  sequence.cache = this;
  sequence.start = lengths_.front();
  positions_ = Tensor();
  if (!is_ragged()) return sequence;

  std::vector<int32_t> positions;
  for (const int64_t length : lengths_)
    for (int64_t t = 0; t < tokens; ++t) positions.push_back(static_cast<int32_t>(length + t));
  const Device device = layers_.front().keys.device();
  positions_ = Tensor::from(positions, {batch(), tokens}, device);
  sequence.positions = positions_;
  const Tensor keys(Array::arange(longest() + tokens, DType::i32, device));
  sequence.mask = less_equal(keys, reshape(positions_, {batch(), 1, tokens, 1}));
  return sequence;
}

void KvCache::advance(int64_t tokens) {
  for (int64_t& length : lengths_) length += tokens;
}

void KvCache::advance(const std::vector<int64_t>& tokens) {
  check(tokens.size() == lengths_.size(), "a cache of ", lengths_.size(), " rows cannot advance ",
        tokens.size());
  for (size_t row = 0; row < tokens.size(); ++row) lengths_[row] += tokens[row];
}

std::pair<Tensor, Tensor> KvCache::extend(int64_t layer, const Tensor& keys, const Tensor& values) {
  check(keys.size(0) == batch(), "a cache of ", batch(), " rows got keys ", keys.shape());
  check(!grad_enabled() || !(keys.requires_grad() || values.requires_grad()),
        "a KV cache keeps values and no gradients: run the pass under NoGrad, or train on whole "
        "sequences without a cache");
  Layer& store = layers_.at(static_cast<size_t>(layer));
  const Tensor all_keys = append(store.keys, keys);
  const Tensor all_values = append(store.values, values);
  // A first pass has seen nothing but what it brought, which need not be read back.
  if (longest() == 0) return {keys, values};
  return {all_keys, all_values};
}

Tensor KvCache::append(Array& store, const Tensor& fresh) const {
  const int64_t tokens = fresh.size(2), end = longest() + tokens;
  if (!store.defined() || store.size(2) < end) {
    const int64_t capacity = std::max(capacity_, (end + kBucket - 1) / kBucket * kBucket);
    const Array larger = Array::zeros({fresh.size(0), fresh.size(1), capacity, fresh.size(3)},
                                      fresh.dtype(), fresh.device());
    if (store.defined()) larger.slice(2, 0, store.size(2)).copy_from(store);
    store = larger;
  }
  if (positions_.defined()) {
    const Array index = positions_.array().view({batch(), 1, tokens, 1}).expand(fresh.shape());
    BINADE_DISPATCH(store.device(), scatter(store, 2, index, fresh.array(), /*add=*/false));
    store.bump_version();
  } else {
    store.slice(2, lengths_.front(), end).copy_from(fresh.array());
  }
  return Tensor(store.slice(2, 0, end));
}

}  // namespace binade::infer
