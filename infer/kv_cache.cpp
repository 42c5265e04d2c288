#include <binade/infer/kv_cache.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/ops/attention.h>
#include <binade/core/kernels/few_rows.h>

namespace binade::infer {
namespace {

// i32 or i64 (T) or (B, T) on the cache's device, contiguous.
void check_tree(const char* what, const Array& array, DType dtype, int64_t slots, int64_t tokens,
                Device device) {
  if (!array.defined()) return;
  const bool shaped = array.shape() == Shape{tokens} || array.shape() == Shape{slots, tokens};
  check(shaped && array.dtype() == dtype && array.device() == device && array.is_contiguous(),
        "a tree's ", what, " must be (T) or (slots, T) ", name_of(dtype), " on ", device,
        ", contiguous, for T = ", tokens, " and ", slots, " slots, got ", array.shape(), ' ',
        array.dtype(), " on ", array.device());
}

float score_scale(double scale, int64_t head_dim) {
  return static_cast<float>(scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(head_dim)));
}

}  // namespace

static_assert(KvCache::kMostPending == kernels::kMostPending);

struct KvCache::Pass {
  kernels::PassRows rows;
  Array visible;
  int64_t batch = 0;
  int64_t tokens = 0;  // 0: prompts, padded to any length
};

KvCache::~KvCache() = default;

KvCache::KvCache(int64_t layers, int64_t slots, int64_t capacity, Device device, int64_t spare)
    : layers_(layers), capacity_(capacity), spare_(spare), pass_(std::make_unique<Pass>()) {
  check(layers > 0 && slots > 0 && capacity > 0 && capacity <= INT32_MAX - 2 * kMostPending,
        "a KV cache needs layers, slots and a capacity, got ", layers, " layers, ", slots,
        " slots, capacity ", capacity);
  check(spare >= 0 && spare <= kMostPending, "a KV cache has room for 0 to ", kMostPending,
        " tokens beyond its capacity, asked for ", spare);
  lengths_ = Array::zeros({slots}, DType::i32, device);
}

nn::Sequence KvCache::prefill(const std::vector<int32_t>& slots,
                              const std::vector<int32_t>& lengths) {
  check(!slots.empty() && slots.size() == lengths.size(), "a pass of prompts got ", slots.size(),
        " slots and ", lengths.size(), " lengths");
  std::vector<bool> taken(static_cast<size_t>(this->slots()), false);
  for (size_t b = 0; b < slots.size(); ++b) {
    check(slots[b] >= 0 && slots[b] < this->slots(), "there is no slot ", slots[b], " among ",
          this->slots());
    check(!taken[static_cast<size_t>(slots[b])], "slot ", slots[b], " comes twice");
    taken[static_cast<size_t>(slots[b])] = true;
    check(lengths[b] > 0 && lengths[b] <= capacity_, "a prompt of ", lengths[b],
          " tokens does not fit a key-value cache with a capacity of ", capacity_);
  }
  const auto rows = static_cast<int64_t>(slots.size());
  *pass_ = {};
  pass_->rows.slots = Array::from(slots, {rows}, lengths_.device());
  pass_->rows.counts = Array::from(lengths, {rows}, lengths_.device());
  pass_->batch = rows;
  kernels::PassRows target = pass_->rows;  // the pass itself writes from place 0 on
  target.lengths = lengths_;
  BINADE_DISPATCH(lengths_.device(), cache_set_lengths(target, /*add=*/false));
  lengths_.bump_version();
  nn::Sequence sequence;
  sequence.cache = this;
  sequence.lengths = lengths;
  return sequence;
}

