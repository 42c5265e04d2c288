// Files of EAGLE heads, as serving engines read them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <binade/heads/eagle/eagle.h>

namespace binade::heads::eagle {

// All are model.safetensors with EagleHead's names, beside a config.json of a Llama of one layer.
// EAGLE-1 adds the model's embedding, "embed_tokens.weight"; EAGLE-3 over part of the tokens "d2t"
// (N) i64, token − place of each row of lm_head, and "t2d" (V) bool, whether a token is among them.
// (vLLM refuses d2t where all tokens are drafted.) SGLang skips names that it does not know, and
// leaves what it does not find as it was drawn, in silence.
enum class Layout : uint8_t {
  // EAGLE-1: architectures ["LlamaForCausalLM"], which vLLM and SafeAILab's own program take for
  // the model's name; EAGLE-3: ["LlamaForCausalLMEagle3"]. Layers other than {2, N/2, N − 3} stand
  // in eagle_config's eagle_aux_hidden_state_layer_ids, those that streams enter.
  vllm,
  // EAGLE-1: ["LlamaForCausalLMEagle"], whose fc has a bias: "fc.bias", of zeros. EAGLE-3: the ids
  // of layers are those that streams leave, one less.
  sglang,
};
std::string_view name_of(Layout layout);
Layout parse_layout(std::string_view name);  // Error for another name

struct SaveEagleOptions {
  Layout layout = Layout::vllm;
  std::string base_name;  // base_model_name_or_path
  DType dtype = DType::f16;
  // Of the language model's weights as its own files have them; 0: as the model has them now, which
  // in half precision may be rounded.
  uint32_t base_fingerprint = 0;
};

// Creates the folder if need be; each file is written beside its place and renamed. config.json
// also holds "binade_eagle" (version, layout, layers) and the fingerprint of the language model's
// weights. Throws Error for a head that the layout cannot hold.
void save_eagle(const EagleHead& head, const std::filesystem::path& folder,
                const SaveEagleOptions& options = {});

// The layout of a folder's head; none if its config.json, if any, speaks of something else. Throws
// Error for a config.json that is no JSON object.
std::optional<Layout> layout_of(const std::filesystem::path& folder);

// A head of any layout, for this language model. Throws Error for files that are missing or
// damaged, tensors that are missing, unexpected, of the wrong shape or not finite (all named), a
// d2t that is no draft vocabulary of the model or is not what t2d says, an embedding or sizes that
// are not the model's, and heads that were trained for other weights (check_base false: without
// weights and embedding, for a model that is rounded by now).
std::shared_ptr<EagleHead> load_eagle(const std::filesystem::path& folder,
                                      std::shared_ptr<const nn::CausalLm> base,
                                      bool check_base = true);

}  // namespace binade::heads::eagle
