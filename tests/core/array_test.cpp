// Views and copies of arrays against a picture of them that knows no strides: for every index, the
// number of the storage's element that it shows.
#include <binade/core/array.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

using namespace binade;
using Catch::Contains;

namespace {

using Index = std::vector<int64_t>;

Index unravel(int64_t linear, const Shape& shape) {
  Index index(static_cast<size_t>(shape.dims()));
  for (int d = shape.dims() - 1; d >= 0; --d) {
    index[static_cast<size_t>(d)] = linear % shape[d];
    linear /= shape[d];
  }
  return index;
}

int64_t ravel(const Index& index, const Shape& shape) {
  int64_t linear = 0;
  for (int d = 0; d < shape.dims(); ++d) linear = linear * shape[d] + index[static_cast<size_t>(d)];
  return linear;
}

// An array and its elements in row-major order. The storage holds 0, 1, 2, ..., so that an
// element's value is its place in the storage.
struct Picture {
  Array array;
  std::vector<int64_t> places;
};

Picture make_picture(const Shape& shape) {
  Picture picture{Array::arange(shape.numel(), DType::i64).view(shape), {}};
  picture.places.resize(static_cast<size_t>(shape.numel()));
  std::iota(picture.places.begin(), picture.places.end(), 0);
  return picture;
}

// `source_index` maps an index of the view to the index of the array that shows the same element.
template <class SourceIndex>
Picture derive(const Picture& from, const Array& view, SourceIndex source_index) {
  Picture result{view, {}};
  for (int64_t i = 0; i < view.numel(); ++i) {
    const Index source = source_index(unravel(i, view.shape()));
    result.places.push_back(from.places[static_cast<size_t>(ravel(source, from.array.shape()))]);
  }
  return result;
}

// Reads through data() and strides(), without kernels.
std::vector<int64_t> read(const Array& array) {
  std::vector<int64_t> values;
  for (int64_t i = 0; i < array.numel(); ++i) {
    const Index index = unravel(i, array.shape());
    int64_t offset = 0;
    for (int d = 0; d < array.dims(); ++d)
      offset += index[static_cast<size_t>(d)] * array.stride(d);
    values.push_back(array.data<int64_t>()[offset]);
  }
  return values;
}

// Whether some strides of `shape` show these places in this order: if any do, the steps from the
// first element along each dimension are these strides.
bool has_strides(const std::vector<int64_t>& places, const Shape& shape) {
  Index strides(static_cast<size_t>(shape.dims()), 0);
  for (int d = 0; d < shape.dims(); ++d) {
    if (shape[d] == 1) continue;
    Index one(strides.size(), 0);
    one[static_cast<size_t>(d)] = 1;
    strides[static_cast<size_t>(d)] =
        places[static_cast<size_t>(ravel(one, shape))] - places.front();
  }
  for (size_t i = 0; i < places.size(); ++i) {
    const Index index = unravel(static_cast<int64_t>(i), shape);
    const int64_t place =
        std::inner_product(index.begin(), index.end(), strides.begin(), places.front());
    if (places[i] != place) return false;
  }
  return true;
}

class Dice {
 public:
  explicit Dice(uint32_t seed) : generator_(seed) {}
  int64_t roll(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(generator_);
  }
  Shape shape() {
    Shape shape;
    for (int64_t d = roll(0, 4); d > 0; --d) shape.push_back(roll(1, 4));
    return shape;
  }
  // A shape of `numel` elements.
  Shape shape_of(int64_t numel) {
    Shape shape;
    while (numel > 1 && shape.dims() < 5) {
      int64_t factor = roll(1, numel);
      while (numel % factor != 0) factor = roll(1, numel);
      shape.push_back(factor);
      numel /= factor;
    }
    if (numel > 1) shape.push_back(numel);
    if (roll(0, 2) == 0) shape.insert(static_cast<int>(roll(0, shape.dims())), 1);
    return shape;
  }