nn::Sequence KvCache::decode(int64_t tokens, const Array& running, const TokenTree& tree,
                             int64_t first) {
  check(tokens > 0 && first >= 0 && first + tokens <= kMostPending,
        "a pass of decoding brings 1 to ", kMostPending, " tokens a slot, got ", tokens, " behind ",
        first, " pending ones");
  check_tree("depths", tree.depths, DType::i32, slots(), tokens, lengths_.device());
  check_tree("visible words", tree.visible, DType::i64, slots(), tokens, lengths_.device());
  check_flags("running", running);
  *pass_ = {
      {.lengths = lengths_, .running = running, .first = first}, tree.visible, slots(), tokens};
  const Array positions = Array::empty({slots(), tokens}, DType::i32, lengths_.device());
  BINADE_DISPATCH(positions.device(),
                  cache_positions(pass_->rows, tree.depths, capacity_, spare_, positions));
  nn::Sequence sequence;
  sequence.cache = this;
  sequence.positions = Tensor(positions);
  return sequence;
}

void KvCache::advance(const Array& counts) {
  check_flags("counts", counts);
  check(counts.defined(), "a key-value cache cannot advance without counts");
  kernels::PassRows rows;
  rows.lengths = lengths_;
  rows.counts = counts;
  BINADE_DISPATCH(lengths_.device(), cache_set_lengths(rows, /*add=*/true));
  lengths_.bump_version();
}

void KvCache::compact(const Array& nodes, const Array& counts) {
  check(nodes.dims() == 2 && nodes.size(0) == slots() && nodes.dtype() == DType::i32 &&
            nodes.device() == lengths_.device() && nodes.is_contiguous(),
        "accepted nodes come as (slots, M) i32, contiguous on ", lengths_.device(), ", got ",
        nodes.shape(), ' ', nodes.dtype(), " on ", nodes.device());
  check(keys_.defined(), "there are no pending tokens in a key-value cache that saw no pass");
  check_flags("counts", counts);
  check(counts.defined(), "accepted nodes need counts");
  kernels::PassRows rows;
  rows.lengths = lengths_;
  rows.counts = counts;
  BINADE_DISPATCH(lengths_.device(), cache_compact(nodes, rows, keys_, values_));
  keys_.bump_version();
  values_.bump_version();
  advance(counts);
}

void KvCache::check_flags(const char* what, const Array& array) const {
  check(!array.defined() || (array.shape() == lengths_.shape() && array.dtype() == DType::i32 &&
                             array.device() == lengths_.device() && array.is_contiguous()),
        what, " of a key-value cache must be (slots) = ", lengths_.shape(), " i32 on ",
        lengths_.device(), ", contiguous, got ", array.shape(), ' ', array.dtype(), " on ",
        array.device());
}

void KvCache::allocate(int64_t heads, int64_t head_dim, DType dtype) {
  const Shape shape = {layers_, slots(), heads, capacity_ + spare_, head_dim};
  keys_ = Array::empty(shape, dtype, lengths_.device());
  values_ = Array::empty(shape, dtype, lengths_.device());
}

void KvCache::check_layer(int64_t layer) const {
  check(layer >= 0 && layer < layers_, "a key-value cache of ", layers_, " layers has no layer ",
        layer);
}

void KvCache::check_pass(const Tensor& keys) const {
  check(keys.size(0) == pass_->batch && (pass_->tokens == 0 || keys.size(2) == pass_->tokens),
        "a key-value cache that announced a pass of ", pass_->batch, " rows of ", pass_->tokens,
        " tokens (0: prompts) got keys ", keys.shape());
  check(keys_.size(2) == keys.size(1) && keys_.size(4) == keys.size(3) &&
            keys_.dtype() == keys.dtype() && keys_.device() == keys.device(),
        "a key-value cache of ", keys_.size(2), " heads of ", keys_.size(4), ' ', keys_.dtype(),
        " on ", keys_.device(), " got keys ", keys.shape(), ' ', keys.dtype(), " on ",
        keys.device());
}

