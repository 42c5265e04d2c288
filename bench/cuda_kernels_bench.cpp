// The hot kernels of a GPT-2 124M training step (batch 32, 1024 tokens, f16) on one GPU: the time
// of each, its floor, and the ratio of the two. A floor is what the card needs at the rates
// measured at the start: bytes that must move at the rate of a large copy, or multiplications at
// that of a matmul of 8192³. Behind them those of a layer of a Llama-shaped model.
// Usage: cuda_kernels_bench [runs [only the groups of this name]]
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <binade/core/cuda/runtime.h>
#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/cuda/matmul/fused_matmul.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/loss.h>
#include <binade/core/kernels/matmul.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/optimizer.h>
#include <binade/core/kernels/random.h>
#include <binade/core/kernels/reduce.h>

using namespace binade;
using namespace binade::kernels;
namespace gpu = binade::kernels::cuda;

namespace {

constexpr int64_t kBatch = 32, kTokens = 1024, kHeads = 12, kHeadDim = 64;
constexpr int64_t kWidth = kHeads * kHeadDim, kRows = kBatch * kTokens;
constexpr int64_t kVocabulary = 50257, kPaddedVocabulary = 50304;
constexpr int64_t kParameters = 124439808;

int runs = 20;

Array make(const Shape& shape, DType dtype = DType::f16) {
  return Array::empty(shape, dtype, Device::cuda());
}

// Normal numbers: the power that a matmul draws, and so its speed, depends on its inputs.
Array random(const Shape& shape, double spread = 1, DType dtype = DType::f16) {
  static uint64_t place = 0;
  PhiloxKey key;
  key.seed = 1;
  key.step = Array::zeros({}, DType::i64, Device::cuda());
  key.place = place++;
  const Array array = make(shape, dtype);
  gpu::normal(array, key, 0, spread);
  return array;
}

// Median time of one call, in seconds.
double time_of(const std::function<void()>& work) {
  const cudaStream_t stream = binade::cuda::current_stream();
  for (int i = 0; i < 3; ++i) work();
  std::vector<binade::cuda::Event> marks(static_cast<size_t>(runs) + 1);
  for (auto& mark : marks) binade::cuda::check_cuda(cudaEventCreate(mark.put()), "cudaEventCreate");
  const auto record = [&](size_t i) {
    binade::cuda::check_cuda(cudaEventRecord(marks[i].get(), stream), "cudaEventRecord");
  };
  record(0);
  for (size_t i = 1; i < marks.size(); ++i) {
    work();
    record(i);
  }
  binade::cuda::check_cuda(cudaEventSynchronize(marks.back().get()), "cudaEventSynchronize");
  std::vector<float> times(static_cast<size_t>(runs));
  for (size_t i = 0; i < times.size(); ++i)
    binade::cuda::check_cuda(cudaEventElapsedTime(&times[i], marks[i].get(), marks[i + 1].get()),
                             "cudaEventElapsedTime");
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<size_t>(runs / 2)] * 1e-3;
}

struct Rates {
  double bytes, flops;  // per second
};

Rates measure_rates() {
  const Array from = random({int64_t{1} << 29}), to = make({int64_t{1} << 29});
  const double copy_time = time_of([&] {
    binade::cuda::check_cuda(
        cudaMemcpyAsync(to.data(), from.data(), static_cast<size_t>(from.bytes()),
                        cudaMemcpyDeviceToDevice, binade::cuda::current_stream()),
        "cudaMemcpyAsync");
  });
  constexpr int64_t kSize = 8192;
  const Array a = random({kSize, kSize}), b = random({kSize, kSize}), out = make({kSize, kSize});
  const double matmul_time = time_of([&] { gpu::matmul(a, b, out, {}); });
  return {2.0 * static_cast<double>(from.bytes()) / copy_time,
          2.0 * std::pow(static_cast<double>(kSize), 3) / matmul_time};
}

class Table {
 public:
  explicit Table(Rates rates) : rates_(rates) {
    std::printf("copy %.0f GB/s, f16 matmul of 8192^3 %.0f TFLOP/s, %d runs\n", rates.bytes * 1e-9,
                rates.flops * 1e-12, runs);
    std::printf("%-44s %10s %10s %7s\n", "kernel", "time us", "floor us", "ratio");
  }
  void row(const std::string& name, double bytes, double flops, const std::function<void()>& work) {
    const double time = time_of(work);
    const double floor = std::max(bytes / rates_.bytes, flops / rates_.flops);
    std::printf("%-44s %10.1f %10.1f %7.2f\n", name.c_str(), time * 1e6, floor * 1e6, time / floor);
    std::fflush(stdout);
  }