 private:
  std::mt19937 generator_;
};

// One random view of a picture.
Picture random_view(const Picture& from, Dice& dice) {
  const Array& array = from.array;
  const int dims = array.dims();
  const auto at = [](Index& index, int d) -> int64_t& { return index[static_cast<size_t>(d)]; };
  const int d = dims ? static_cast<int>(dice.roll(0, dims - 1)) : 0;
  switch (dims == 0 ? 4 : dice.roll(0, 6)) {
    case 0: {
      const int e = static_cast<int>(dice.roll(0, dims - 1));
      return derive(from, array.transpose(d, e - dims), [&](Index index) {
        std::swap(at(index, d), at(index, e));
        return index;
      });
    }
    case 1: {
      std::vector<int> order(static_cast<size_t>(dims));
      std::iota(order.begin(), order.end(), 0);
      for (size_t i = order.size(); i > 1; --i)
        std::swap(order[i - 1],
                  order[static_cast<size_t>(dice.roll(0, static_cast<int64_t>(i) - 1))]);
      return derive(from, array.permute(order), [&](const Index& index) {
        Index source(index.size());
        for (size_t i = 0; i < order.size(); ++i) source[static_cast<size_t>(order[i])] = index[i];
        return source;
      });
    }
    case 2: {
      const int64_t start = dice.roll(0, array.size(d) - 1), step = dice.roll(1, 3);
      const int64_t end = dice.roll(start + 1, array.size(d));
      return derive(from, array.slice(d, start, end, step), [&](Index index) {
        at(index, d) = start + step * at(index, d);
        return index;
      });
    }
    case 3: {
      const int64_t chosen = dice.roll(0, array.size(d) - 1);
      return derive(from, array.select(d, chosen - array.size(d)), [&](Index index) {
        index.insert(index.begin() + d, chosen);
        return index;
      });
    }
    case 4: {
      if (dims == kMaxDims) return from;
      const int e = static_cast<int>(dice.roll(0, dims));
      return derive(from, array.unsqueeze(e), [&](Index index) {
        index.erase(index.begin() + e);
        return index;
      });
    }
    case 5: {
      if (array.size(d) != 1) return from;
      return derive(from, array.squeeze(d), [&](Index index) {
        index.insert(index.begin() + d, 0);
        return index;
      });
    }
    default: {
      Shape shape = array.shape();
      for (int i = 0; i < dims; ++i)
        if (shape[i] == 1) shape[i] = dice.roll(1, 3);
      const int added = dims < 5 ? static_cast<int>(dice.roll(0, 1)) : 0;
      if (added) shape.insert(0, 2);
      return derive(from, array.expand(shape), [&](Index index) {
        index.erase(index.begin(), index.begin() + added);
        for (int i = 0; i < dims; ++i)
          if (array.size(i) == 1) at(index, i) = 0;
        return index;
      });
    }
  }
}

Array f32(const std::vector<float>& values, const Shape& shape) {
  return Array::from(values, shape);
}

}  // namespace

TEST_CASE("random views of views show the right elements", "[array]") {
  for (uint32_t seed = 0; seed < 400; ++seed) {
    Dice dice(seed);
    Picture picture = make_picture(dice.shape());
    const Array base = picture.array;
    for (int64_t step = dice.roll(1, 6); step > 0 && picture.array.numel() < 2000; --step) {
      picture = random_view(picture, dice);
      CAPTURE(seed, picture.array.shape(), picture.array.strides());
      REQUIRE(picture.array.numel() == picture.array.shape().numel());
      REQUIRE(picture.array.shares_storage(base));
      REQUIRE(read(picture.array) == picture.places);
      REQUIRE(picture.array.to_vector<int64_t>() == picture.places);
      REQUIRE(picture.array.clone().is_contiguous());
      REQUIRE(read(picture.array.clone()) == picture.places);
    }
  }
}

TEST_CASE("an array is contiguous if its elements follow one another", "[array]") {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    Dice dice(seed);
    Picture picture = make_picture(dice.shape());
    for (int64_t step = dice.roll(0, 4); step > 0 && picture.array.numel() < 2000; --step)
      picture = random_view(picture, dice);
    bool follow = true;
    for (size_t i = 1; i < picture.places.size(); ++i)
      follow &= picture.places[i] == picture.places[i - 1] + 1;
    CAPTURE(seed, picture.array.shape(), picture.array.strides());
    REQUIRE(picture.array.is_contiguous() == follow);
    REQUIRE(picture.array.contiguous().shares_storage(picture.array) == follow);
  }
}

