// Decoding with a model of SmolLM2-135M's shape (random weights, f16) on one GPU: plain steps,
// passes over the nodes of a draft, steps of speculation with recursive multi-token prediction, and
// the kernels of one layer. Prints the time of each beside its floor, which is what reading the
// weights once takes at the rate of a large copy, and the ratio of the two.
//
//   decode_bench [steps]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <binade/binade.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/kernels/few_rows.h>
#include <binade/heads/decoding/speculative_decoder.h>
#include <binade/heads/mtp/proposer.h>

#include "model_shapes.h"

using namespace binade;

namespace {

constexpr int64_t kPrompt = 16, kCapacity = 512;
int steps = 100;

// Waits for all that was queued.
void wait(Device device) {
  Array::zeros({1}, DType::f32, device).to(Device::cpu());
}

// Median over five runs of `count` calls each, in seconds a call.
double time_of(int count, Device device, const std::function<void()>& prepare,
               const std::function<void()>& work) {
  std::vector<double> times;
  for (int run = 0; run < 6; ++run) {
    prepare();
    for (int i = 0; i < 4; ++i) work();
    wait(device);
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) work();
    wait(device);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (run > 0) times.push_back(taken.count() / count);
  }
  std::nth_element(times.begin(), times.begin() + 2, times.end());
  return times[2];
}

// Of captured work.
double time_of(Device device, const std::function<void()>& work) {
  const NoGrad no_grad;
  for (int i = 0; i < 2; ++i) work();
  cuda::CapturedGraph graph = cuda::CapturedGraph::capture(work, device);
  return time_of(
      50, device, [] {}, [&] { graph.replay(); });
}

double copy_rate(Device device) {
  const Array from = Array::zeros({int64_t{1} << 29}, DType::f16, device);
  const Array to = Array::empty(from.shape(), from.dtype(), device);
  return 2 * static_cast<double>(from.storage()->bytes()) /
         time_of(device, [&] { to.copy_from(from); });
}

struct Table {
  double rate;
  void row(const std::string& name, double time, double bytes, const std::string& more = "") const {
    fmt::print("{:44} {:9.1f} us, floor {:6.1f}, ratio {:6.2f}{}\n", name, time * 1e6,
               bytes / rate * 1e6, time / (bytes / rate), more);
    std::fflush(stdout);
  }
};

std::vector<std::vector<int32_t>> prompts(int64_t batch) {
  std::vector<std::vector<int32_t>> all(static_cast<size_t>(batch));
  for (size_t b = 0; b < all.size(); ++b)
    for (int32_t i = 0; i < kPrompt; ++i)
      all[b].push_back(static_cast<int32_t>(977 * b + 31 * static_cast<size_t>(i)) % 49152);
  return all;
}
std::vector<int32_t> slots(int64_t batch) {
  std::vector<int32_t> all;
  for (int64_t b = 0; b < batch; ++b) all.push_back(static_cast<int32_t>(b));
  return all;
}

void bench_kernels(const Table& table, const nn::CausalLmConfig& c, Device device, int64_t rows) {
  using namespace kernels;
  const auto make = [&](const Shape& shape, DType dtype = DType::f16) {
    return nn::init::normal(0.03)(shape, Device::cpu()).to(dtype).to(device);
  };
  const auto layer = [&](int64_t out, int64_t in) { return FewRowsLayer{make({out, in}), {}}; };
  struct Weights {
    FewRowsLayer q, k, v, o, gate, up, down;
    Array keys, values;
  };
  std::vector<Weights> layers;
  const int64_t head = c.head_size(), width = c.heads * head, key_width = c.kv_heads * head;
  for (int64_t l = 0; l < c.layers; ++l)
    layers.push_back({layer(width, c.dim), layer(key_width, c.dim), layer(key_width, c.dim),
                      layer(c.dim, width), layer(c.hidden, c.dim), layer(c.hidden, c.dim),
                      layer(c.dim, c.hidden), make({rows, c.kv_heads, kCapacity, head}),
                      make({rows, c.kv_heads, kCapacity, head})});
  const auto parts_of = [&](int64_t parts) { return make({parts, rows, c.dim}, DType::f32); };
  FewRows in{make({rows, c.dim}), make({c.dim}, DType::f32), 1e-5};
  in.sum = make({rows, c.dim});
  const Array turns = make({rows, head / 2}, DType::f32);
  PassRows pass;
  pass.lengths = Array::full({rows}, 128, DType::i32, device);
  const Array of_heads = parts_of(c.kv_heads),
              of_mlp = parts_of(kernels::cuda::mlp_block_parts(c.hidden));
  const double each = 1.0 / static_cast<double>(c.layers);
  const std::string name = fmt::format("{} rows: ", rows);
  in.parts = of_mlp;
  table.row(name + "attention half of a layer",
            each * time_of(device,
                           [&] {
                             for (const Weights& w : layers)
                               kernels::cuda::few_rows_attention_block(
                                   in, {w.q, w.k, w.v, turns, turns, head, w.o}, pass, {}, 0.125F,
                                   w.keys, w.values, of_heads);
                           }),
            static_cast<double>(2 * c.dim * (2 * width + 2 * key_width)));
  in.parts = of_heads;
  table.row(name + "MLP half of a layer",
            each * time_of(device,
                           [&] {
                             for (const Weights& w : layers)
                               kernels::cuda::few_rows_mlp_block(in, w.gate, w.up, w.down, of_mlp);
                           }),
            static_cast<double>(2 * 3 * c.dim * c.hidden));
}

