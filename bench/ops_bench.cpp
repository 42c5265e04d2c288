// Ops as a user calls them, on a GPU: forward and backward, each beside the time that a copy of the
// bytes takes that have to be read and written. An op is replayed from a CUDA graph, so that only
// the device's time counts.
//
//   ops_bench [f16 | bf16 | f32 [parts of names, with commas between them]]
//
//   ops_bench f16 norm,pool2d,cumsum     # some rows
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <binade/binade.h>
#include <binade/core/cuda/event.h>
#include <binade/core/cuda/graph.h>
#include <binade/core/cuda/runtime.h>

using namespace binade;

namespace {

constexpr int kRuns = 20;
constexpr int64_t kRows = 8192, kColumns = 8192;

Tensor normal(const Shape& shape, DType dtype) {
  return to(randn(shape, Device::cuda()), dtype);
}

// Seconds of the median call of what was queued on the device.
double time_of(const std::function<void()>& work) {
  const cudaStream_t stream = cuda::current_stream();
  std::vector<cuda::Event> marks(kRuns + 1);
  for (auto& mark : marks) cuda::check_cuda(cudaEventCreate(mark.put()), "cudaEventCreate");
  const auto record = [&](size_t i) {
    cuda::check_cuda(cudaEventRecord(marks[i].get(), stream), "cudaEventRecord");
  };
  for (int i = 0; i < 3; ++i) work();
  record(0);
  for (size_t i = 1; i < marks.size(); ++i) {
    work();
    record(i);
  }
  cuda::check_cuda(cudaEventSynchronize(marks.back().get()), "cudaEventSynchronize");
  std::vector<float> times(kRuns);
  for (size_t i = 0; i < times.size(); ++i)
    cuda::check_cuda(cudaEventElapsedTime(&times[i], marks[i].get(), marks[i + 1].get()),
                     "cudaEventElapsedTime");
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  return times[kRuns / 2] * 1e-3;
}

double replay_time(const std::function<void()>& work) {
  work();  // chooses algorithms
  cuda::CapturedGraph graph = cuda::CapturedGraph::capture(work);
  return time_of([&] { graph.replay(); });
}

double bytes_of(const Tensor& tensor) {
  return static_cast<double>(tensor.array().numel() * size_of(tensor.dtype()));
}

// What a row's op reads and writes beside its floating inputs and its output.
struct Traffic {
  double forward = 0, backward = 0;  // bytes more; negative: less
  bool needs_inputs = false;         // its gradients read the inputs
  bool on_host = false;              // waits for the device, and is not captured
  bool has_gradient = true;
};

class Table {
 public:
  Table(DType dtype, const std::string& only) : dtype_(dtype) {
    for (size_t begin = 0; begin <= only.size();) {
      const size_t end = std::min(only.find(',', begin), only.size());
      parts_.push_back(only.substr(begin, end - begin));
      begin = end + 1;
    }
    const Array from = normal({int64_t{1} << 28}, DType::f32).array();
    const Array to = Array::empty(from.shape(), from.dtype(), from.device());
    rate_ = 2 * static_cast<double>(from.bytes()) / time_of([&] { to.copy_from(from); });
    std::printf("copy %.0f GB/s, %s, %d runs; share of copy speed\n", rate_ * 1e-9,
                std::string(name_of(dtype)).c_str(), kRuns);
    std::printf("%-44s %9s %6s %9s %6s\n", "op", "out us", "share", "grad us", "share");
  }

  void row(const std::string& name, const TensorList& inputs,
           const std::function<Tensor(const TensorList&)>& op, const Traffic& traffic = {}) {
    const bool wanted = std::any_of(parts_.begin(), parts_.end(), [&](const std::string& part) {
      return name.find(part) != std::string::npos;
    });
    if (!wanted) return;
    TensorList leaves;
    double in = 0;
    for (const Tensor& input : inputs) {
      const bool floating = is_floating(input.dtype());
      leaves.emplace_back(input.array(), floating && traffic.has_gradient);
      in += bytes_of(input);
    }
    Tensor seed;
    double out = 0;
    {
      const NoGrad off;
      const Tensor y = op(leaves);
      out = bytes_of(y);
      if (traffic.has_gradient) seed = normal(y.shape(), y.dtype());
    }
    const auto forward = [&] {
      const NoGrad off;
      op(leaves);
    };
    const double forward_time = traffic.on_host ? time_of(forward) : replay_time(forward);
    std::printf("%-44s %9.1f %6.2f", name.c_str(), forward_time * 1e6,
                (in + out + traffic.forward) / rate_ / forward_time);
    if (traffic.has_gradient && !traffic.on_host) {
      double gradients = 0;
      for (const Tensor& leaf : leaves)
        if (leaf.requires_grad()) gradients += bytes_of(leaf);
      const double both = replay_time([&] {
        for (const Tensor& leaf : leaves) leaf.zero_grad();
        op(leaves).backward(seed);
      });
      const double backward = both - forward_time;
      const double bytes = out + gradients + (traffic.needs_inputs ? in : 0) + traffic.backward;
      std::printf(" %9.1f %6.2f", backward * 1e6, bytes / rate_ / backward);
    }
    std::printf("\n");
    std::fflush(stdout);
  }