 private:
  Rates rates_;
};

// out (m, n) = a · b, with weights as (outputs, inputs).
void time_matmul(Table& table, const std::string& name, const Array& a, const Array& b,
                 const MatmulEpilogue& epilogue = {}, DType out_dtype = DType::f16) {
  const Array out = make({a.size(0), b.size(1)}, out_dtype);
  out.zero();
  double bytes = static_cast<double>(a.bytes() + b.bytes() + out.bytes());
  if (epilogue.beta != 0) bytes += static_cast<double>(out.bytes());
  if (epilogue.pre_activation.defined())
    bytes += static_cast<double>(epilogue.pre_activation.bytes());
  const double flops = 2.0 * static_cast<double>(a.size(0)) * static_cast<double>(a.size(1)) *
                       static_cast<double>(b.size(1));
  table.row(name, bytes, flops, [&] { gpu::matmul(a, b, out, epilogue); });
}

void time_matmuls(Table& table) {
  const Array x = random({kRows, kWidth}), wide = random({kRows, 4 * kWidth});
  const Array dy = random({kRows, kWidth}), dqkv = random({kRows, 3 * kWidth});
  const Array w_qkv = random({3 * kWidth, kWidth}, 0.02), w_out = random({kWidth, kWidth}, 0.02);
  const Array w_up = random({4 * kWidth, kWidth}, 0.02),
              w_down = random({kWidth, 4 * kWidth}, 0.02);
  const auto with_bias = [](int64_t n) {
    MatmulEpilogue epilogue;
    epilogue.bias = random({n});
    return epilogue;
  };
  time_matmul(table, "qkv + bias", x, w_qkv.transpose(0, 1), with_bias(3 * kWidth));
  time_matmul(table, "attention out + bias", x, w_out.transpose(0, 1), with_bias(kWidth));
  time_matmul(table, "mlp down + bias", wide, w_down.transpose(0, 1), with_bias(kWidth));
  time_matmul(table, "mlp up, input gradient", wide, w_up);
  time_matmul(table, "qkv, input gradient", dqkv, w_qkv);
  MatmulEpilogue adding;
  adding.beta = 1;
  time_matmul(table, "mlp up, weight gradient, added", wide.transpose(0, 1), x, adding);
  time_matmul(table, "mlp up, weight gradient, added to f32", wide.transpose(0, 1), x, adding,
              DType::f32);
  time_matmul(table, "qkv, weight gradient, added", dqkv.transpose(0, 1), x, adding);
  const auto weight_gradient = [&](const std::string& name, const Array& dy, const Array& x) {
    time_matmul(table, name, dy.transpose(0, 1), x);
    const Array row = make({1, dy.size(1)});
    table.row(name + ", bias grad alone", static_cast<double>(dy.bytes()), 0,
              [&] { gpu::reduce(ReduceOp::sum, dy, row, 0); });
  };
  weight_gradient("mlp up, weight gradient", wide, x);
  weight_gradient("mlp down, weight gradient", dy, wide);
  weight_gradient("qkv, weight gradient", dqkv, x);
}

