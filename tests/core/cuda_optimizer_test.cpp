// Gradient statistics, the scaler and the optimizer updates on the GPU against those on the CPU.
#include <binade/core/kernels/optimizer.h>

#include <functional>
#include <limits>

#include "core/cuda_compare.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

Array scalar(double value, DType dtype) {
  return array_of({value}, {}, dtype);
}

// `count` random elements that start `skip` elements into their storage.
Array flat(int64_t count, int64_t skip, DType dtype, Random& random) {
  return random_array({count + skip}, dtype, random).slice(0, skip);
}

// 0 grad, 1 master, 2 value, 3 moment1, 4 moment2, 5 grad_factor, 6 found_inf, 7 lr, 8 step.
std::vector<Array> update_arrays(int64_t count, int64_t skip, DType grad, DType master, DType value,
                                 double found_inf, double step, Random& random) {
  const auto make = [&](DType dtype) { return flat(count, skip, dtype, random); };
  std::vector<Array> arrays = {make(grad), make(master), make(value), make(master), make(master)};
  for (int64_t i = 0; i < count; ++i) write(arrays[4], i, std::abs(read(arrays[4], i)));
  arrays.push_back(scalar(0.25, DType::f32));
  arrays.push_back(scalar(found_inf, DType::f32));
  arrays.push_back(scalar(0.01, master));
  arrays.push_back(scalar(step, DType::i64));
  return arrays;
}

UpdateBuffers buffers_of(const std::vector<Array>& v) {
  return {v[0], v[1], v[2], v[3], v[4]};
}
UpdateContext context_of(const std::vector<Array>& v) {
  return {v[5], v[6], v[7], v[8]};
}

using Update = std::function<void(const std::vector<Array>&)>;

// Every kind of update.
std::vector<std::pair<const char*, Update>> all_updates() {
  std::vector<std::pair<const char*, Update>> updates;
  updates.emplace_back("adamw", [](const auto& v) {
    AdamWParams params;
    params.lr_factor = 0.5;
    BINADE_DISPATCH(v[0].device(), optimizer_update(buffers_of(v), context_of(v), params));
  });
  for (const double momentum : {0.0, 0.9})
    for (const bool nesterov : {false, true})
      updates.emplace_back("sgd", [=](const auto& v) {
        SgdParams params{2, momentum, 0.1, 0.02, nesterov};
        UpdateBuffers buffers = buffers_of(v);
        buffers.moment2 = {};
        if (momentum == 0) buffers.moment1 = {};
        BINADE_DISPATCH(v[0].device(), optimizer_update(buffers, context_of(v), params));
      });
  updates.emplace_back("lion", [](const auto& v) {
    LionParams params;
    params.weight_decay = 0.1;
    UpdateBuffers buffers = buffers_of(v);
    buffers.moment2 = {};
    BINADE_DISPATCH(v[0].device(), optimizer_update(buffers, context_of(v), params));
  });
  updates.emplace_back("direction", [](const auto& v) {
    UpdateBuffers buffers = buffers_of(v);
    buffers.moment1 = buffers.moment2 = {};
    UpdateContext context = context_of(v);
    context.grad_factor = {};
    BINADE_DISPATCH(v[0].device(), optimizer_update(buffers, context, DirectionParams{3, 0.1}));
  });
  updates.emplace_back("ema", [](const auto& v) {
    BINADE_DISPATCH(v[0].device(), optimizer_update({v[1], v[3], {}, {}, {}}, {{}, v[6], {}, {}},
                                                    AverageParams{{.decay = 0.99}}));
  });
  for (const AverageDecay::Kind kind : {AverageDecay::Kind::ratio, AverageDecay::Kind::power})
    updates.emplace_back("ema of a growing decay", [kind](const auto& v) {
      UpdateContext context = context_of(v);
      context.grad_factor = context.learning_rate = {};
      BINADE_DISPATCH(v[0].device(),
                      optimizer_update({v[1], v[3], {}, {}, {}}, context,
                                       AverageParams{{.decay = 0.99, .kind = kind}}));
    });
  return updates;
}

}  // namespace

