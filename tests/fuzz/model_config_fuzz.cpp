// Any text taken for a config.json: an Error, or a configuration that survives being written. The
// same text is taken for a generation_config.json.
#include <binade/core/error.h>
#include <binade/core/log.h>
#include <binade/nn/models/config.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade;
  set_log_sink([](LogLevel, std::string_view) {});
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    nn::GenerationConfig::parse(text, "fuzz", 61);
  } catch (const Error&) {
  }
  nn::CausalLmConfig config;
  try {
    config = nn::CausalLmConfig::parse(text, "fuzz");
  } catch (const Error&) {
    return 0;
  }
  config.generation_json();
  nn::CausalLmConfig::parse(config.to_json(DType::f32), "written");
  return 0;
}
