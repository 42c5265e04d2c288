// Kernels that read and write by index or in another order, on the GPU against the CPU: arrays of
// one to four dimensions of odd sizes, each operand in a layout of its own.
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/rearrange.h>
#include <binade/core/kernels/selection.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

constexpr int kRounds = 120;

int64_t between(int64_t least, int64_t most, Random& random) {
  return least + static_cast<int64_t>(random() % static_cast<uint64_t>(most - least + 1));
}

template <class T>
const T& one_of(const std::vector<T>& values, Random& random) {
  return values[random() % values.size()];
}

Shape some_shape(Random& random) {
  Shape shape;
  const int64_t dims = between(1, 4, random);
  for (int64_t d = 0; d < dims; ++d) shape.push_back(between(1, 7, random));
  shape[static_cast<int>(between(0, dims - 1, random))] = between(1, 70, random);
  return shape;
}

// One of the layouts that arrays have.
Array in_some_layout(const Shape& shape, DType dtype, Random& random) {
  return one_of(layouts(shape, dtype, random), random);
}

// Positions below `size`, as another layout has them.
Array some_index(const Shape& shape, int64_t size, Random& random) {
  const Array index = in_some_layout(shape, random() % 2 == 0 ? DType::i64 : DType::i32, random);
  const Array all = whole_storage(index);
  for (int64_t i = 0; i < all.numel(); ++i)
    write(all, i, static_cast<double>(between(0, size - 1, random)));
  return index;
}

}  // namespace

TEST_CASE("reading by index agrees on both devices in any layouts", "[cuda][indexing][layouts]") {
  require_gpu();
  Random random(101);
  for (int round = 0; round < kRounds; ++round) {
    const DType dtype = one_of(kAllDTypes, random);
    const Shape from = some_shape(random);
    const int dim = static_cast<int>(between(0, from.dims() - 1, random));
    Shape to = from;
    to[dim] = between(1, 40, random);
    INFO("round " << round << ": " << dtype << ' ' << from << " to " << to << ", dim " << dim);
    const Array x = in_some_layout(from, dtype, random);
    compare_devices(
        [&](const auto& v) { BINADE_DISPATCH(v[0].device(), index_select(v[0], dim, v[1], v[2])); },
        {x, some_index({to[dim]}, from[dim], random), in_some_layout(to, dtype, random)});
    Shape fewer = to;
    for (int d = 0; d < fewer.dims(); ++d)
      if (d != dim) fewer[d] = between(1, fewer[d], random);
    compare_devices(
        [&](const auto& v) { BINADE_DISPATCH(v[0].device(), gather(v[0], dim, v[1], v[2])); },
        {x, some_index(fewer, from[dim], random), in_some_layout(fewer, dtype, random)});
  }
}

TEST_CASE("writing by index agrees on both devices in any layouts", "[cuda][indexing][layouts]") {
  require_gpu();
  Random random(102);
  for (int round = 0; round < kRounds; ++round) {
    const DType dtype =
        one_of(std::vector{DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32},
               random);
    const Shape to = some_shape(random);
    const int dim = static_cast<int>(between(0, to.dims() - 1, random));
    Shape from = to;
    from[dim] = between(1, 40, random);
    INFO("round " << round << ": " << dtype << ' ' << from << " to " << to << ", dim " << dim);
    const float beta = static_cast<float>(round % 2);
    compare_devices(
        [&](const auto& v) {
          BINADE_DISPATCH(v[0].device(), index_add(v[0], dim, v[1], v[2], beta));
        },
        {in_some_layout(to, dtype, random), some_index({from[dim]}, to[dim], random),
         in_some_layout(from, dtype, random)},
        10);
    for (int d = 0; d < from.dims(); ++d)
      if (d != dim) from[d] = between(1, from[d], random);
    compare_devices(
        [&](const auto& v) {
          BINADE_DISPATCH(v[0].device(), scatter(v[0], dim, v[1], v[2], beta == 0));
        },
        {in_some_layout(to, dtype, random), some_index(from, to[dim], random),
         in_some_layout(from, dtype, random)},
        10);
    const ScatterFold fold = one_of(
        is_floating(dtype) ? std::vector{ScatterFold::sum, ScatterFold::prod, ScatterFold::mean,
                                         ScatterFold::max, ScatterFold::min}
                           : std::vector{ScatterFold::sum, ScatterFold::max, ScatterFold::min},
        random);
    const bool include_self = random() % 2 == 0;
    compare_devices(
        [&](const auto& v) {
          BINADE_DISPATCH(v[0].device(), scatter_reduce(v[0], dim, v[1], v[2], fold, include_self));
        },
        {in_some_layout(to, dtype, random), some_index(from, to[dim], random),
         in_some_layout(from, dtype, random)},
        20);
  }
}

