#include <binade/core/kernels/random.h>

#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/random.h>

namespace binade::kernels::cpu {
namespace {

// The random words of elements [begin, begin + count), begin a multiple of 4, count ≤ kTile.
void draw_words(const PhiloxKey& key, int64_t step, int64_t begin, int64_t count, uint32_t* words) {
  const int64_t blocks = (count + 3) / 4;
#pragma omp simd
  for (int64_t block = 0; block < blocks; ++block) {
    const PhiloxBlock drawn = philox(key.seed, static_cast<uint64_t>(step), key.place,
                                     static_cast<uint64_t>(begin / 4 + block));
    for (int i = 0; i < 4; ++i) words[4 * block + i] = drawn.word[i];
  }
}

// body(words, begin, count) for tiles of [0, numel), which are elements from `first` on.
template <class Body>
void for_each_tile(const PhiloxKey& key, int64_t numel, const Body& body, int64_t first = 0) {
  check(first % 4 == 0, "draws begin at a multiple of 4, not at element ", first);
  const int64_t step = key.step.data<int64_t>()[0];
  parallel_for(numel, kGrain / 4, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[kTile];
    for (int64_t i = begin; i < end; i += kTile) {
      const int64_t count = std::min(kTile, end - i);
      draw_words(key, step, first + i, count, words);
      body(words, i, count);
    }
  });
}

std::byte* element(const Array& array, int64_t i) {
  return static_cast<std::byte*>(array.data()) + i * size_of(array.dtype());
}

// Doubles to out's dtype; to halves by way of f32, as on the GPU.
void store(const double* values, const Array& out, int64_t begin, int64_t count) {
  if (!is_half(out.dtype())) {
    convert(values, DType::f64, element(out, begin), out.dtype(), count);
    return;
  }
  alignas(64) float narrow[kTile];
  convert(values, DType::f64, narrow, DType::f32, count);
  convert(narrow, DType::f32, element(out, begin), out.dtype(), count);
}

}  // namespace

void uniform(const Array& out, const PhiloxKey& key, double low, double high, int64_t first) {
  const auto tile = [&](const uint32_t* words, int64_t begin, int64_t count) {
    alignas(64) double values[kTile];
    for (int64_t i = 0; i < count; ++i) values[i] = uniform_in(low, high, words[i]);
    store(values, out, begin, count);
  };
  for_each_tile(key, out.numel(), tile, first);
}

void uniform(const Array& out, const PhiloxKey& key, double low, double high) {
  uniform(out, key, low, high, 0);
}

void normal(const Array& out, const PhiloxKey& key, double mean, double stddev, int64_t first) {
  const auto tile = [&](const uint32_t* words, int64_t begin, int64_t count) {
    alignas(64) double values[kTile];
    for (int64_t i = 0; i < count; i += 2) {
      const NormalPair pair = normal_pair(words[i], words[i + 1]);
      for (int64_t k = 0; k < 2; ++k) values[i + k] = std::fma(stddev, pair.value[k], mean);
    }
    store(values, out, begin, count);
  };
  for_each_tile(key, out.numel(), tile, first);
}

void normal(const Array& out, const PhiloxKey& key, double mean, double stddev) {
  normal(out, key, mean, stddev, 0);
}

void bernoulli(const Array& out, const PhiloxKey& key, double probability) {
  bool* draws = out.data<bool>();
  for_each_tile(key, out.numel(), [&](const uint32_t* words, int64_t begin, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
      draws[begin + i] = static_cast<double>(uniform_of(words[i])) < probability;
  });
}

void dropout(const Array& x, const PhiloxKey& key, double probability, const Array& y, float beta) {
  if (!y.is_contiguous()) {
    const Array packed = y.clone();
    dropout(x, key, probability, packed, beta);
    copy(packed, y);
    return;
  }
  const Array source = x.contiguous();
  visit_real(x.dtype(), "dropout", [&](auto zero) {
    using C = decltype(zero);
    const C factor = kept_factor<C>(probability);
    const float threshold = static_cast<float>(probability);
    for_each_tile(key, y.numel(), [&](const uint32_t* words, int64_t begin, int64_t count) {
      TileReader<C> reader, old_reader;
      TileWriter<C> writer;
      const C* in = reader.read(element(source, begin), size_of(x.dtype()), x.dtype(), count);
      const C* old = nullptr;
      if (beta != 0) old = old_reader.read(element(y, begin), size_of(y.dtype()), y.dtype(), count);
      C* out = writer.target(element(y, begin), size_of(y.dtype()), y.dtype());
      const auto kept = [=](int64_t i) {
        return uniform_of(words[i]) >= threshold ? in[i] * factor : C{0};
      };
      if (beta == 0) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) out[i] = kept(i);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) out[i] = old[i] + kept(i);
      }
      writer.store(count);
    });
  });
}

}  // namespace binade::kernels::cpu