// Attention alone, of `tokens` a text whose cache holds `length`.
void bench_attention(const Table& table, const nn::CausalLmConfig& c, Device device, int64_t batch,
                     int64_t tokens, int64_t length, int64_t capacity) {
  using namespace kernels;
  const int64_t head = c.head_size();
  const auto make = [&](const Shape& shape) {
    return nn::init::normal(1)(shape, Device::cpu()).to(DType::f16).to(device);
  };
  struct Cache {
    Array keys, values;
  };
  std::vector<Cache> layers;
  for (int64_t l = 0; l < c.layers; ++l)
    layers.push_back(
        {make({batch, c.kv_heads, capacity, head}), make({batch, c.kv_heads, capacity, head})});
  const Array q = make({batch, c.heads, tokens, head}), out = make({batch, c.heads, tokens, head});
  PassRows pass;
  pass.lengths = Array::full({batch}, static_cast<double>(length), DType::i32, device);
  const double time = time_of(device, [&] {
    for (const Cache& layer : layers)
      kernels::cuda::cached_attention(q, layer.keys, layer.values, pass, {}, 0.125F, 0, out);
  });
  table.row(fmt::format("attention, {} x {} queries, {} of {}", batch, tokens, length, capacity),
            time / static_cast<double>(c.layers),
            static_cast<double>(4 * batch * c.kv_heads * head * (length + tokens)));
}

void bench_plain(const Table& table, const nn::CausalLm& model, double bytes, int64_t batch) {
  infer::Decoder decoder(model, {.slots = batch, .capacity = kCapacity});
  const double time = time_of(
      steps, model.device(), [&] { decoder.begin(slots(batch), prompts(batch)); },
      [&] { decoder.step(); });
  table.row(fmt::format("plain steps of {} texts", batch), time, bytes,
            fmt::format(", {:.0f} tokens/s", static_cast<double>(batch) / time));
}

// What a chain costs is what any tree of as many nodes does.
void bench_nodes(const Table& table, const nn::CausalLm& model, double bytes, int64_t nodes) {
  infer::Decoder decoder(model, {.slots = 1, .capacity = kCapacity, .spare = nodes - 1});
  decoder.begin({0}, prompts(1));
  const Tensor ids(Array::full({1, nodes}, 7, DType::i32, model.device()));
  table.row(fmt::format("pass over {} nodes, with logits", nodes),
            time_of(model.device(), [&] { model.logits(decoder.run(ids)); }), bytes);
}

void bench_mtp(const Table& table, const std::shared_ptr<const nn::CausalLm>& model, double bytes,
               const amp::Preset& preset) {
  constexpr int64_t kDepth = 3;
  heads::mtp::MtpHeads heads(model, {.kind = heads::mtp::Kind::recursive, .depth = kDepth});
  heads.to(model->device());
  preset.apply(heads);
  heads.eval();
  const auto proposer = heads::mtp::make_proposer(heads, heads::decoding::DraftTree::chain(kDepth),
                                                  {.slots = 1, .capacity = kCapacity});
  const auto rule = heads::decoding::greedy_acceptance();
  heads::decoding::SpeculativeDecoder decoder(*model, *proposer, *rule,
                                              {.slots = 1, .capacity = kCapacity});
  const nn::CausalLmConfig& c = model->config();
  const double module =
      2.0 * static_cast<double>(c.dim * (2 * c.dim + 2 * c.heads * c.head_size() +
                                         2 * c.kv_heads * c.head_size() + 3 * c.hidden));
  const double head = 2.0 * static_cast<double>(c.vocab_size * c.dim);
  // Random heads guess next to nothing, so a step is a token.
  const int count = std::min<int>(steps, static_cast<int>(kCapacity - kPrompt) / (kDepth + 1) - 8);
  const double time = time_of(
      count, model->device(), [&] { decoder.begin({0}, prompts(1)); }, [&] { decoder.step(); });
  table.row(fmt::format("speculation, {} recursive guesses", kDepth), time,
            bytes + kDepth * (module + head), decoder.captured() ? "" : ", not captured");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) steps = std::clamp(std::atoi(argv[1]), 1, 400);
  const Device device = Device::cuda();
  const Table table{copy_rate(device)};
  fmt::print("copies move {:.2f} TB/s\n", table.rate * 1e-12);
  const std::shared_ptr<nn::CausalLm> model = nn::make_causal_lm(smollm2_135m());
  model->to(device);
  const amp::Preset preset = amp::Preset::parse("fp16");
  preset.apply(*model);
  model->eval();
  const amp::Autocast scope(preset);
  double bytes = 0;
  for (const auto& [name, array] : model->state()) bytes += 2 * static_cast<double>(array.numel());
  for (const int64_t rows : {1, 8}) bench_kernels(table, model->config(), device, rows);
  for (const auto [batch, tokens] :
       {std::pair{1, 1}, {1, 4}, {1, 17}, {1, 64}, {16, 1}, {16, 4}, {16, 16}, {64, 1}})
    for (const auto [length, capacity] : {std::pair{128, 512}, {440, 512}, {4000, 4096}})
      bench_attention(table, model->config(), device, batch, tokens, length, capacity);
  for (const int64_t batch : {1, 4, 8, 16, 64}) bench_plain(table, *model, bytes, batch);
  for (const int64_t nodes : {1, 4, 8, 16, 17, 32, 64}) bench_nodes(table, *model, bytes, nodes);
  bench_mtp(table, model, bytes, preset);
}
