// INTERNAL. The rows of the description of decoders: what the families of config.json have without
// saying so, and which keys they have. For .cpp files of this folder.
#pragma once

#include <binade/nn/json_reader.h>
#include <binade/nn/models/config.h>

namespace binade::nn {

// How a family says which layers see a window of positions only.
enum class WindowKeys : uint8_t {
  none,        // it has no windows
  every,       // "sliding_window": all layers; null: none
  switched,    // "use_sliding_window", and "layer_types" or "max_window_layers" (Qwen)
  by_rope,     // "use_sliding_window", and "layer_types" or the layers without positions (SmolLM3)
  by_pattern,  // "layer_types" or "sliding_window_pattern" (Gemma 3)
};

struct FamilyRow {
  Family family;
  const char *model_type, *architecture;
  // Where config.json says nothing.
  int64_t max_positions;
  double norm_eps;
  double theta;
  int64_t kv_heads;  // 0: as heads
  int64_t head_dim;  // 0: dim / heads
  bool tied;
  // Keys.
  bool has_attention_bias;  // "attention_bias", of all four projections
  bool has_mlp_bias;        // "mlp_bias"
  WindowKeys windows;
  int64_t window;                      // where "sliding_window" is missing
  const char* activation;              // the key of the gate's activation
  Activation gate = Activation::silu;  // the only one
  const char* gate_name = "silu";
  bool rotates_in_part = false;  // whether transformers computes "partial_rotary_factor"
};

const FamilyRow& row_of(Family family);
// Null for an unknown one.
const FamilyRow* find_family(std::string_view model_type);
std::string family_names();  // "gpt2, llama, …"

// Of all families but GPT-2.
void parse_decoder(const JsonReader& reader, CausalLmConfig& config);
nlohmann::json write_decoder(const CausalLmConfig& config);

}  // namespace binade::nn