Tensor KvCache::attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                       double scale, int64_t window) {
  check(!grad_enabled() || !(q.requires_grad() || k.requires_grad() || v.requires_grad()),
        "a KV cache keeps values and no gradients: run the pass under NoGrad, or train on whole "
        "sequences without a cache");
  check_layer(layer);
  check(k.device() == lengths_.device(), "a key-value cache on ", lengths_.device(),
        " got keys on ", k.device());
  if (!keys_.defined()) allocate(k.size(1), k.size(3), k.dtype());
  check_pass(k);
  const Array keys = keys_.select(0, layer), values = values_.select(0, layer);
  BINADE_DISPATCH(keys.device(), cache_write(k.array(), v.array(), pass_->rows, keys, values));
  keys.bump_version();
  values.bump_version();
  if (pass_->tokens == 0) {
    AttentionOptions options;
    options.causal = true;
    options.window = window;
    options.scale = scale;
    return scaled_dot_product_attention(q, k, v, options);
  }
  const int64_t head = q.size(3);
  const Array out =
      Array::empty({q.size(0), q.size(2), q.size(1), head}, q.dtype(), q.device()).transpose(1, 2);
  attend_cached(q.array(), keys, values, scale, window, out);
  return Tensor(out);
}

void KvCache::attend_cached(const Array& q, const Array& keys, const Array& values, double scale,
                            int64_t window, const Array& out) const {
  BINADE_DISPATCH(out.device(), cached_attention(q, keys, values, pass_->rows, pass_->visible,
                                                 score_scale(scale, q.size(3)), window, out));
}

bool KvCache::takes_few_rows(int64_t window) const {
  // A window as large as the cache hides nothing.
  return lengths_.device().is_cuda() && (window == 0 || window >= capacity_ + spare_) &&
         pass_->tokens > 0 && pass_->batch * pass_->tokens <= kernels::kMostFewRows;
}

bool KvCache::attends_in_block(const kernels::FewRows& in,
                               const kernels::FewRowsAttention& layers) const {
  return kernels::suits_attention_block(in, layers, pass_->rows, slots(), capacity_ + spare_);
}

Array KvCache::attend_few_rows(int64_t layer, const kernels::FewRows& in,
                               const kernels::FewRowsAttention& layers, double scale) {
  check(takes_few_rows(0) && in.x.size(0) == pass_->batch * pass_->tokens &&
            in.x.device() == lengths_.device(),
        "a key-value cache that announced a pass of ", pass_->batch, " rows of ", pass_->tokens,
        " tokens on ", lengths_.device(), " got ", in.x.size(0), " rows on ", in.x.device());
  check_layer(layer);
  const int64_t head = layers.head_dim, heads = layers.query.weight.size(0) / head,
                key_heads = layers.key.weight.size(0) / head;
  if (!keys_.defined()) allocate(key_heads, head, in.x.dtype());
  check(keys_.size(2) == key_heads && keys_.size(4) == head && keys_.dtype() == in.x.dtype(),
        "a key-value cache of ", keys_.size(2), " heads of ", keys_.size(4), ' ', keys_.dtype(),
        " got ", key_heads, " heads of ", head, ' ', in.x.dtype());
  const Array keys = keys_.select(0, layer), values = values_.select(0, layer);
  const auto written = [&] {
    keys.bump_version();
    values.bump_version();
  };
  if (attends_in_block(in, layers)) {
    Array parts = Array::empty({key_heads, in.x.size(0), layers.output.weight.size(0)}, DType::f32,
                               in.x.device());
    if constexpr (kCudaBuilt) {
      const ::binade::cuda::DeviceScope scope(parts.device());
      kernels::cuda::few_rows_attention_block(in, layers, pass_->rows, pass_->visible,
                                              score_scale(scale, head), keys, values, parts);
    }
    written();
    return parts;
  }
  const Array q = Array::empty({in.x.size(0), heads * head}, in.x.dtype(), in.x.device());
  const Array out = Array::empty(q.shape(), q.dtype(), q.device());
  if constexpr (kCudaBuilt) {
    const ::binade::cuda::DeviceScope scope(q.device());
    if (in.sum.defined())
      kernels::cuda::few_rows_attention_inputs_block(in, layers, pass_->rows, q, keys, values);
    else
      kernels::cuda::few_rows_attention_inputs(in, layers, pass_->rows, q, keys, values);
  }
  written();
  const auto by_head = [&](const Array& rows) {
    return rows.view({pass_->batch, pass_->tokens, heads, head}).transpose(1, 2);
  };
  attend_cached(by_head(q), keys, values, scale, /*window=*/0, by_head(out));
  return out;
}

}  // namespace binade::infer
