// The CPU kernels that a training step spends its time in (products aside), at the sizes of a GPT
// with 10.9M parameters: 8 x 256 tokens, width 384, 256 classes. Beside the time: the bytes that
// the arguments hold, moved per second, and their share of what a plain copy reaches in the same
// run
// ("of_copy": 1 is memory speed; below the size of the cache it may be more).
#include <benchmark/benchmark.h>

#include <chrono>
#include <string>
#include <vector>

#include <binade/core/kernels/attention.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/loss.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/optimizer.h>
#include <binade/core/kernels/random.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/softmax.h>

namespace {

using namespace binade;
namespace cpu = binade::kernels::cpu;
using kernels::BinaryOp;
using kernels::ReduceOp;
using kernels::UnaryOp;

constexpr int64_t kTokens = 8 * 256, kWidth = 384, kHidden = 4 * kWidth, kClasses = 256;
constexpr int64_t kParameters = 10'900'000;

Array random_array(const Shape& shape, DType dtype) {
  const PhiloxKey key{7, Array::zeros({1}, DType::i64), 0};
  const Array array = Array::empty(shape, dtype);
  cpu::normal(array, key, 0, 1);
  return array;
}

// Bytes per second of a copy on all threads, read and written.
double copy_rate() {
  static const double rate = [] {
    const Array from = Array::zeros({16 << 20}, DType::f32),
                to = Array::zeros({16 << 20}, DType::f32);
    double best = 0;
    for (int round = 0; round < 8; ++round) {
      const auto start = std::chrono::steady_clock::now();
      cpu::copy(from, to);
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
      best = std::max(best, 2.0 * static_cast<double>(from.bytes()) / time.count());
    }
    return best;
  }();
  return rate;
}

// Runs `kernel` for as long as Google Benchmark asks; `bytes` is what one call reads and writes.
template <class Kernel>
void measure(benchmark::State& state, int64_t bytes, const Kernel& kernel) {
  copy_rate();
  kernel();
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) kernel();
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  const double moved = static_cast<double>(bytes) * static_cast<double>(state.iterations());
  state.counters["GB/s"] = moved / time.count() * 1e-9;
  state.counters["of_copy"] = moved / time.count() / copy_rate();
}

int64_t bytes_of(std::initializer_list<Array> arrays) {
  int64_t bytes = 0;
  for (const Array& array : arrays) bytes += array.bytes();
  return bytes;
}

void add(benchmark::State& state, DType dtype) {
  const Array a = random_array({kTokens, kHidden}, dtype),
              b = random_array({kTokens, kHidden}, dtype);
  const Array out = Array::empty({kTokens, kHidden}, dtype);
  measure(state, bytes_of({a, b, out}), [&] { cpu::binary(BinaryOp::add, a, b, out); });
}

void add_bias(benchmark::State& state, DType dtype) {
  const Array a = random_array({kTokens, kHidden}, dtype);
  const Array bias = random_array({kHidden}, dtype).expand({kTokens, kHidden});
  measure(state, 2 * a.bytes(), [&] { cpu::binary(BinaryOp::add, a, bias, a); });
}

void bias_gradient(benchmark::State& state, DType dtype) {
  const Array dy = random_array({kTokens, kHidden}, dtype);
  const Array out = Array::empty({1, kHidden}, DType::f32);
  measure(state, dy.bytes(), [&] { cpu::reduce(ReduceOp::sum, dy, out, 0); });
}

void transpose(benchmark::State& state, DType dtype) {
  const Array x = random_array({kTokens, kHidden}, dtype).transpose(0, 1);
  const Array out = Array::empty(x.shape(), dtype);
  measure(state, bytes_of({x, out}), [&] { cpu::copy(x, out); });
}

void convert(benchmark::State& state, DType dtype) {
  const Array x = random_array({kTokens, kHidden}, DType::f32);
  const Array out = Array::empty(x.shape(), dtype);
  measure(state, bytes_of({x, out}), [&] { cpu::copy(x, out); });
}

void unary(benchmark::State& state, DType dtype, UnaryOp op) {
  const Array x = random_array({kTokens, kHidden}, dtype), out = Array::empty(x.shape(), dtype);
  measure(state, bytes_of({x, out}), [&] { cpu::unary(op, x, out); });
}

void unary_backward(benchmark::State& state, DType dtype, UnaryOp op) {
  const Array x = random_array({kTokens, kHidden}, dtype), dy = random_array(x.shape(), dtype);
  const Array dx = Array::empty(x.shape(), dtype);
  measure(state, bytes_of({x, dy, dx}), [&] { cpu::unary_backward(op, x, dy, dx, 0); });
}