TEST_CASE("reshape copies only where no strides would do", "[array]") {
  int views = 0, copies = 0;
  for (uint32_t seed = 0; seed < 1500; ++seed) {
    Dice dice(seed);
    Picture picture = make_picture(dice.shape());
    for (int64_t step = dice.roll(0, 4); step > 0 && picture.array.numel() < 300; --step)
      picture = random_view(picture, dice);
    const Array& array = picture.array;
    const Shape shape = dice.shape_of(array.numel());
    CAPTURE(seed, array.shape(), array.strides(), shape);

    const bool possible = has_strides(picture.places, shape);
    ++(possible ? views : copies);
    REQUIRE(array.can_view(shape) == possible);
    const Array reshaped = array.reshape(shape);
    REQUIRE(reshaped.shape() == shape);
    REQUIRE(reshaped.shares_storage(array) == possible);
    REQUIRE(read(reshaped) == picture.places);
    if (possible)
      REQUIRE(read(array.view(shape)) == picture.places);
    else
      REQUIRE_THROWS_WITH(array.view(shape), Contains("use reshape"));
  }
  CHECK(views > 100);
  CHECK(copies > 100);
}

TEST_CASE("one size of a reshape may be -1", "[array]") {
  const Array array = Array::arange(24, DType::i32);
  CHECK(array.view({2, -1, 3}).shape() == Shape{2, 4, 3});
  CHECK(array.view({-1}).shape() == Shape{24});
  CHECK(array.view({24, -1}).shape() == Shape{24, 1});
  CHECK(array.view({2, 12}).flatten().shape() == Shape{24});
  CHECK(Array::zeros({}, DType::f32).view({-1}).shape() == Shape{1});
  CHECK(Array::zeros({0, 3}, DType::f32).view({-1, 3}).shape() == Shape{0, 3});
}

TEST_CASE("a reshape to another number of elements is refused", "[array][bad-input]") {
  const Array array = Array::arange(24, DType::i32);
  for (const Shape& shape : {Shape{5, 5}, Shape{5, -1}, Shape{-1, -1}, Shape{0, -1}, Shape{-2, -12},
                             Shape{}, Shape{-24}, Shape{int64_t{1} << 62, 4, -1}}) {
    CAPTURE(shape);
    CHECK_THROWS_AS(array.view(shape), Error);
    CHECK_THROWS_AS(array.reshape(shape), Error);
    CHECK_THROWS_AS(array.can_view(shape), Error);
  }
  CHECK_THROWS_AS(Array::zeros({0}, DType::f32).view({2}), Error);
  CHECK_THROWS_WITH(array.view({5, 5}), Contains("(24)") && Contains("(5, 5)"));
}

TEST_CASE("slices take positions as Python does", "[array]") {
  const Array array = Array::arange(5, DType::i64);
  const auto slice = [&](int64_t start, int64_t end, int64_t step) {
    return read(array.slice(0, start, end, step));
  };
  using Values = std::vector<int64_t>;
  CHECK(slice(1, 4, 1) == Values{1, 2, 3});
  CHECK(slice(0, kToEnd, 2) == Values{0, 2, 4});
  CHECK(slice(-2, kToEnd, 1) == Values{3, 4});
  CHECK(slice(0, -1, 3) == Values{0, 3});
  CHECK(slice(3, 1, 1).empty());
  CHECK(slice(7, 9, 1).empty());
  CHECK(slice(-9, 9, 1) == Values{0, 1, 2, 3, 4});
  const int64_t most = std::numeric_limits<int64_t>::max();
  CHECK(slice(1, kToEnd, most) == Values{1});
  CHECK(slice(-most - 1, most, most) == Values{0});
  CHECK_THROWS_AS(slice(0, 5, 0), Error);
  CHECK_THROWS_AS(slice(0, 5, -1), Error);
}

