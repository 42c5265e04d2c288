// Kernels that read and write by index, and random numbers, on the GPU against those on the CPU.
#include <binade/core/kernels/indexing.h>

#include <bit>
#include <cstring>

#include <binade/core/device_errors.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/random.h>
#include <binade/core/random.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

Array random_index(const Shape& shape, int64_t size, DType dtype, Random& random) {
  const Array index = Array::empty(shape, dtype);
  for (int64_t i = 0; i < index.numel(); ++i)
    write(index, i, static_cast<double>(random() % static_cast<uint64_t>(size)));
  return index;
}

PhiloxKey key_on(Device device, uint64_t place = 3) {
  return {
      .seed = 0x123456789abcdefu, .step = Array::full({}, 5, DType::i64, device), .place = place};
}

// Distance of two floats in representable numbers.
int64_t ulps(float a, float b) {
  const auto ordered = [](float x) {
    const auto bits = std::bit_cast<int32_t>(x);
    return bits >= 0 ? int64_t{bits} : int64_t{INT32_MIN} - bits;
  };
  return std::abs(ordered(a) - ordered(b));
}

}  // namespace

TEST_CASE("gather and index_select agree on both devices", "[cuda][indexing]") {
  require_gpu();
  Random random(41);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::i64, DType::u8})
    for (const DType index_dtype : {DType::i64, DType::i32})
      for (const Array& x : layouts({6, 5, 32}, dtype, random))
        for (int dim = 0; dim < 3; ++dim) {
          INFO(dtype << ", strides " << x.strides() << ", dim " << dim);
          Shape shape{6, 5, 32};
          shape[dim] = 9;
          const Array index = random_index(shape, x.size(dim), index_dtype, random);
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), gather(v[0], dim, v[1], v[2])); },
              {x, index, Array::zeros(shape, dtype)});
          const Array some =
              random_index({18}, x.size(dim), index_dtype, random).slice(0, 0, 18, 2);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), index_select(v[0], dim, v[1], v[2]));
              },
              {x, some, Array::zeros(shape, dtype)});
        }
}

TEST_CASE("gather within many rows agrees on both devices", "[cuda][indexing]") {
  require_gpu();
  Random random(45);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::u8})
    for (const DType index_dtype : {DType::i64, DType::i32})
      for (const Shape& from : {Shape{70, 100}, Shape{5, 16, 1031}, Shape{100, 1}, Shape{66, 4096}})
        for (const Array& x : layouts(from, dtype, random)) {
          const int dim = from.dims() - 1;
          INFO(dtype << ", x " << from << ", strides " << x.strides());
          Shape shape = from;
          shape[0] -= 1;  // fewer rows than x has
          shape[dim] = 2 * from[dim] + 1;
          const Array index = random_index(shape, from[dim], index_dtype, random);
          compare_devices(
              [&](const auto& v) { BINADE_DISPATCH(v[0].device(), gather(v[0], dim, v[1], v[2])); },
              {x, index, Array::zeros(shape, dtype)});
        }
}

TEST_CASE("scatter agrees on both devices, equal indices included", "[cuda][indexing]") {
  require_gpu();
  Random random(42);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64})
    for (const bool add : {false, true})
      for (const Array& out : layouts({6, 5, 32}, dtype, random))
        for (int dim = 0; dim < 3; ++dim) {
          INFO(dtype << ", strides " << out.strides() << ", dim " << dim << ", add " << add);
          Shape shape{4, 5, 30};
          shape[dim] = 20;
          for (int d = 0; d < 3; ++d)
            if (d != dim) shape[d] = std::min(shape[d], out.size(d));
          const Array index = random_index(shape, out.size(dim), DType::i64, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), scatter(v[0], dim, v[1], v[2], add));
              },
              {out, index, random_array(shape, dtype, random)}, 3);
        }
}

TEST_CASE("index_add agrees on both devices", "[cuda][indexing]") {
  require_gpu();
  Random random(43);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64})
    for (const Array& out : layouts({6, 5, 32}, dtype, random))
      for (int dim = 0; dim < 3; ++dim)
        for (const int64_t count : {1, 31, 32, 33, 100}) {
          const float beta = count % 2 == 0 ? 0 : 1;
          INFO(dtype << ", strides " << out.strides() << ", dim " << dim << ", count " << count);
          Shape shape{6, 5, 32};
          shape[dim] = count;
          const Array source = Array::empty(shape, dtype);
          fill_random(source, random);
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(), index_add(v[0], dim, v[1], v[2], beta));
              },
              {out, random_index({count}, out.size(dim), DType::i32, random), source}, 10);
        }
}

