// Attention against a cache: each row of the pass is a call of the ordinary kernel on the part of
// its slot that it may see.
#include <vector>

#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/decode/pass_rows.h>

namespace binade::kernels::cpu {
namespace {

// (queries, length + pending) bool: the prefix and the pending tokens of each query's word, with a
// window the last of these.
Array mask_of(const int64_t* words, int64_t queries, int64_t length, int64_t pending,
              int64_t window) {
  Array mask = Array::empty({queries, length + pending}, DType::boolean);
  bool* out = mask.data<bool>();
  for (int64_t t = 0; t < queries; ++t, out += length + pending) {
    std::fill_n(out, length, true);
    for (int64_t j = 0; j < pending; ++j)
      out[length + j] = (static_cast<uint64_t>(words[t]) >> j & 1) != 0;
    int64_t left = window;
    for (int64_t j = length + pending - 1; j >= 0 && window > 0; --j) out[j] = out[j] && left-- > 0;
  }
  return mask;
}

}  // namespace

void cached_attention(const Array& q, const Array& cached_keys, const Array& cached_values,
                      const PassRows& rows, const Array& visible, float scale, int64_t window,
                      const Array& out) {
  const int64_t tokens = q.size(2);
  const PassView pass(rows, tokens);
  const int64_t* words = visible.defined() ? visible.data<int64_t>() : nullptr;
  const int64_t words_of_row = visible.defined() && visible.dims() == 2 ? tokens : 0;
  // Neighbours of one length whose slots are neighbours, too, are one call.
  std::vector<int64_t> begins = {0};
  for (int64_t b = 1; b < q.size(0); ++b)
    if (words_of_row != 0 || pass.slot(b) != pass.slot(b - 1) + 1 ||
        pass.length(b) != pass.length(b - 1) || pass.count(b) != pass.count(b - 1))
      begins.push_back(b);
  begins.push_back(q.size(0));
  // A single call uses the threads for its heads.
  parallel_tasks(static_cast<int64_t>(begins.size()) - 1, [&](int64_t i) {
    const int64_t b = begins[static_cast<size_t>(i)], end = begins[static_cast<size_t>(i) + 1];
    const int64_t count = pass.count(b), length = pass.length(b), pending = rows.first + count;
    const Array out_rows = out.slice(0, b, end);
    if (count < tokens) out_rows.slice(2, count).zero();
    if (count == 0) return;
    const auto seen = [&](const Array& cached) {
      return cached.slice(0, pass.slot(b), pass.slot(b) + end - b).slice(2, 0, length + pending);
    };
    AttentionParams params;
    params.scale = scale;
    params.causal = words == nullptr;
    if (words)
      params.mask = mask_of(words + b * words_of_row, count, length, pending, window);
    else
      params.window = window;
    const Array logsumexp = Array::empty({end - b, q.size(1), count},
                                         q.dtype() == DType::f64 ? DType::f64 : DType::f32);
    attention(q.slice(0, b, end).slice(2, 0, count), seen(cached_keys), seen(cached_values), params,
              out_rows.slice(2, 0, count), logsumexp);
  });
}

}  // namespace binade::kernels::cpu