TEST_CASE("views of an array without elements stay without elements", "[array]") {
  const Array array = Array::zeros({3, 0, 4}, DType::f32);
  CHECK(array.is_contiguous());
  CHECK(array.transpose(0, 2).shape() == Shape{4, 0, 3});
  CHECK(array.select(0, 1).shape() == Shape{0, 4});
  CHECK(array.slice(1, 0).shape() == Shape{3, 0, 4});
  CHECK(array.slice(0, 1).shape() == Shape{2, 0, 4});
  CHECK(array.unsqueeze(-1).shape() == Shape{3, 0, 4, 1});
  CHECK(array.reshape({0, 7}).shape() == Shape{0, 7});
  CHECK(array.select(2, 0).unsqueeze(0).expand({5, 3, 0}).shape() == Shape{5, 3, 0});
  CHECK(array.clone().numel() == 0);
  CHECK(array.to(DType::i32).to_vector<int32_t>().empty());
  CHECK_THROWS_AS(array.select(1, 0), Error);
  CHECK_THROWS_AS(array.item(), Error);
  array.fill(1);
  array.copy_from(Array::zeros({1, 1, 4}, DType::f16));
  CHECK_THROWS_AS(array.copy_from(Array::zeros({2, 0, 4}, DType::f32)), Error);
}

TEST_CASE("views that do not exist are refused", "[array][bad-input]") {
  const Array array = Array::zeros({2, 3}, DType::f32);
  CHECK_THROWS_AS(array.transpose(0, 2), Error);
  CHECK_THROWS_AS(array.permute(std::vector<int>{0}), Error);
  CHECK_THROWS_WITH(array.permute(std::vector<int>{1, -1}), Contains("twice"));
  CHECK_THROWS_AS(array.slice(2, 0), Error);
  CHECK_THROWS_WITH(array.select(1, 3), Contains("3") && Contains("(2, 3)"));
  CHECK_THROWS_AS(array.select(1, -4), Error);
  CHECK_THROWS_AS(array.unsqueeze(3), Error);
  CHECK_THROWS_AS(array.unsqueeze(-4), Error);
  CHECK_THROWS_WITH(array.squeeze(0), Contains("size 2"));
  CHECK_THROWS_AS(array.expand({3}), Error);
  CHECK_THROWS_AS(array.expand({2, 6}), Error);
  CHECK_THROWS_AS(array.expand({-1, 2, 3}), Error);
  CHECK_THROWS_AS(Array::zeros({1}, DType::f32).expand({-1}), Error);
  CHECK_THROWS_AS(Array::zeros(Shape::filled(kMaxDims, 1), DType::f32).unsqueeze(0), Error);
}

TEST_CASE("copy_from broadcasts, converts and writes through any strides", "[array]") {
  const DType dtypes[] = {DType::f64, DType::f32, DType::f16, DType::bf16,
                          DType::i64, DType::i32, DType::u8};
  for (uint32_t seed = 0; seed < 300; ++seed) {
    Dice dice(seed);
    const Shape shape{dice.roll(1, 4), dice.roll(1, 4), dice.roll(1, 5)};
    Shape source_shape = shape;
    for (int d = 0; d < 3; ++d)
      if (dice.roll(0, 2) == 0) source_shape[d] = 1;
    if (dice.roll(0, 2) == 0) source_shape.erase(0);
    const DType from = dtypes[dice.roll(0, 6)], to = dtypes[dice.roll(0, 6)];
    CAPTURE(seed, shape, source_shape, from, to);

    // Whole numbers up to 100 are exact in every dtype.
    Array source = Array::arange(source_shape.numel(), from).view(source_shape);
    if (dice.roll(0, 1)) {  // the same elements in another layout
      const Array turned = source.transpose(0, -1).clone();
      source = turned.transpose(0, -1);
    }
    const Array whole = Array::full({shape[2] * 2, shape[0], shape[1]}, 101, to);
    const Array target = whole.slice(0, 1, kToEnd, 2).permute(std::vector<int>{1, 2, 0});
    target.copy_from(source);

    const std::vector<double> written = target.to_vector<double>();
    for (int64_t i = 0; i < shape.numel(); ++i) {
      Index index = unravel(i, shape);
      if (source_shape.dims() == 2) index.erase(index.begin());
      for (int d = 0; d < source_shape.dims(); ++d)
        if (source_shape[d] == 1) index[static_cast<size_t>(d)] = 0;
      REQUIRE(written[static_cast<size_t>(i)] == static_cast<double>(ravel(index, source_shape)));
    }
    const std::vector<double> between = whole.slice(0, 0, kToEnd, 2).to_vector<double>();
    REQUIRE(std::count(between.begin(), between.end(), 101.0) == shape.numel());
  }
}