TEST_CASE("rearranged copies agree on both devices in any layouts", "[cuda][rearrange][layouts]") {
  require_gpu();
  Random random(703);
  for (int round = 0; round < 3 * kRounds; ++round) {
    const DType dtype = one_of(kAllDTypes, random);
    const Shape from = some_shape(random);
    Shape to = from;
    std::vector<AxisMap> maps;
    bool has_gradient = is_floating(dtype);
    for (int d = 0; d < from.dims(); ++d) {
      const int64_t n = from[d];
      AxisMap map{.size = n};
      switch (random() % 6) {
        case 0:
          map.reversed = true;
          map.offset = n - 1;
          break;
        case 1:
          map.repeats = between(2, 3, random);
          to[d] = n * map.repeats;
          break;
        case 2:  // cut or grown by numbers, or by the edge, at both ends
        case 3: {
          map.beyond = random() % 2 == 0 ? Beyond::number : Beyond::edge;
          const int64_t front = between(-(n - 1), 5, random), least = 1 - n - front;
          map.offset = -front;
          to[d] = n + front + between(std::max<int64_t>(least, -3), 5, random);
          break;
        }
        case 4:
          map.beyond = Beyond::other_side;
          map.offset = between(1 - n, n - 1, random);
          break;
        default:
          if (n > 1) {
            const int64_t front = between(0, n - 1, random);
            map.beyond = Beyond::mirror;
            map.offset = -front;
            to[d] = n + front + between(0, n - 1, random);
          }
      }
      has_gradient = has_gradient && !map.reversed && map.repeats == 1;
      maps.push_back(map);
    }
    INFO("round " << round << ": " << dtype << ' ' << from << " to " << to);
    const Array out = Array::zeros(to, dtype);
    compare_devices(
        [&](const auto& v) { BINADE_DISPATCH(v[0].device(), rearrange(v[0], maps, 3, v[1])); },
        {in_some_layout(from, dtype, random), out});
    if (!has_gradient) continue;
    compare_devices(
        [&](const auto& v) {
          BINADE_DISPATCH(v[0].device(), rearrange_backward(v[0], maps, v[1]));
        },
        {in_some_layout(to, dtype, random), Array::zeros(from, dtype)}, 20);
  }
}

TEST_CASE("choosing by several indices agrees on both devices in any layouts",
          "[cuda][selection][layouts]") {
  require_gpu();
  Random random(104);
  for (int round = 0; round < kRounds; ++round) {
    const Shape shape = some_shape(random);
    const int64_t size = between(1, 9, random);
    INFO("round " << round << ": " << shape << ", size " << size);
    const float beta = static_cast<float>(round % 2);
    const Array sums = Array::zeros(shape, DType::i64);
    compare_devices(
        [&](const auto& v) {
          BINADE_DISPATCH(v[0].device(), flat_index(v[0], size, 3, v[1], beta));
        },
        {some_index(shape, size, random), sums});
    const DType dtype = one_of(kAllDTypes, random);
    compare_devices(
        [&](const auto& v) { BINADE_DISPATCH(v[0].device(), one_hot(v[0], v[1])); },
        {some_index({shape.numel()}, size, random), Array::zeros({shape.numel(), size}, dtype)});
  }
}