// The matmuls of an MLP that have GELU in their epilogue, each through cuBLASLt, which a batch of
// one is left to, and through CUTLASS, beside the plain matmul.
void time_gelu_matmuls(Table& table, int64_t rows, int64_t width) {
  const int64_t hidden = 4 * width;
  const std::string size = ", " + std::to_string(rows) + " x " + std::to_string(width);
  const Array x = random({rows, width}), bias = random({hidden}), pre = random({rows, hidden});
  const Array up = random({hidden, width}, 0.02), down = random({width, hidden}, 0.02);
  const Array out = make({rows, hidden}), sums = make({hidden}, DType::f32);
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(width * hidden);
  const double bytes = static_cast<double>(x.bytes() + up.bytes() + out.bytes());
  const double wide_bytes = bytes + static_cast<double>(pre.bytes());
  const auto batch = [](const Array& array) { return array.unsqueeze(0); };

  MatmulEpilogue biased;
  biased.bias = bias;
  table.row("mlp up + bias" + size, bytes, flops,
            [&] { gpu::matmul(x, up.transpose(0, 1), out, biased); });
  MatmulEpilogue gelu = biased;
  gelu.gelu = true;
  gelu.pre_activation = batch(pre);
  table.row("mlp up + bias + gelu (cuBLASLt)", wide_bytes, flops,
            [&] { gpu::matmul(batch(x), batch(up.transpose(0, 1)), batch(out), gelu); });
  table.row("mlp up + bias + gelu (CUTLASS)", wide_bytes, flops,
            [&] { gpu::fused_matmul_gelu(x, up, bias, pre, out); });
  table.row("mlp up + bias + gelu, no input kept (CUTLASS)", bytes, flops,
            [&] { gpu::fused_matmul_gelu(x, up, bias, {}, out); });

  table.row("mlp down, input gradient" + size, bytes, flops,
            [&] { gpu::matmul(x, down, out, {}); });
  MatmulEpilogue dgelu;
  dgelu.dgelu = true;
  dgelu.pre_activation = batch(pre);
  table.row("mlp down, input gradient x dgelu (cuBLASLt)", wide_bytes, flops,
            [&] { gpu::matmul(batch(x), batch(down), batch(out), dgelu); });
  table.row("column sums of it, alone", static_cast<double>(out.bytes()), 0,
            [&] { gpu::reduce(ReduceOp::sum, out, batch(sums), 0); });
  table.row("mlp down, input gradient x dgelu (CUTLASS)", wide_bytes, flops,
            [&] { gpu::fused_matmul_gelu_backward(x, down, pre, out, {}, {}); });
  table.row("the same with column sums (CUTLASS)", wide_bytes, flops,
            [&] { gpu::fused_matmul_gelu_backward(x, down, pre, out, sums, {}); });
  const Array again = make({rows, hidden});
  table.row("the same with column sums and gelu again (CUTLASS)",
            wide_bytes + static_cast<double>(again.bytes()), flops,
            [&] { gpu::fused_matmul_gelu_backward(x, down, pre, out, sums, again); });
}

void head(Table& table) {
  const Array x = random({kRows, kWidth}), w = random({kPaddedVocabulary, kWidth}, 0.02);
  time_matmul(table, "logits", x, w.transpose(0, 1));
  const Array logits = random({kRows, kPaddedVocabulary});
  MatmulEpilogue adding;
  adding.beta = 1;
  time_matmul(table, "logits, input gradient", logits, w);
  time_matmul(table, "logits, weight gradient, added", logits.transpose(0, 1), x, adding);

  const Array rows = logits.slice(1, 0, kVocabulary);
  const Array targets = Array::zeros({kRows}, DType::i64, Device::cuda());
  const Array loss = make({kRows}, DType::f32), logsumexp = make({kRows}, DType::f32);
  const Array dloss = Array::full({kRows}, 1, DType::f32, Device::cuda());
  const double bytes = 2.0 * static_cast<double>(rows.numel());
  table.row("cross_entropy", bytes, 0,
            [&] { gpu::cross_entropy(rows, targets, {}, loss, logsumexp); });
  table.row("cross_entropy_backward, in place", 2 * bytes, 0,
            [&] { gpu::cross_entropy_backward(rows, targets, logsumexp, dloss, {}, rows); });
  // A chunk of linear_cross_entropy, and one of a vocabulary whose rows do not fit shared memory.
  // The values become gradients after the first run; what is computed stays the same.
  const auto in_place = [&](const std::string& name, const Array& chunk, int64_t classes) {
    const Array labels = targets.slice(0, 0, chunk.size(0));
    table.row(name, 2 * static_cast<double>(chunk.bytes()), 0, [&] {
      gpu::cross_entropy_with_gradient(chunk, classes, labels, {}, {},
                                       loss.slice(0, 0, chunk.size(0)), chunk);
    });
  };
  in_place("cross_entropy_with_gradient", logits, kVocabulary);
  in_place("cross_entropy_with_gradient, 6656 rows", logits.slice(0, 0, 6656), kVocabulary);
  in_place("cross_entropy_with_gradient, 128256 classes", random({4096, 128256}), 128256);
  const Array sum = random({kPaddedVocabulary, kWidth}, 1, DType::f32);
  time_matmul(table, "logits, weight gradient of 6656 rows, added to f32",
              logits.slice(0, 0, 6656).transpose(0, 1), x.slice(0, 0, 6656), adding, DType::f32);
  const Array half = make(sum.shape()), one = Array::full({}, 1, DType::f32, Device::cuda());
  table.row("scale, f32 to f16", static_cast<double>(sum.bytes() + half.bytes()), 0,
            [&] { gpu::scale(sum, one, half, 0); });
}