TEST_CASE("optimizer updates agree on both devices", "[cuda][optimizer]") {
  require_gpu();
  Random random(31);
  struct DTypes {
    DType grad, master, value;
  };
  for (const auto& [grad, master, value] :
       {DTypes{DType::f16, DType::f32, DType::f16}, DTypes{DType::bf16, DType::f32, DType::bf16},
        DTypes{DType::f32, DType::f32, DType::f16}, DTypes{DType::f64, DType::f64, DType::f32}})
    for (const int64_t count : {1, 5, 1024, 30001})
      for (const int64_t skip : {0, 1})
        for (const double step : {0.0, 9.0})
          for (const auto& [name, update] : all_updates()) {
            INFO(name << ", grad " << grad << ", master " << master << ", value " << value
                      << ", count " << count << ", skip " << skip << ", step " << step);
            compare_devices(update,
                            update_arrays(count, skip, grad, master, value, 0, step, random), 2);
          }
}

TEST_CASE("an update whose master is the value agrees on both devices", "[cuda][optimizer]") {
  require_gpu();
  Random random(32);
  compare_devices(
      [](const auto& v) {
        UpdateBuffers buffers = buffers_of(v);
        buffers.value = buffers.master;
        BINADE_DISPATCH(v[0].device(), optimizer_update(buffers, context_of(v), AdamWParams{}));
      },
      update_arrays(1000, 0, DType::f32, DType::f32, DType::f32, 0, 0, random), 2);
}

TEST_CASE("a step with a non-finite gradient writes nothing on the GPU", "[cuda][optimizer]") {
  require_gpu();
  Random random(33);
  for (const auto& [name, update] : all_updates()) {
    INFO(name);
    const auto arrays = update_arrays(777, 0, DType::f16, DType::f32, DType::f16, 1, 3, random);
    std::vector<Array> device_arrays;
    for (const Array& array : arrays) device_arrays.push_back(on_device(array, test_gpu()));
    update(device_arrays);
    for (size_t i = 0; i < arrays.size(); ++i)
      CHECK(difference(arrays[i], on_device(device_arrays[i], Device::cpu())) == 0);
  }
}

TEST_CASE("updates have the same bits each time and in a graph", "[cuda][optimizer]") {
  require_gpu();
  Random random(34);
  for (const auto& [name, update] : all_updates()) {
    INFO(name);
    std::vector<Array> v;
    for (const Array& array :
         update_arrays(10007, 0, DType::f16, DType::f32, DType::f16, 0, 3, random))
      v.push_back(on_device(array, test_gpu()));
    check_same_bits([&, &update = update] { update(v); }, {v[1], v[2], v[3], v[4]});
  }
}

// Rows for the statistics of so many gradients, which hold something else so far.
Array statistics_rows(int64_t count) {
  return Array::full({kernels::gradient_chunks(count), 2}, 7, DType::f64);
}
// v: gradients, inverse scale, statistics, norm_sq, first_bad.
void measure(const std::vector<Array>& v) {
  BINADE_DISPATCH(v[0].device(), gradient_stats(v[0], v[1], v[2]));
  BINADE_DISPATCH(v[0].device(), add_gradient_stats(v[2], v[3], v[4]));
}

TEST_CASE("gradient statistics agree on both devices", "[cuda][optimizer]") {
  require_gpu();
  Random random(35);
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const DType dtype : kFloatingDTypes)
    for (const int64_t count : {1, 7, 4096, 8192, 8193, 300007})
      for (const int64_t skip : {0, 1})
        for (const double bad : {0.0, inf, -inf, nan}) {
          INFO(dtype << ", count " << count << ", skip " << skip << ", bad " << bad);
          const Array grad = flat(count, skip, dtype, random);
          if (bad != 0) {
            write(grad, count / 3, bad);
            write(grad, count - 1, bad);
          }
          // Squares of f32 add up in different orders: 1e-11 · 1e5.
          compare_devices(measure,
                          {grad, scalar(1.0 / 1024, DType::f32), statistics_rows(count),
                           scalar(0.5, DType::f64), scalar(5, DType::i64)},
                          1e5);
        }
  // No gradients at all.
  compare_devices(measure, {Array::empty({0}, DType::f16), scalar(1, DType::f32),
                            statistics_rows(0), scalar(0.5, DType::f64), scalar(5, DType::i64)});
}