TEST_CASE("copy_from refuses a source that does not broadcast", "[array][bad-input]") {
  const Array target = Array::zeros({2, 3}, DType::f32);
  CHECK_THROWS_WITH(target.copy_from(Array::zeros({2}, DType::f32)), Contains("(2, 3)"));
  CHECK_THROWS_AS(target.copy_from(Array::zeros({1, 2, 3}, DType::f32)), Error);
  CHECK(target.storage()->version() == 1);  // of zeros(): a refused copy changes nothing
}

TEST_CASE("an array is copied onto itself as if read first", "[array]") {
  const Array square = Array::arange(9, DType::i64).view({3, 3});
  square.copy_from(square.transpose(0, 1));
  CHECK(read(square) == std::vector<int64_t>{0, 3, 6, 1, 4, 7, 2, 5, 8});

  const Array line = Array::arange(6, DType::i64);
  line.slice(0, 1).copy_from(line.slice(0, 0, 5));
  CHECK(read(line) == std::vector<int64_t>{0, 0, 1, 2, 3, 4});
  line.slice(0, 0, 5).copy_from(line.slice(0, 1));
  CHECK(read(line) == std::vector<int64_t>{0, 1, 2, 3, 4, 4});
  line.copy_from(line.select(0, 3));
  CHECK(read(line) == std::vector<int64_t>(6, 3));
  line.copy_from(line);
  CHECK(read(line) == std::vector<int64_t>(6, 3));
}

TEST_CASE("conversions to integers and bool take what they can", "[array]") {
  const Array values = f32({-1.75f, -0.5f, 0.0f, 0.5f, 2.5f, 200.0f}, {6});
  CHECK(values.to_vector<int64_t>() == std::vector<int64_t>{-1, 0, 0, 0, 2, 200});
  CHECK(values.to(DType::boolean).to_vector<int32_t>() == std::vector<int32_t>{1, 1, 0, 1, 1, 1});
  CHECK(f32({0, 1, 255}, {3}).to(DType::u8).to_vector<float>() == std::vector<float>{0, 1, 255});
  CHECK(f32({NAN}, {1}).to(DType::boolean).item() == 1);
}

TEST_CASE("large whole numbers survive in i64", "[array]") {
  const int64_t big = (int64_t{1} << 53) + 1;
  const Array array = Array::from(std::vector<int64_t>{big, -big}, {2});
  CHECK(array.to_vector<int64_t>() == std::vector<int64_t>{big, -big});
  CHECK(array.clone().data<int64_t>()[1] == -big);
}

TEST_CASE("arrays are filled and ranged", "[array]") {
  CHECK(Array::full({2, 2}, 1.5, DType::bf16).to_vector<float>() == std::vector<float>(4, 1.5f));
  CHECK(Array::zeros({3}, DType::boolean).to_vector<int32_t>() == std::vector<int32_t>(3, 0));
  CHECK(Array::arange(3, DType::f16).to_vector<float>() == std::vector<float>{0, 1, 2});
  CHECK(Array::arange(0, DType::i32).shape() == Shape{0});
  CHECK(Array::full({}, 7, DType::i32).item() == 7);
  const Array array = Array::zeros({2, 3}, DType::f32);
  array.transpose(0, 1).select(0, 1).fill(4);
  CHECK(array.to_vector<float>() == std::vector<float>{0, 4, 0, 0, 4, 0});
}

