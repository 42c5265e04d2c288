// Sources of values: every piece has the bits of the whole.
#include <catch2/catch.hpp>

#include <string>
#include <utility>
#include <vector>

#include <binade/core/random.h>
#include <binade/nn/deferred.h>
#include <binade/nn/init.h>
#include <binade/nn/parameter.h>

namespace binade::test {
namespace {

std::vector<std::byte> bits_of(const Array& array) {
  const Array host = array.contiguous();
  const auto* data = static_cast<const std::byte*>(host.data());
  return {data, data + host.bytes()};
}

TEST_CASE("deferred: pieces of a source are those of the whole", "[nn][deferred]") {
  namespace init = nn::init;
  const Shape shape{37, 11};
  const std::vector<std::pair<const char*, nn::Initialiser>> initialisers = {
      {"zeros", init::zeros()},
      {"constant", init::constant(0.7)},
      {"uniform", init::uniform(-2, 3)},
      {"normal", init::normal(0.1, 2)},
      {"xavier_uniform", init::xavier_uniform()},
      {"xavier_normal", init::xavier_normal(2)},
      {"kaiming_uniform", init::kaiming_uniform()},
      {"kaiming_normal", init::kaiming_normal()},
      {"zeros_behind", init::zeros_behind(init::normal(), 30)},
      {"a function", [](const Shape& s, Device device) { return init::normal()(s, device); }}};
  for (const auto& [name, initialiser] : initialisers) {
    CAPTURE(name);
    RandomState::current().set_seed(5);
    const Array whole = initialiser(shape, Device::cpu());
    RandomState::current().set_seed(5);
    const nn::ValueSource source = initialiser.source(shape);
    RandomState::current().set_seed(6);  // what comes later does not matter
    CHECK((bits_of(source.make()) == bits_of(whole)));
    CHECK((bits_of(source.make(DType::f16)) == bits_of(whole.to(DType::f16))));
    CHECK((bits_of(source.rounded(DType::bf16).make()) ==
           bits_of(whole.to(DType::bf16).to(DType::f32))));
    for (const int64_t begin : {0, 1, 2, 3, 4, 10, 11, 12, 21, 100, 319, 320, 331, 406, 407})
      for (const int64_t count : {0, 1, 3, 4, 11, 12, 35, 87}) {
        if (begin + count > shape.numel()) continue;
        CAPTURE(begin, count);
        const Array piece = Array::empty({count}, DType::f32);
        source.write(begin, piece);
        CHECK((bits_of(piece) == bits_of(whole.flatten().slice(0, begin, begin + count))));
      }
  }
}

TEST_CASE("deferred: pieces of an array in any order of its elements", "[nn][deferred]") {
  const Array base = Array::arange(2 * 3 * 5 * 7, DType::f32).view({2, 3, 5, 7});
  const std::vector<Array> views = {base,
                                    base.transpose(0, 3),
                                    base.transpose(1, 2),
                                    base.slice(3, 1, 6, 2),
                                    base.select(1, 1).transpose(0, 2),
                                    base.to(DType::bf16).transpose(2, 3),
                                    Array::full({}, 3, DType::f32),
                                    Array::zeros({0, 4}, DType::f32).transpose(0, 1)};
  for (const Array& view : views) {
    CAPTURE(view.shape());
    const std::vector<float> all = view.to_vector<float>();
    const nn::ValueSource source = nn::ValueSource::of(view);
    for (size_t begin = 0; begin <= all.size(); ++begin)
      for (const size_t count : {size_t{0}, size_t{1}, size_t{4}, size_t{9}, size_t{50}}) {
        if (begin + count > all.size()) continue;
        const Array piece = Array::empty({static_cast<int64_t>(count)}, DType::f32);
        source.write(static_cast<int64_t>(begin), piece);
        const std::vector<float> expected(all.begin() + static_cast<ptrdiff_t>(begin),
                                          all.begin() + static_cast<ptrdiff_t>(begin + count));
        CHECK(piece.to_vector<float>() == expected);
      }
  }
  const nn::ValueSource source = nn::ValueSource::of(base);
  CHECK_THROWS_WITH(source.write(208, Array::empty({3}, DType::f32)),
                    Catch::Contains("elements 208 to 211 were asked for of a source of") &&
                        Catch::Contains("2, 3, 5, 7"));
  CHECK_THROWS_WITH(source.write(-1, Array::empty({3}, DType::f32)),
                    Catch::Contains("elements -1 to 2"));
  CHECK_THROWS_WITH(
      nn::Parameter(Array::zeros({4}, DType::f32)).assign(source),
      Catch::Contains("a parameter of shape") && Catch::Contains("cannot take values of shape"));
}

}  // namespace
}  // namespace binade::test