TEST_CASE("gradient statistics have the same bits each time, in a graph and by slices",
          "[cuda][optimizer]") {
  require_gpu();
  Random random(36);
  const int64_t count = 1000003;
  const Array grad = gpu_random({count}, DType::f16, random);
  const Array inv_scale = on_device(scalar(0.5, DType::f32), test_gpu());
  const Array norm_sq = gpu_empty({}, DType::f64), first_bad = gpu_empty({}, DType::i64);
  const Array rows = on_device(statistics_rows(count), test_gpu());
  check_same_bits(
      [&] {
        measure({grad, inv_scale, rows, norm_sq, first_bad});
      },
      {rows, norm_sq, first_bad});
  const Array pieces = on_device(statistics_rows(count), test_gpu());
  const int64_t cut = 57;
  BINADE_DISPATCH(grad.device(), gradient_stats(grad.slice(0, 0, cut * kGradientChunk), inv_scale,
                                                pieces.slice(0, 0, cut)));
  BINADE_DISPATCH(grad.device(), gradient_stats(grad.slice(0, cut * kGradientChunk), inv_scale,
                                                pieces.slice(0, cut)));
  CHECK(pieces.to_vector<double>() == rows.to_vector<double>());
}

TEST_CASE("the clip factor agrees on both devices", "[cuda][optimizer]") {
  require_gpu();
  for (const double norm_sq : {0.0, 9.0, 1e30, std::numeric_limits<double>::infinity()})
    for (const float max_norm : {0.0f, 1.0f})
      for (const bool bad : {false, true}) {
        Array first_bad = Array::full({3}, 0, DType::i64);
        for (int64_t i = 0; i < 3; ++i)
          first_bad.data<int64_t>()[i] = bad && i == 1 ? 12 : kNoBadGradient;
        INFO("norm_sq " << norm_sq << ", max_norm " << max_norm << ", bad " << bad);
        compare_devices(
            [&](const auto& v) {
              BINADE_DISPATCH(v[0].device(),
                              clip_factor(v[0], v[1], v[2], max_norm, v[3], v[4], v[5]));
            },
            {scalar(norm_sq, DType::f64), first_bad, scalar(0.125, DType::f32),
             scalar(7, DType::f32), scalar(7, DType::f32), scalar(7, DType::f32)});
      }
}

TEST_CASE("the scaler moves alike on both devices", "[cuda][optimizer]") {
  require_gpu();
  for (const bool dynamic : {true, false})
    for (const int hysteresis : {1, 2}) {
      ScalerSettings settings;
      settings.growth_interval = 3;
      settings.hysteresis = hysteresis;
      settings.min_scale = 2;
      settings.max_scale = 32;
      settings.dynamic = dynamic;
      // 0 scale, 1 inv_scale, 2 tracker, 3 credit, 4 skipped, 5 at_floor, 6 found_inf, 7 step
      const std::vector<Array> arrays = {scalar(16, DType::f32), scalar(1.0 / 16, DType::f32),
                                         scalar(0, DType::i32),  scalar(hysteresis, DType::i32),
                                         scalar(0, DType::i64),  scalar(0, DType::i32),
                                         scalar(0, DType::f32),  scalar(0, DType::i64)};
      // Growth to the ceiling, down to the floor and below, and up again.
      for (const char step : std::string("ggggggggbgbbgbbbbbbbbgggggbgg")) {
        write(arrays[6], 0, step == 'b' ? 1 : 0);
        compare_devices(
            [&](const auto& v) {
              const ScalerState state{v[0], v[1], v[2], v[3], v[4], v[5]};
              BINADE_DISPATCH(v[0].device(), update_scale(state, settings, v[6]));
              BINADE_DISPATCH(v[0].device(), advance_step(v[7], v[6]));
            },
            arrays);
      }
      CHECK(read(arrays[7], 0) == 17);
    }
}