void swiglu(benchmark::State& state, DType dtype) {
  const Array gate = random_array({kTokens, kHidden}, dtype),
              up = random_array(gate.shape(), dtype);
  const Array out = Array::empty(gate.shape(), dtype);
  measure(state, bytes_of({gate, up, out}), [&] { cpu::swiglu(gate, up, out); });
}

void layer_norm(benchmark::State& state, DType dtype) {
  const Array x = random_array({kTokens, kWidth}, dtype), y = Array::empty(x.shape(), dtype);
  const Array w = random_array({kWidth}, DType::f32), b = random_array({kWidth}, DType::f32);
  const Array mean = Array::empty({kTokens}, DType::f32),
              rstd = Array::empty({kTokens}, DType::f32);
  measure(state, bytes_of({x, y}), [&] { cpu::layer_norm(x, w, b, 1e-5f, y, mean, rstd); });
}

void layer_norm_backward(benchmark::State& state, DType dtype) {
  const Array x = random_array({kTokens, kWidth}, dtype), y = Array::empty(x.shape(), dtype);
  const Array dy = random_array(x.shape(), dtype), dx = Array::empty(x.shape(), dtype);
  const Array w = random_array({kWidth}, DType::f32), dw = w.clone(), db = w.clone();
  const Array mean = Array::empty({kTokens}, DType::f32),
              rstd = Array::empty({kTokens}, DType::f32);
  cpu::layer_norm(x, w, w, 1e-5f, y, mean, rstd);
  measure(state, bytes_of({x, dy, dx}),
          [&] { cpu::layer_norm_backward(dy, x, w, mean, rstd, dx, 0, dw, 1, db, 1, {}); });
}

void softmax(benchmark::State& state, DType dtype) {
  const Array x = random_array({8, 6, 256, 256}, dtype), y = Array::empty(x.shape(), dtype);
  measure(state, bytes_of({x, y}), [&] { cpu::softmax(x, y); });
}

// Causal attention within documents of 512 tokens, 4 heads of 64, and its gradient.
void document_attention(benchmark::State& state, DType dtype, int64_t tokens, bool backward) {
  const auto heads = [&] { return random_array({1, 4, tokens, 64}, dtype); };
  const Array q = heads(), k = heads(), v = heads(), dout = heads();
  const auto like = [](const Array& x) { return Array::empty(x.shape(), x.dtype()); };
  const Array out = like(q), dq = like(q), dk = like(k), dv = like(v),
              logsumexp = Array::empty({1, 4, tokens}, DType::f32);
  kernels::AttentionParams params{.scale = 0.125, .causal = true};
  std::vector<int32_t> documents;
  for (int64_t i = 0; i < tokens; ++i) documents.push_back(static_cast<int32_t>(i / 512));
  params.documents = Array::from(documents, {1, tokens});
  copy_rate();  // has arrays of its own
  const int64_t before = memory_stats(Device::cpu()).in_use;
  reset_peak_memory(Device::cpu());
  cpu::attention(q, k, v, params, out, logsumexp);
  measure(state, (backward ? 8 : 4) * q.bytes(), [&] {
    if (backward)
      cpu::attention_backward(q, k, v, out, logsumexp, dout, params, dq, dk, dv);
    else
      cpu::attention(q, k, v, params, out, logsumexp);
  });
  state.counters["MiB"] =
      static_cast<double>(memory_stats(Device::cpu()).peak_in_use - before) / (1 << 20);
}

Array random_tokens() {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < kTokens; ++i) tokens.push_back(i * i * 31 % kClasses);
  return Array::from(tokens, {kTokens});
}

void cross_entropy(benchmark::State& state, DType dtype) {
  const Array logits = random_array({kTokens, kClasses}, dtype), targets = random_tokens();
  const Array loss = Array::empty({kTokens}, DType::f32),
              log_sums = Array::empty({kTokens}, DType::f32);
  measure(state, logits.bytes(), [&] { cpu::cross_entropy(logits, targets, {}, loss, log_sums); });
}

void cross_entropy_backward(benchmark::State& state, DType dtype) {
  const Array logits = random_array({kTokens, kClasses}, dtype), targets = random_tokens();
  const Array loss = Array::empty({kTokens}, DType::f32),
              log_sums = Array::empty({kTokens}, DType::f32);
  const Array dloss = Array::full({1}, 1e-3, DType::f32).expand({kTokens});
  const Array dlogits = Array::empty(logits.shape(), dtype);
  cpu::cross_entropy(logits, targets, {}, loss, log_sums);
  measure(state, bytes_of({logits, dlogits}),
          [&] { cpu::cross_entropy_backward(logits, targets, log_sums, dloss, {}, dlogits); });
}

void embedding(benchmark::State& state, DType dtype) {
  const Array table = random_array({kClasses, kWidth}, DType::f32), tokens = random_tokens();
  const Array out = Array::empty({kTokens, kWidth}, dtype);
  measure(state, out.bytes(), [&] { cpu::embedding(table, tokens, out); });
}

