// Any text taken for a config.json: an Error, or a configuration that survives being written.
#include <binade/core/error.h>
#include <binade/nn/models/config.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade;
  nn::CausalLmConfig config;
  try {
    config = nn::CausalLmConfig::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const Error&) {
    return 0;
  }
  config.generation_json();
  nn::CausalLmConfig::parse(config.to_json(DType::f32), "written");
  return 0;
}