void attention(Table& table) {
  const Array qkv = random({kBatch, kTokens, 3, kHeads, kHeadDim});
  const Array dqkv = make(qkv.shape());
  const auto heads = [](const Array& packed, int part) {
    return packed.select(2, part).transpose(1, 2);
  };
  const Array out = make({kBatch, kTokens, kHeads, kHeadDim}).transpose(1, 2);
  const Array dout = random({kBatch, kTokens, kHeads, kHeadDim}).transpose(1, 2);
  const Array logsumexp = make({kBatch, kHeads, kTokens}, DType::f32);
  AttentionParams params;
  params.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
  params.causal = true;
  const Array q = heads(qkv, 0), k = heads(qkv, 1), v = heads(qkv, 2);
  const double x_bytes = static_cast<double>(out.bytes());
  // Two matmuls of T·T·D, of which a causal mask needs half; five of them backward.
  const double flops = 2.0 * static_cast<double>(out.numel()) * static_cast<double>(kTokens);
  table.row("attention", 4 * x_bytes, flops,
            [&] { gpu::attention(q, k, v, params, out, logsumexp); });
  table.row("attention_backward", 8 * x_bytes, 2.5 * flops, [&] {
    gpu::attention_backward(q, k, v, out, logsumexp, dout, params, heads(dqkv, 0), heads(dqkv, 1),
                            heads(dqkv, 2));
  });
}

void rowwise(Table& table) {
  const Array x = random({kRows, kWidth}), residual = random({kRows, kWidth});
  const Array y = make(x.shape()), sum = make(x.shape()), dx = make(x.shape());
  const Array weight = random({kWidth}), bias = random({kWidth});
  const Array dweight = make({kWidth}), dbias = make({kWidth});
  const Array mean = make({kRows}, DType::f32), rstd = make({kRows}, DType::f32);
  const double bytes = static_cast<double>(x.bytes());
  table.row("layer_norm", 2 * bytes, 0,
            [&] { gpu::layer_norm(x, weight, bias, 1e-5f, y, mean, rstd); });
  table.row("add_norm", 4 * bytes, 0,
            [&] { gpu::add_norm(x, residual, weight, bias, 1e-5f, sum, y, mean, rstd); });
  table.row("layer_norm_backward", 3 * bytes, 0, [&] {
    gpu::layer_norm_backward(y, x, weight, mean, rstd, dx, 0, dweight, 0, dbias, 0, {});
  });
  table.row("layer_norm_backward, dx added", 4 * bytes, 0, [&] {
    gpu::layer_norm_backward(y, x, weight, mean, rstd, dx, 1, dweight, 0, dbias, 0, {});
  });
  table.row("rms_norm", 2 * bytes, 0, [&] { gpu::rms_norm(x, weight, 1e-5f, y, rstd); });
  const Array wide = random({kRows, 4 * kWidth}), activated = make({kRows, 4 * kWidth});
  table.row("gelu (tanh) backward", 3 * static_cast<double>(wide.bytes()), 0,
            [&] { gpu::unary_backward(UnaryOp::gelu_tanh, wide, activated, activated, 0); });
  table.row("gelu (tanh)", 2 * static_cast<double>(wide.bytes()), 0,
            [&] { gpu::unary(UnaryOp::gelu_tanh, wide, activated); });

  const Array cos = random({kTokens, kHeadDim / 2}, 1, DType::f32);
  const Array heads = x.view({kBatch, kTokens, kHeads, kHeadDim}).transpose(1, 2);
  table.row("rope, in place", 2 * bytes, 0, [&] { gpu::rope(heads, cos, cos, false, heads); });

  std::vector<int64_t> ids(static_cast<size_t>(kRows));
  for (size_t i = 0; i < ids.size(); ++i)  // many rare tokens, few frequent ones
    ids[i] = static_cast<int64_t>(i * 2654435761u % kVocabulary) >> (i % 16);
  const Array indices = Array::from(ids, {kRows}, Device::cuda());
  const Array table_grad = Array::zeros({kPaddedVocabulary, kWidth}, DType::f32, Device::cuda());
  const std::set<int64_t> distinct(ids.begin(), ids.end());
  const double touched = 2.0 * 4 * static_cast<double>(distinct.size()) * kWidth;
  table.row("embedding_backward, added to f32", bytes + touched, 0,
            [&] { gpu::embedding_backward(x, indices, table_grad, 1); });
}