  DType dtype() const { return dtype_; }

 private:
  DType dtype_;
  std::vector<std::string> parts_;  // of the names of the rows that run
  double rate_;
};

void elementwise(Table& table) {
  const Tensor x = normal({kRows, kColumns}, table.dtype());
  const Tensor a = normal({kRows, kColumns}, table.dtype());
  const Tensor b = normal({kRows, kColumns}, table.dtype());
  const Traffic reads{.needs_inputs = true};
  using Op = Tensor (*)(const Tensor&);
  const std::pair<const char*, Op> ops[] = {
      {"hardswish", &hardswish}, {"logsigmoid", &logsigmoid}, {"mish", &mish}, {"exp2", &exp2},
      {"log1p", &log1p},         {"expm1", &expm1},           {"tan", &tan},   {"silu", &silu}};
  for (const auto& [name, op] : ops)
    table.row(
        name, {x}, [op = op](const TensorList& in) { return op(in[0]); }, reads);
  table.row(
      "leaky_relu", {x}, [](const auto& in) { return leaky_relu(in[0]); }, reads);
  table.row(
      "elu", {x}, [](const auto& in) { return elu(in[0]); }, reads);
  table.row(
      "softplus, beta 2", {x}, [](const auto& in) { return softplus(in[0], 2); }, reads);
  table.row("round", {x}, [](const auto& in) { return round(in[0]); });
  table.row(
      "clamp", {x}, [](const auto& in) { return clamp(in[0], -1, 1); }, reads);
  table.row("lerp", {x, a}, [](const auto& in) { return lerp(in[0], in[1], 0.3); });
  table.row("addcmul", {x, a, b}, [](const auto& in) { return addcmul(in[0], in[1], in[2]); },
            {.backward = -bytes_of(x), .needs_inputs = true});
  table.row(
      "atan2", {x, a}, [](const auto& in) { return atan2(in[0], in[1]); }, reads);
  table.row(
      "div", {x, a}, [](const auto& in) { return in[0] / in[1]; }, reads);
  table.row(
      "maximum", {x, a}, [](const auto& in) { return maximum(in[0], in[1]); }, reads);
  table.row(
      "l1_loss", {x, a}, [](const auto& in) { return l1_loss(in[0], in[1]); }, reads);
}

void shapes(Table& table) {
  table.row("zeros (writes alone)", {},
            [&](const auto&) {
              return Tensor::zeros({kRows, kColumns}, table.dtype(), Device::cuda());
            },
            {.has_gradient = false});
  const Tensor x = normal({kRows, kColumns}, table.dtype());
  const Tensor image = normal({64, 64, 128, 128}, table.dtype());
  table.row("pad rows and columns, constant", {image}, [](const auto& in) {
    return pad(in[0], {1, 1, 1, 1});
  });
  table.row("pad rows and columns, reflect", {image}, [](const auto& in) {
    return pad(in[0], {1, 1, 1, 1}, PadMode::reflect);
  });
  table.row("tril", {x}, [](const auto& in) { return tril(in[0]); });
  table.row("flip rows", {x}, [](const auto& in) { return flip(in[0], {0}); });
  table.row("flip columns", {x}, [](const auto& in) { return flip(in[0], {1}); });
  table.row("roll", {x}, [](const auto& in) { return roll(in[0], {5, 7}, {0, 1}); });
  table.row("repeat", {x}, [](const auto& in) { return repeat(in[0], {2, 1}); });
  table.row("repeat_interleave, rows", {x},
            [](const auto& in) { return repeat_interleave(in[0], 2, 0); });
  table.row("repeat_interleave, columns", {x},
            [](const auto& in) { return repeat_interleave(in[0], 2, 1); });
}

void reductions(Table& table) {
  const Tensor x = normal({kRows, kColumns}, table.dtype());
  const Tensor a = normal({kRows, kColumns}, table.dtype());
  const Traffic reads{.needs_inputs = true};
  table.row(
      "norm of rows", {x}, [](const auto& in) { return norm(in[0], 2, {1}); }, reads);
  table.row(
      "norm of columns", {x}, [](const auto& in) { return norm(in[0], 2, {0}); }, reads);
  table.row(
      "stddev of rows", {x}, [](const auto& in) { return stddev(in[0], {1}); }, reads);
  table.row(
      "var of columns", {x}, [](const auto& in) { return var(in[0], {0}); }, reads);
  table.row(
      "normalize rows", {x}, [](const auto& in) { return normalize(in[0]); }, reads);
  table.row(
      "cosine_similarity of rows", {x, a},
      [](const auto& in) { return cosine_similarity(in[0], in[1]); }, reads);
  table.row("max_with_indices of rows", {x},
            [](const auto& in) { return max_with_indices(in[0], 1).first; });
  table.row("max_with_indices of columns", {x},
            [](const auto& in) { return max_with_indices(in[0], 0).first; });
  table.row(
      "prod of rows", {x}, [](const auto& in) { return prod(in[0], {1}); }, reads);
  table.row("cumsum along rows", {x}, [](const auto& in) { return cumsum(in[0], 1); });
  table.row("cumsum down columns", {x}, [](const auto& in) { return cumsum(in[0], 0); });
  table.row("cumprod along rows", {x}, [](const auto& in) { return cumprod(in[0], 1); },
            {.backward = bytes_of(x), .needs_inputs = true});
  table.row("cumprod down columns", {x}, [](const auto& in) { return cumprod(in[0], 0); },
            {.backward = bytes_of(x), .needs_inputs = true});
  table.row("any of rows", {less(x, a)}, [](const auto& in) { return any(in[0], {1}); },
            {.has_gradient = false});
  table.row("any of columns", {less(x, a)}, [](const auto& in) { return any(in[0], {0}); },
            {.has_gradient = false});
}

void norms(Table& table) {
  const Tensor x = normal({64, 64, 128, 128}, table.dtype());
  const Tensor weight = normal({64}, DType::f32), bias = normal({64}, DType::f32);
  // Statistics need a pass of their own over x where a group does not stay on the chip.
  const Traffic twice{.forward = bytes_of(x), .backward = 2 * bytes_of(x), .needs_inputs = true};
  table.row(
      "group_norm of 8 groups", {x, weight, bias},
      [](const auto& in) { return group_norm(in[0], 8, in[1], in[2]); }, twice);
  table.row(
      "instance_norm", {x, weight, bias},
      [](const auto& in) { return instance_norm(in[0], in[1], in[2]); }, twice);
  const Tensor mean = Tensor::zeros({64}, DType::f32, Device::cuda());
  const Tensor variance = Tensor::ones({64}, DType::f32, Device::cuda());
  table.row(
      "batch_norm", {x, weight, bias},
      [&](const auto& in) { return batch_norm(in[0], in[1], in[2], mean, variance); }, twice);
}

void images(Table& table) {
  const Tensor x = normal({64, 64, 128, 128}, table.dtype());
  table.row("max_pool2d", {x}, [](const auto& in) { return max_pool2d(in[0]); },
            {.needs_inputs = true});
  table.row("avg_pool2d", {x}, [](const auto& in) { return avg_pool2d(in[0]); });
  const Pool2dOptions three{.kernel = {3, 3}, .padding = {1, 1}};
  table.row("max_pool2d of 3 x 3 by 2", {x},
            [&](const auto& in) { return max_pool2d(in[0], three); }, {.needs_inputs = true});
  table.row("avg_pool2d of 3 x 3 by 2", {x},
            [&](const auto& in) { return avg_pool2d(in[0], three); });
  table.row("adaptive_avg_pool2d to 7 x 7", {x}, [](const auto& in) {
    return adaptive_avg_pool2d(in[0], {7, 7});
  });
  table.row("interpolate x 2, nearest", {x}, [](const auto& in) {
    return interpolate(in[0], {256, 256});
  });
  table.row("interpolate x 2, bilinear", {x}, [](const auto& in) {
    return interpolate(in[0], {256, 256}, Interpolation::bilinear);
  });
}

void indexing(Table& table) {
  const Tensor x = normal({kRows, kColumns}, table.dtype());
  const Tensor values = normal({kRows, kColumns}, table.dtype());
  const Tensor rows = randperm(kRows, Device::cuda());
  const Tensor places = randint(0, kColumns, {kRows, kColumns}, Device::cuda());
  const Tensor classes = randint(0, 1024, {int64_t{1} << 16}, Device::cuda());
  const double place_bytes = bytes_of(places);
  table.row("index rows", {x}, [&](const auto& in) { return index(in[0], {rows}); });
  table.row("index_put rows", {x, values},
            [&](const auto& in) { return index_put(in[0], {rows}, in[1]); });
  table.row("index_put rows, added", {x, values},
            [&](const auto& in) { return index_put(in[0], {rows}, in[1], true); });
  table.row("gather along rows", {x}, [&](const auto& in) { return gather(in[0], 1, places); },
            {.forward = place_bytes, .backward = place_bytes});
  table.row(
      "scatter_reduce along rows, sum", {x, values},
      [&](const auto& in) { return scatter_reduce(in[0], 1, places, in[1], ScatterReduce::sum); },
      {.forward = place_bytes, .backward = place_bytes});
  table.row(
      "scatter_reduce along rows, amax", {x, values},
      [&](const auto& in) { return scatter_reduce(in[0], 1, places, in[1], ScatterReduce::amax); },
      {.forward = place_bytes, .backward = place_bytes, .needs_inputs = true});
  table.row("masked_select of half", {x, less(x, values)},
            [](const auto& in) { return masked_select(in[0], in[1]); }, {.on_host = true});
  table.row("one_hot of 1024 classes", {classes},
            [&](const auto& in) { return one_hot(in[0], 1024, table.dtype()); },
            {.has_gradient = false});
  const Tensor sorted = to(arange(4096, DType::i64, Device::cuda()), DType::f32);
  table.row("searchsorted in 4096", {to(places, DType::f32)},
            [&](const auto& in) { return searchsorted(sorted, in[0]); }, {.has_gradient = false});
  table.row("multinomial, 1 of 8192", {to(rand({kRows, kColumns}, Device::cuda()), DType::f32)},
            [](const auto& in) { return multinomial(in[0], 1, true); }, {.has_gradient = false});
  table.row("multinomial, 64 of 8192 without replacement",
            {to(rand({kRows, kColumns}, Device::cuda()), DType::f32)},
            [](const auto& in) { return multinomial(in[0], 64); }, {.has_gradient = false});
}

// A row as train_bagel packs them: text in the first slots, latents in the others, samples of one
// or two pictures.
Tensor packed_slots(int64_t rows, int64_t understanding, int64_t generation) {
  data::SlotLayout layout;
  layout.understanding = understanding;
  layout.generation = generation;
  layout.vit = understanding;
  const Array grid = Array::zeros({3, 32, 32}, DType::f32);
  const auto text = [](int64_t ids) {
    return data::text_part(std::vector<int32_t>(static_cast<size_t>(ids), 7));
  };
  const auto sample = [&](data::RandomStream& random) -> data::Sample {
    if (random.below(2) == 0)
      return {text(3 + random.below(4)), data::image_part(data::PartKind::noise, grid)};
    return {data::image_part(data::PartKind::vae, grid),
            data::image_part(data::PartKind::vit, grid), text(2),
            data::image_part(data::PartKind::noise, grid)};
  };
  return Tensor(data::pack_step(layout, {.rows = rows}, 0, sample).slots.to(Device::cuda()));
}

void attention(Table& table) {
  struct Shape {
    int64_t rows, understanding, generation, heads, key_heads, size;
  };
  for (const Shape& s : {Shape{16, 384, 640, 8, 4, 32}, Shape{4, 1536, 2560, 8, 4, 64},
                         Shape{1, 1536, 2560, 28, 4, 128}}) {
    const int64_t tokens = s.understanding + s.generation;
    const Tensor slots = packed_slots(s.rows, s.understanding, s.generation);
    const auto heads = [&](int64_t count) {
      return normal({s.rows, count, tokens, s.size}, table.dtype());
    };
    const TensorList inputs{heads(s.heads), heads(s.key_heads), heads(s.key_heads)};
    const std::string shape = std::to_string(s.rows) + " x " + std::to_string(tokens) + ", " +
                              std::to_string(s.heads) + " of " + std::to_string(s.size);
    const auto attend = [](const TensorList& in, const AttentionOptions& options) {
      return scaled_dot_product_attention(in[0], in[1], in[2], options);
    };
    AttentionOptions splits, dropped;
    splits.query_slots = splits.key_slots = slots;
    dropped = splits;  // takes the path without fusion
    dropped.dropout = 0.1;
    dropped.training = true;
    const Traffic reads{.needs_inputs = true};
    table.row(
        "attention over splits, " + shape, inputs,
        [&](const auto& in) { return attend(in, splits); }, reads);
    table.row(
        "attention over splits, dropout, " + shape, inputs,
        [&](const auto& in) { return attend(in, dropped); }, reads);
    table.row(
        "attention of all, " + shape, inputs, [&](const auto& in) { return attend(in, {}); },
        reads);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string dtype = argc > 1 ? argv[1] : "f16";
    check(cuda_device_count() > 0, "ops_bench needs a GPU");
    check(dtype == "f16" || dtype == "bf16" || dtype == "f32",
          "ops_bench takes f16, bf16 or f32, got ", dtype);
    Table table(dtype == "f16"    ? DType::f16
                : dtype == "bf16" ? DType::bf16
                                  : DType::f32,
                argc > 2 ? argv[2] : "");
    for (void (*group)(Table&) :
         {elementwise, shapes, reductions, norms, images, indexing, attention})
      group(table);
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