void embedding_backward(benchmark::State& state, DType dtype) {
  const Array dout = random_array({kTokens, kWidth}, dtype), tokens = random_tokens();
  const Array dtable = Array::zeros({kClasses, kWidth}, DType::f32);
  measure(state, dout.bytes(), [&] { cpu::embedding_backward(dout, tokens, dtable, 1); });
}

void dropout(benchmark::State& state, DType dtype) {
  const Array x = random_array({kTokens, kWidth}, dtype), y = Array::empty(x.shape(), dtype);
  const PhiloxKey key{7, Array::zeros({1}, DType::i64), 0};
  measure(state, bytes_of({x, y}), [&] { cpu::dropout(x, key, 0.1f, y, 0); });
}

void normal(benchmark::State& state, DType dtype) {
  const Array x = Array::empty({kTokens, kHidden}, dtype);
  const PhiloxKey key{7, Array::zeros({1}, DType::i64), 0};
  measure(state, x.bytes(), [&] { cpu::normal(x, key, 0, 1); });
}

void gradient_stats(benchmark::State& state, DType dtype) {
  const Array grad = random_array({kParameters}, dtype), scale = Array::full({1}, 1, DType::f32);
  const Array norm = Array::zeros({1}, DType::f64), bad = Array::zeros({1}, DType::i64);
  const Array statistics = Array::zeros({kernels::gradient_chunks(kParameters), 2}, DType::f64);
  measure(state, grad.bytes(), [&] {
    cpu::gradient_stats(grad, scale, statistics);
    cpu::add_gradient_stats(statistics, norm, bad);
  });
}

// f32 gradients update the masters alone; with half gradients a half copy is written too.
void adamw(benchmark::State& state, DType dtype) {
  UpdateBuffers buffers;
  buffers.grad = random_array({kParameters}, dtype);
  buffers.master = random_array({kParameters}, DType::f32);
  buffers.value = dtype == DType::f32 ? buffers.master : buffers.master.to(dtype);
  buffers.moment1 = Array::zeros({kParameters}, DType::f32);
  buffers.moment2 = Array::zeros({kParameters}, DType::f32);
  const UpdateContext context{Array::full({1}, 1, DType::f32), Array::zeros({1}, DType::f32),
                              Array::full({1}, 1e-3, DType::f32), Array::zeros({1}, DType::i64)};
  const int64_t written = buffers.value.data() == buffers.master.data() ? 0 : buffers.value.bytes();
  measure(state, buffers.grad.bytes() + 6 * buffers.master.bytes() + written,
          [&] { cpu::optimizer_update(buffers, context, kernels::AdamWParams{}); });
}

// Every kernel in f32 and f16.
template <class... Args>
void add_benchmarks(const std::string& name, void (*run)(benchmark::State&, DType, Args...),
                    Args... args) {
  for (const DType dtype : {DType::f32, DType::f16})
    benchmark::RegisterBenchmark((name + "/" + std::string(name_of(dtype))).c_str(),
                                 [=](benchmark::State& state) { run(state, dtype, args...); })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond)
        ->MinTime(0.1);
}

}  // namespace

int main(int argc, char* argv[]) {
  add_benchmarks("add", add);
  add_benchmarks("add_bias", add_bias);
  add_benchmarks("bias_gradient", bias_gradient);
  add_benchmarks("convert", convert);
  add_benchmarks("transpose", transpose);
  add_benchmarks("gelu", unary, UnaryOp::gelu);
  add_benchmarks("gelu_backward", unary_backward, UnaryOp::gelu);
  add_benchmarks("gelu_tanh", unary, UnaryOp::gelu_tanh);
  add_benchmarks("silu", unary, UnaryOp::silu);
  add_benchmarks("swiglu", swiglu);
  add_benchmarks("layer_norm", layer_norm);
  add_benchmarks("layer_norm_backward", layer_norm_backward);
  add_benchmarks("softmax", softmax);
  for (const int64_t tokens : {2048, 16384})
    for (const bool backward : {false, true})
      add_benchmarks("document_attention" + std::string(backward ? "_backward" : "") + "/" +
                         std::to_string(tokens),
                     document_attention, tokens, backward);
  add_benchmarks("cross_entropy", cross_entropy);
  add_benchmarks("cross_entropy_backward", cross_entropy_backward);
  add_benchmarks("embedding", embedding);
  add_benchmarks("embedding_backward", embedding_backward);
  add_benchmarks("dropout", dropout);
  add_benchmarks("normal", normal);
  add_benchmarks("gradient_stats", gradient_stats);
  add_benchmarks("adamw", adamw);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
