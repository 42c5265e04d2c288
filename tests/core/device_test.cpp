#include <binade/core/device.h>

#include <algorithm>
#include <string>

#include <catch2/catch.hpp>

#include <binade/core/array.h>
#include <binade/core/device_errors.h>
#include <binade/core/version.h>

using namespace binade;
using Catch::Contains;

TEST_CASE("devices are read and written by name", "[device]") {
  CHECK(Device::parse("cpu") == Device::cpu());
  CHECK(Device::parse("cuda") == Device::cuda(0));
  CHECK(Device::parse("cuda:3") == Device::cuda(3));
  CHECK(concat(Device::cpu(), ' ', Device::cuda(2)) == "cpu cuda:2");
  CHECK(Device() == Device::cpu());
  CHECK_FALSE(Device::cuda(0) == Device::cuda(1));
}

TEST_CASE("an unknown device is refused with the names there are", "[device][bad-input]") {
  for (const char* name :
       {"", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:1x", "cuda: 1", "cuda:+1", "cuda:99999999999"})
    CHECK_THROWS_WITH(Device::parse(name),
                      Contains(std::string("\"") + name + "\"") && Contains("cuda:N"));
}

TEST_CASE("either there is a GPU or a reason why there is none", "[device]") {
  CHECK((cuda_device_count() > 0) == cuda_unavailable_reason().empty());
}

TEST_CASE("an array on a GPU that is not there is refused with the reason", "[device][bad-input]") {
  const Device missing = Device::cuda(cuda_device_count());
  CHECK_THROWS_AS(Array::zeros({2}, DType::f32, missing), Error);
  CHECK_THROWS_AS(Array::zeros({2}, DType::f32).to(missing), Error);
  const std::string reason =
      cuda_device_count() == 0 ? cuda_unavailable_reason() : concat("there is no device ", missing);
  CHECK_THROWS_WITH(Array::zeros({2}, DType::f32, missing), Contains(reason));
}

TEST_CASE("the CPU needs no waiting and notes no faults", "[device]") {
  CHECK_NOTHROW(synchronize(Device::cpu()));
  CHECK_NOTHROW(check_device_faults(Device::cpu()));
}

TEST_CASE("a build says what it is made of", "[version]") {
  const auto facts = version_facts();
  for (const char* name : {"binade", "commit", "compiler", "eigen", "cpu_products"}) {
    const auto fact = std::find_if(facts.begin(), facts.end(),
                                   [&](const auto& pair) { return pair.first == name; });
    REQUIRE(fact != facts.end());
    CHECK_FALSE(fact->second.empty());
  }
}