// A layer of the Llama-shaped model of 362M: width 960, 2560 hidden, 8 x 2048 tokens.
void llama(Table& table) {
  constexpr int64_t kRows = 16384, kWidth = 960, kHidden = 2560, kQkv = 25 * 64;
  const Array x = random({kRows, kWidth}), residual = random(x.shape()), dx = make(x.shape());
  const Array y = random(x.shape()), sum = make(x.shape());
  time_matmul(table, "llama qkv", x, random({kQkv, kWidth}, 0.02).transpose(0, 1));
  time_matmul(table, "llama gate and up", x, random({2 * kHidden, kWidth}, 0.02).transpose(0, 1));
  const Array hidden = random({kRows, kHidden}), both = random({2 * kHidden, kWidth}, 0.02);
  const Array down = random({kWidth, kHidden}, 0.02);
  time_matmul(table, "llama down", hidden, down.transpose(0, 1));
  time_matmul(table, "llama down, input gradient", x, down);

  const Array gate_up = make({kRows, 2 * kHidden}), dgate_up = make(gate_up.shape());
  const auto gate_of = [](const Array& packed) { return packed.slice(1, 0, kHidden); };
  const auto up_of = [](const Array& packed) { return packed.slice(1, kHidden); };
  const double bytes = static_cast<double>(hidden.bytes());
  table.row("llama gate and up, swiglu (CUTLASS)",
            3 * bytes + static_cast<double>(x.bytes() + both.bytes()),
            4.0 * static_cast<double>(hidden.numel() * kWidth),
            [&] { gpu::fused_matmul_swiglu(x, both, gate_up, hidden); });
  table.row("swiglu, packed", 3 * bytes, 0,
            [&] { gpu::swiglu(gate_of(gate_up), up_of(gate_up), hidden); });
  table.row("swiglu backward, packed", 5 * bytes, 0, [&] {
    gpu::swiglu_backward(gate_of(gate_up), up_of(gate_up), hidden, gate_of(dgate_up),
                         up_of(dgate_up), 0);
  });
  const double flops = 2.0 * static_cast<double>(hidden.numel() * kWidth);
  table.row("llama down, input gradient x dswiglu (CUTLASS)",
            4 * bytes + static_cast<double>(x.bytes() + down.bytes()), flops, [&] {
              gpu::fused_matmul_swiglu_backward(x, down, gate_of(gate_up), up_of(gate_up),
                                                gate_of(dgate_up), up_of(dgate_up));
            });

  const Array weight = random({kWidth}), dweight = make({kWidth});
  const Array rstd = Array::full({kRows}, 1, DType::f32, Device::cuda());
  const double x_bytes = static_cast<double>(x.bytes());
  table.row("add_norm (RMS), 960 columns", 4 * x_bytes, 0,
            [&] { gpu::add_norm(x, residual, weight, {}, 1e-5f, sum, y, {}, rstd); });
  table.row("rms_norm_backward, 960 columns, dx added", 4 * x_bytes, 0,
            [&] { gpu::rms_norm_backward(y, x, weight, rstd, dx, 1, dweight, 0); });
}

void optimizer(Table& table) {
  UpdateBuffers buffers;
  buffers.grad = random({kParameters}, 1e-3);
  buffers.master = random({kParameters}, 0.02, DType::f32);
  buffers.value = make({kParameters});
  buffers.moment1 = Array::zeros({kParameters}, DType::f32, Device::cuda());
  buffers.moment2 = Array::zeros({kParameters}, DType::f32, Device::cuda());
  const auto scalar = [](double value, DType dtype) {
    return Array::full({}, value, dtype, Device::cuda());
  };
  const Array one = scalar(1, DType::f32), norm_sq = scalar(0, DType::f64);
  const Array first_bad = scalar(0, DType::i64);
  const Array statistics =
      Array::zeros({gradient_chunks(kParameters), 2}, DType::f64, Device::cuda());
  const UpdateContext context{one, scalar(0, DType::f32), scalar(1e-4, DType::f32),
                              scalar(10, DType::i64)};
  const double count = static_cast<double>(kParameters);
  table.row("gradient_stats 124M", 2 * count, 0, [&] {
    gpu::gradient_stats(buffers.grad, one, statistics);
    gpu::add_gradient_stats(statistics, norm_sq, first_bad);
  });
  table.row("adamw_update 124M", 28 * count, 0,
            [&] { gpu::optimizer_update(buffers, context, AdamWParams{}); });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 1) runs = std::max(1, std::atoi(argv[1]));
    check(cuda_device_count() > 0, cuda_unavailable_reason());
    Table table(measure_rates());
    const std::string only = argc > 2 ? argv[2] : "";
    const auto group = [&](const char* name, const std::function<void()>& run) {
      if (only.empty() || only == name) run();
    };
    group("matmuls", [&] { time_matmuls(table); });
    group("gelu", [&] {
      time_gelu_matmuls(table, kRows, kWidth);
      time_gelu_matmuls(table, kRows / 2, 1024);
    });
    group("head", [&] { head(table); });
    group("attention", [&] { attention(table); });
    group("rowwise", [&] { rowwise(table); });
    group("llama", [&] { llama(table); });
    group("optimizer", [&] { optimizer(table); });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
