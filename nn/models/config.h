// CausalLmConfig: what config.json says of a decoder-only transformer.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <binade/nn/attention.h>
#include <binade/nn/mlp.h>
#include <binade/nn/models/generation_config.h>
#include <binade/nn/rope_frequencies.h>

namespace binade::nn {

// model_type of config.json. SmolLM2's is llama.
enum class Family : uint8_t {
  gpt2,
  llama,
  qwen2,
  qwen3,
  mistral,
  olmo2,
  phi3,
  smollm3,
  gemma3_text
};
std::string_view name_of(Family family);

// Where a layer has norms: in front of attention and of the MLP, behind them (before what they give
// is added to the residual stream), or both.
enum class NormPlacement : uint8_t { before, behind, around };

struct CausalLmConfig {
  Family family = Family::llama;
  // Sizes; no defaults.
  int64_t vocab_size = 0;
  int64_t dim = 0;       // hidden_size, n_embd
  int64_t layers = 0;    // num_hidden_layers, n_layer
  int64_t heads = 0;     // num_attention_heads, n_head
  int64_t kv_heads = 0;  // num_key_value_heads; 0: as heads
  int64_t head_dim = 0;  // 0: dim / heads
  int64_t hidden = 0;    // intermediate_size, n_inner; GPT-2's default 0 is 4·dim
  int64_t max_positions = 0;

  double norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_embeddings = false;
  double attention_dropout = 0;  // attention_dropout, attn_pdrop

  Activation activation = Activation::silu;  // of the MLP, or of its gate

  // All but GPT-2
  RopeConfig rope;
  std::optional<RopeConfig> window_rope;  // of windowed layers, where it is another
  std::vector<bool> unrotated;            // by layer: without rotary positions; empty: none
  int64_t window = 0;                     // positions that windowed layers see; 0: all
  std::vector<bool> windowed;             // by layer; empty: every layer
  bool attention_bias = false;            // of the query, key and value projections
  bool attention_output_bias = false;     // of o_proj
  bool mlp_bias = false;
  bool fused_projections = false;  // qkv_proj and gate_up_proj
  QkNorm qk_norm = QkNorm::none;
  NormPlacement norms = NormPlacement::before;
  bool norm_from_one = false;         // files hold the norms' weights minus 1
  int64_t query_pre_attn_scalar = 0;  // scores are scaled by 1/√it; 0: by 1/√head size
  bool scale_embedding = false;       // by √dim

  // GPT-2
  double embedding_dropout = 0;                   // embd_pdrop
  double residual_dropout = 0;                    // resid_pdrop
  bool scale_attention = true;                    // scale_attn_weights
  bool scale_attention_by_inverse_layer = false;  // scale_attn_by_inverse_layer_idx

  std::vector<int64_t> bos_ids, eos_ids, pad_ids;  // eos may be several, the others one or none
  GenerationConfig generation;                     // of the file beside config.json

  // The defaults of a family (biases, tied head, norms, activation, theta, …).
  static CausalLmConfig of(Family family);
  // `text` is config.json; `source` names it in errors. Throws Error for JSON errors (with their
  // position), missing or impossible sizes, and for every value that Binade does not support: an
  // unknown model_type, activation, rope_type or layer type, capped logits, quantised weights, …
  static CausalLmConfig parse(std::string_view text, const std::string& source);
  // Special token ids beyond the vocabulary are warned about and left out.
  // read() takes in the generation_config.json in the same folder, if there is one.
  static CausalLmConfig read(const std::filesystem::path& path);
  // config.json and generation_config.json, as transformers reads them. `dtype` is that of the
  // saved weights. A generation_config.json that was read is written as it was.
  std::string to_json(DType dtype) const;
  std::string generation_json() const;

  // The tokens that end a text: generation_config.json's, or else config.json's.
  const std::vector<int64_t>& stop_ids() const {
    return generation.eos_ids.empty() ? eos_ids : generation.eos_ids;
  }

  // Throws Error for sizes that do not fit together, and by name for what config.json cannot say.
  void validate() const;
  int64_t key_heads() const { return kv_heads ? kv_heads : heads; }
  int64_t head_size() const { return head_dim ? head_dim : dim / heads; }
  int64_t hidden_size() const { return hidden ? hidden : 4 * dim; }

  // Of layer 0 … layers − 1.
  int64_t window_of(int64_t layer) const {
    return windowed.empty() || windowed[static_cast<size_t>(layer)] ? window : 0;
  }
  bool rotates(int64_t layer) const {
    return unrotated.empty() || !unrotated[static_cast<size_t>(layer)];
  }
  const RopeConfig& rope_of(int64_t layer) const {
    return window_rope && window_of(layer) > 0 ? *window_rope : rope;
  }
  // A model of one layer, which is that one.
  CausalLmConfig of_layer(int64_t layer) const;
  // Tokens that a text may have that begins with a prompt of so many and is then read token by
  // token: max_positions, but with longrope texts do not cross the original positions, behind which
  // the cached keys would have to be rotated anew.
  int64_t longest_text(int64_t prompt) const;
};

}  // namespace binade::nn
