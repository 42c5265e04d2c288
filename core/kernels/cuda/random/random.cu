// Random numbers: element e of an output is word e % 4 of Philox block e / 4, wherever it is drawn.
#include <binade/core/kernels/random.h>
#include <binade/core/random.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

// What a draw is a function of, besides the element. The step lies on the device, so that a
// replayed graph draws anew.
struct Draw {
  uint64_t seed;
  uint64_t place;
  const int64_t* step;

  explicit Draw(const PhiloxKey& key)
      : seed(key.seed), place(key.place), step(key.step.data<int64_t>()) {
    check(key.step.device().is_cuda(), "the random step must lie on the GPU");
  }
  __device__ PhiloxBlock block(int64_t index) const {
    return philox(seed, static_cast<uint64_t>(*step), place, static_cast<uint64_t>(index));
  }
};

// Elements of a block.
constexpr int kWords = 4;

// out[e] = f(block, word, in[e]...), or f(out[e], block, word, in[e]...) where f is Updating; an
// item is a whole block or a single element.
template <int kVec, class F, class Out, class... In, size_t... kIndex>
__device__ __forceinline__ void walk_draws(const Layout& layout, const Draw& draw, const F& f,
                                           std::index_sequence<kIndex...>, Out* out,
                                           const In*... in) {
  static_assert(kVec == kWords || kVec == 1);
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[1 + sizeof...(In)];
    locate(layout, item, offset);
    const int count = elements_of<kVec>(layout, item);
    const PhiloxBlock block = draw.block(kVec == kWords ? item : item / kWords);
    const int first = kVec == kWords ? 0 : static_cast<int>(item % kWords);
    const auto apply = [&](const Vec<In, kVec>&... values) {
      Vec<Out, kVec> result;
      if constexpr (Updating<F>) {
#pragma unroll
        for (int i = 0; i < kVec; ++i) result[i] = Out();
        if (f.reads_out()) result = load_item<kVec>(layout, 0, out, offset[0], count);
#pragma unroll
        for (int i = 0; i < kVec; ++i) result[i] = f(result[i], block, first + i, values[i]...);
      } else {
#pragma unroll
        for (int i = 0; i < kVec; ++i) result[i] = f(block, first + i, values[i]...);
      }
      store_item(out, offset[0], count, result);
    };
    apply(load_item<kVec>(layout, kIndex + 1, in, offset[kIndex + 1], count)...);
  }
}

template <int kVec, class F, class Out, class... In>
__global__ void __launch_bounds__(kBlock)
    draw_kernel(const __grid_constant__ Layout layout, const Draw draw, const F f, Out* out,
                const In*... in) {
  walk_draws<kVec>(layout, draw, f, std::index_sequence_for<In...>(), out, in...);
}

template <class Out, class... In, class F, std::same_as<Array>... Arrays>
void draw_elements(const char* name, Operands<Out, In...>, const PhiloxKey& key, const F& f,
                   const Array& out, const Arrays&... in) {
  if (out.numel() == 0) return;
  const Layout layout = make_layout({&out, &in...}, kWords, Order::row_major);
  launch(name,
         layout.vec == kWords ? draw_kernel<kWords, F, Out, In...> : draw_kernel<1, F, Out, In...>,
         grid_for(layout.items), kBlock, 0, layout, Draw(key), f, device_data<Out>(out),
         device_data<In>(in)...);
}

template <class T>
struct Uniform {
  double low, high;
  __device__ T operator()(const PhiloxBlock& block, int word) const {
    return narrow<T>(uniform_in(low, high, block.word[word]));
  }
};

template <class T>
struct Normal {
  double mean, stddev;
  __device__ T operator()(const PhiloxBlock& block, int word) const {
    const NormalPair pair = word < 2 ? normal_pair(block.word[0], block.word[1])
                                     : normal_pair(block.word[2], block.word[3]);
    return narrow<T>(fma(stddev, pair.value[word & 1], mean));
  }
};

struct Bernoulli {
  double probability;
  __device__ bool operator()(const PhiloxBlock& block, int word) const {
    return uniform_of(block.word[word]) < probability;
  }
};

template <class T>
struct Dropout {
  float threshold;
  ComputeOf<T> factor;
  bool accumulate;
  __device__ bool reads_out() const { return accumulate; }
  __device__ __forceinline__ T operator()(T old, const PhiloxBlock& block, int word, T x) const {
    const bool keep = uniform_of(block.word[word]) >= threshold;
    return narrow<T>(widen(old) + (keep ? widen(x) * factor : ComputeOf<T>(0)));
  }
};

}  // namespace

void uniform(const Array& out, const PhiloxKey& key, double low, double high) {
  visit_floating(out.dtype(), "uniform", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    draw_elements("uniform", Operands<T>(), key, Uniform<T>{low, high}, out);
  });
}

void normal(const Array& out, const PhiloxKey& key, double mean, double stddev) {
  visit_floating(out.dtype(), "normal", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    draw_elements("normal", Operands<T>(), key, Normal<T>{mean, stddev}, out);
  });
}

void bernoulli(const Array& out, const PhiloxKey& key, double probability) {
  draw_elements("bernoulli", Operands<bool>(), key, Bernoulli{probability}, out);
}

void dropout(const Array& x, const PhiloxKey& key, double probability, const Array& y, float beta) {
  visit_floating(y.dtype(), "dropout", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const Dropout<T> f{static_cast<float>(probability), kept_factor<ComputeOf<T>>(probability),
                       beta != 0};
    draw_elements("dropout", Operands<T, T>(), key, f, y, x);
  });
}

}  // namespace binade::kernels::cuda