TEST_CASE("merged rows agree on both devices", "[cuda][indexing]") {
  require_gpu();
  Random random(45);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::u8})
    for (const Array& base : layouts({6, 5, 32}, dtype, random, true))
      for (int dim = 0; dim < 3; ++dim)
        for (const int64_t count : {1, 40}) {
          INFO(dtype << ", strides " << base.strides() << ", dim " << dim << ", count " << count);
          const int64_t places = base.size(dim);
          const Array index = random_index({count}, places + 1, DType::i64, random);
          for (int64_t k = 0; k < count; ++k)  // some are left out
            if (read(index, k) == static_cast<double>(places)) write(index, k, -1);
          Shape shape = base.shape();
          shape[dim] = count;
          for (const Array& source : {layouts(shape, dtype, random).front(),
                                      Array::full({1, 1, 1}, 3, dtype).expand(shape)})
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), last_writers(v[0], v[1], v[2]));
                  BINADE_DISPATCH(v[0].device(), merge_rows(v[3], v[4], dim, v[1], v[5]));
                  BINADE_DISPATCH(v[0].device(), merge_rows(v[4], v[3], dim, v[2], v[6]));
                },
                {index, Array::zeros({places}, DType::i64), Array::zeros({count}, DType::i64), base,
                 source, Array::zeros(base.shape(), dtype), Array::zeros(shape, dtype)});
        }
}

TEST_CASE("embeddings and their gradients agree on both devices", "[cuda][indexing]") {
  require_gpu();
  Random random(44);
  struct Case {
    int64_t vocabulary, width, tokens, distinct;
  };
  // Few tokens, a narrow table, one token all the time, runs of all lengths, a wide row.
  for (const Case& c : {Case{50, 64, 5, 50}, Case{11, 3, 200, 11}, Case{9, 40, 1000, 1},
                        Case{1000, 64, 700, 25}, Case{30, 5000, 70, 4}})
    for (const DType dtype : kFloatingDTypes)
      for (const DType index_dtype : {DType::i32, DType::i64}) {
        INFO(c.vocabulary << " x " << c.width << ", " << c.tokens << " tokens, " << dtype);
        const Array index = random_index({c.tokens}, c.distinct, index_dtype, random);
        for (const DType out : {dtype, DType::f32})
          compare_devices(
              [](const auto& v) { BINADE_DISPATCH(v[0].device(), embedding(v[0], v[1], v[2])); },
              {random_array({c.vocabulary, c.width}, dtype, random), index,
               Array::zeros({c.tokens, c.width}, out)});
        for (const DType table :
             is_half(dtype) ? std::vector{dtype, DType::f32} : std::vector{dtype})
          for (const float beta : {0.0f, 1.0f})
            compare_devices(
                [&](const auto& v) {
                  BINADE_DISPATCH(v[0].device(), embedding_backward(v[0], v[1], v[2], beta));
                },
                {random_array({c.tokens, c.width}, dtype, random, 0.2), index,
                 random_array({c.vocabulary, c.width}, table, random)},
                10);
      }
}

TEST_CASE("an index out of range is noted, left out and reported once", "[cuda][indexing]") {
  require_gpu();
  const Device gpu = test_gpu();
  const Array table = Array::full({4, 8}, 3, DType::f32, gpu);
  const Array index = Array::from<int64_t>({1, 4, -1}, {3}, gpu);
  const Array rows = Array::full({3, 8}, 7, DType::f32, gpu);
  check_device_faults(gpu);
  BINADE_DISPATCH(gpu, embedding(table, index, rows));
  CHECK_THROWS_WITH(check_device_faults(gpu), Catch::Contains("out of range"));
  CHECK_NOTHROW(check_device_faults(gpu));
  const std::vector<float> values = rows.to_vector<float>();
  CHECK(values[0] == 3);
  CHECK(values[8] == 0);
  CHECK(values[23] == 0);

  BINADE_DISPATCH(gpu, embedding_backward(rows, index, table, 0));
  CHECK_THROWS_AS(check_device_faults(gpu), Error);
  const std::vector<float> grads = table.to_vector<float>();
  for (size_t i = 0; i < grads.size(); ++i) CHECK(grads[i] == (i / 8 == 1 ? 3 : 0));

  const Array out = Array::zeros({4}, DType::f32, gpu);
  BINADE_DISPATCH(gpu, scatter(out, 0, index, Array::full({3}, 2, DType::f32, gpu), true));
  CHECK_THROWS_AS(check_device_faults(gpu), Error);
  CHECK(out.to_vector<float>() == std::vector<float>{0, 2, 0, 0});
}