TEST_CASE("creation refuses what cannot be", "[array][bad-input]") {
  const int64_t big = int64_t{1} << 61;
  CHECK_THROWS_AS(Array::empty({-1}, DType::f32), Error);
  CHECK_THROWS_AS(Array::arange(-1, DType::f32), Error);
  CHECK_THROWS_AS(Array::empty({big, 8}, DType::u8), Error);
  CHECK_THROWS_AS(Array::empty({0, big, 8}, DType::u8), Error);
  CHECK_THROWS_WITH(Array::empty({big}, DType::f64), Contains("bytes"));
  CHECK_THROWS_WITH(Array::from(std::vector<float>(5), {2, 3}),
                    Contains("5") && Contains("(2, 3)"));
  CHECK_THROWS_WITH(Array::zeros({2}, DType::f32).data<double>(),
                    Contains("f32") && Contains("f64"));
  CHECK_THROWS_AS(Array::zeros({2}, DType::f32).item(), Error);
}

TEST_CASE("an undefined array says so", "[array][bad-input]") {
  const Array none;
  CHECK_FALSE(none.defined());
  CHECK_THROWS_WITH(none.fill(1), Contains("undefined"));
  CHECK_THROWS_WITH(none.clone(), Contains("undefined"));
  CHECK_THROWS_WITH(none.copy_from(Array::zeros({}, DType::f32)), Contains("undefined"));
  CHECK_THROWS_AS(none.item(), Error);
}

TEST_CASE("conversion and copies happen only where something changes", "[array]") {
  const Array array = Array::arange(6, DType::f32).view({2, 3});
  CHECK(array.to(DType::f32).shares_storage(array));
  CHECK(array.to(Device::cpu()).shares_storage(array));
  CHECK(array.contiguous().shares_storage(array));
  CHECK_FALSE(array.to(DType::f16).shares_storage(array));
  CHECK_FALSE(array.clone().shares_storage(array));
  CHECK_FALSE(array.transpose(0, 1).contiguous().shares_storage(array));
}

TEST_CASE("writes are counted by the storage, reads are not", "[array]") {
  const Array array = Array::empty({2, 3}, DType::f32);
  const Array view = array.transpose(0, 1).slice(0, 1);
  CHECK(array.storage()->version() == 0);
  array.fill(1);
  CHECK(array.storage()->version() == 1);
  view.zero();
  CHECK(array.storage()->version() == 2);
  view.copy_from(Array::full({}, 3, DType::f32));
  CHECK(array.storage()->version() == 3);
  array.bump_version();
  CHECK(view.storage()->version() == 4);
  const Array copy = view.clone();
  static_cast<void>(view.to_vector<float>());
  static_cast<void>(array.reshape({3, 2}));
  CHECK(array.storage()->version() == 4);
  copy.fill(0);
  CHECK(array.storage()->version() == 4);
}

TEST_CASE("from_blob shows foreign memory and keeps its owner alive", "[array]") {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4});
  const std::weak_ptr<std::vector<float>> watch = owner;
  Array view;
  {
    const Array blob = Array::from_blob(owner->data(), {2, 2}, DType::f32, {}, owner);
    CHECK(blob.data() == owner->data());
    blob.select(0, 1).fill(9);
    CHECK(*owner == std::vector<float>{1, 2, 9, 9});
    view = blob.select(1, 0);
  }
  owner.reset();
  CHECK_FALSE(watch.expired());
  CHECK(view.to_vector<float>() == std::vector<float>{1, 9});
  view = {};
  CHECK(watch.expired());
}

TEST_CASE("from_blob without an owner leaves the memory to the caller", "[array]") {
  std::vector<int32_t> values{1, 2, 3};
  { const Array blob = Array::from_blob(values.data(), {3}, DType::i32); }
  CHECK(values == std::vector<int32_t>{1, 2, 3});
  CHECK_THROWS_AS(Array::from_blob(values.data(), {-3}, DType::i32), Error);
}
