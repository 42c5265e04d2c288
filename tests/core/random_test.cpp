#include <binade/core/random.h>

#include <cmath>
#include <cstdint>
#include <set>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

using namespace binade;
using Catch::Contains;

namespace {

std::vector<uint32_t> words(const PhiloxBlock& block) {
  return {block.word[0], block.word[1], block.word[2], block.word[3]};
}

}  // namespace

TEST_CASE("Philox gives the known answers of Random123", "[random]") {
  // kat_vectors of Random123 for philox4x32-10; the four counter words are laid out as random.h
  // says: element block, place, step.
  using Words = std::vector<uint32_t>;
  CHECK(words(philox(0, 0, 0, 0)) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint64_t ones = ~uint64_t{0};
  CHECK(words(philox(ones, ones, 0xffffff, (uint64_t{1} << 40) - 1)) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // Counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  CHECK(words(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0xa308d3, 0x85243f6a88)) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("seed, step, place and block each lead to other words", "[random]") {
  std::set<std::vector<uint32_t>> seen;
  for (uint64_t seed = 0; seed < 3; ++seed)
    for (uint64_t step = 0; step < 3; ++step)
      for (uint64_t place = 0; place < 3; ++place)
        for (uint64_t block = 0; block < 3; ++block)
          seen.insert(words(philox(seed, step, place, block)));
  for (const uint64_t high : {uint64_t{1} << 32, uint64_t{1} << 39})
    seen.insert(words(philox(0, 0, 0, high)));
  seen.insert(words(philox(0, uint64_t{1} << 40, 0, 0)));
  seen.insert(words(philox(uint64_t{1} << 40, 0, 0, 0)));
  CHECK(seen.size() == 81 + 4);
}

TEST_CASE("uniforms lie in [0, 1) and use 24 bits", "[random]") {
  CHECK(uniform_of(0) == 0.0f);
  CHECK(uniform_of(0xff) == 0.0f);
  CHECK(uniform_of(0x80000000u) == 0.5f);
  CHECK(uniform_of(0xffffffffu) == std::nextafter(1.0f, 0.0f));
  CHECK(uniform_in(-2, 6, 0) == -2.0);
  CHECK(uniform_in(-2, 6, 0x80000000u) == 2.0);
  CHECK(uniform_in(-2, 6, 0xffffffffu) < 6.0);
}

TEST_CASE("normals follow Box and Muller's formula", "[random]") {
  uint32_t state = 1;
  const auto next = [&] { return state = state * 1664525u + 1013904223u; };
  std::vector<std::pair<uint32_t, uint32_t>> cases;
  for (int i = 0; i < 1000; ++i) cases.emplace_back(next(), next());
  for (const uint32_t word1 :
       {0u, 0x1fffffffu, 0x20000000u, 0x40000000u, 0x80000000u, 0xe0000000u, 0xffffffffu})
    cases.emplace_back(12345u, word1);
  for (const auto& [word0, word1] : cases) {
    const long double v = (static_cast<long double>(word0) + 1) / 4294967296.0L;
    const long double angle = 2 * acosl(-1.0L) * static_cast<long double>(word1) / 4294967296.0L;
    const long double radius = sqrtl(-2 * logl(v));
    const NormalPair pair = normal_pair(word0, word1);
    REQUIRE(std::abs(pair.value[0] - static_cast<double>(radius * cosl(angle))) < 1e-14);
    REQUIRE(std::abs(pair.value[1] - static_cast<double>(radius * sinl(angle))) < 1e-14);
  }
  // The extremes of the radius are finite.
  CHECK(normal_pair(0, 0).value[0] == Approx(std::sqrt(64 * std::log(2.0))));
  CHECK(normal_pair(0xffffffffu, 0).value[0] == 0);
}

TEST_CASE("places are numbered within a step and can be gone back to", "[random]") {
  RandomState state;
  state.begin_step(7, 3);
  CHECK(state.seed() == 7);
  constexpr uint64_t kOps = 0xc00000, kInitialisers = 0x800000;  // inside a step
  CHECK(state.next_place() == kOps);
  CHECK(state.next_place() == kOps + 1);
  state.set_place(1);
  CHECK(state.next_place() == kOps + 1);
  CHECK(state.next_place(RandomState::Use::initialiser) == kInitialisers + 2);
  CHECK(state.step_on(Device::cpu()).item() == 3);
  state.begin_step(7, 4);
  CHECK(state.place() == 0);
  CHECK(state.step_on(Device::cpu()).item() == 4);
  CHECK(state.step_on(Device::cpu()).dtype() == DType::i64);
}

TEST_CASE("places of initialisers and ops, before and inside steps, never meet", "[random]") {
  RandomState state;
  std::set<uint64_t> places;
  size_t draws = 0;
  const auto draw = [&] {
    for (int i = 0; i < 100; ++i) {
      const auto use = i % 3 == 0 ? RandomState::Use::op : RandomState::Use::initialiser;
      places.insert(state.next_place(use));
      ++draws;
    }
    state.set_place(0);  // the same counts, for the other purpose
    for (int i = 0; i < 100; ++i) {
      const auto use = i % 3 == 0 ? RandomState::Use::initialiser : RandomState::Use::op;
      places.insert(state.next_place(use));
      ++draws;
    }
  };
  state.set_seed(5);
  draw();
  state.begin_step(5, 0);  // the same seed and step
  draw();
  CHECK(places.size() == draws);
  for (const uint64_t place : places) CHECK(place <= 0xffffff);  // as many bits as philox() takes

  state.set_place((uint64_t{1} << 22) - 1);
  CHECK(state.next_place() == 0xffffff);
  CHECK_THROWS_WITH(state.next_place(), Contains("begin_step"));
}

TEST_CASE("a bound step is read in place of the state's own number", "[random]") {
  RandomState state;
  const Array step = Array::full({}, 41, DType::i64);
  state.bind_step(step);
  state.begin_step(7, 3);
  CHECK(state.step_on(Device::cpu()).shares_storage(step));
  CHECK_THROWS_WITH(state.step_on(Device::cuda()), Contains("another device"));
  state.bind_step({});
  state.begin_step(7, 5);
  CHECK(state.step_on(Device::cpu()).item() == 5);
}

TEST_CASE("each thread has a random state of its own", "[random]") {
  RandomState& mine = RandomState::current();
  const RandomState* other = nullptr;
  std::thread([&] { other = &RandomState::current(); }).join();
  CHECK(other != &mine);
  CHECK(&RandomState::current() == &mine);
}