TEST_CASE("draws have the same bits on both devices", "[cuda][random]") {
  require_gpu();
  const PhiloxKey host = key_on(Device::cpu()), device = key_on(test_gpu());
  for (const int64_t count : {1, 4, 1000, 4099})
    for (const DType dtype : kFloatingDTypes) {
      const Array a = Array::zeros({count}, dtype), b = on_device(a, test_gpu());
      kernels::cpu::uniform(a, host, -1.5, 2.5);
      BINADE_DISPATCH(b.device(), uniform(b, device, -1.5, 2.5));
      CHECK(difference(a, on_device(b, Device::cpu())) == 0);
    }
  const Array a = Array::zeros({5, 1001}, DType::boolean), b = on_device(a, test_gpu());
  kernels::cpu::bernoulli(a, host, 0.3);
  BINADE_DISPATCH(b.device(), bernoulli(b, device, 0.3));
  CHECK(difference(a, on_device(b, Device::cpu())) == 0);
  double ones = 0;
  for (const double value : values_of(a)) ones += value;
  CHECK(ones / 5005 == Approx(0.3).margin(0.03));
}

TEST_CASE("normals agree within two units in the last place", "[cuda][random]") {
  require_gpu();
  for (const int64_t offset : {0, 1}) {  // whole blocks of words, and elements one by one
    const Array all = Array::zeros({20003 + offset}, DType::f32);
    const Array a = all.slice(0, offset);
    const Array b = on_device(a, test_gpu());
    kernels::cpu::normal(a, key_on(Device::cpu()), 0, 1);
    BINADE_DISPATCH(b.device(), normal(b, key_on(test_gpu()), 0, 1));
    const std::vector<float> x = a.to_vector<float>(), y = b.to_vector<float>();
    int64_t worst = 0;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, ulps(x[i], y[i]));
      sum += y[i];
      squares += double{y[i]} * y[i];
    }
    CHECK(worst <= 2);
    CHECK(sum / 20003 == Approx(0).margin(0.03));
    CHECK(squares / 20003 == Approx(1).margin(0.04));
  }
}

TEST_CASE("dropout drops the same elements on both devices in any layout", "[cuda][random]") {
  require_gpu();
  Random random(45);
  for (const DType dtype : kFloatingDTypes)
    for (const Array& x : layouts({6, 100}, dtype, random))
      for (const Array& y : layouts({6, 100}, dtype, random))
        for (const float beta : {0.0f, 1.0f}) {
          INFO(dtype << ", strides " << x.strides() << " to " << y.strides());
          compare_devices(
              [&](const auto& v) {
                BINADE_DISPATCH(v[0].device(),
                                dropout(v[0], key_on(v[0].device()), 0.25f, v[1], beta));
              },
              {x, y});
        }
}

TEST_CASE("draws on the GPU follow the step on the device", "[cuda][random]") {
  require_gpu();
  PhiloxKey key = key_on(test_gpu());
  const Array first = Array::zeros({64}, DType::f32, test_gpu()), second = first.clone();
  BINADE_DISPATCH(first.device(), uniform(first, key, 0, 1));
  key.step.fill(6);
  BINADE_DISPATCH(first.device(), uniform(second, key, 0, 1));
  CHECK(first.to_vector<float>() != second.to_vector<float>());
  key.step.fill(5);
  BINADE_DISPATCH(first.device(), uniform(second, key, 0, 1));
  CHECK(first.to_vector<float>() == second.to_vector<float>());
}
