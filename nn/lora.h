// LoRA (Hu et al. 2021): beside a frozen linear layer W a product of two thin ones is trained,
// y = x·Wᵀ + b + (alpha / rank) · dropout(x)·Aᵀ·Bᵀ. Files are those of the PEFT library.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <binade/nn/linear.h>

namespace binade::nn {

// PEFT's names stand in quotes where they differ. Patterns are regular expressions of Python.
struct LoraOptions {
  int64_t rank = 8;   // "r"
  double alpha = 16;  // "lora_alpha"
  double dropout = 0;
  bool rank_stabilised = false;  // alpha / √rank (Kalajdzievski 2023, "use_rslora")
  // Linear layers whose name is one of these or ends in "." and one of these. None: PEFT's choice,
  // q_proj and v_proj for the Llama family, qkv_proj for Phi-3, c_attn for GPT-2.
  std::vector<std::string> target_modules;
  // In place of the list: a pattern of whole names, or "all-linear", every linear layer but the
  // head.
  std::string target_pattern;
  // Layers that get no adapter in any case, as names or as a pattern of whole names.
  std::vector<std::string> exclude_modules;
  std::string exclude_pattern;
  // Only in blocks of these indices; none: in all. The index is the number behind the first name
  // that one of layers_pattern matches, without patterns the first number of the name. A target
  // that is a whole name is wanted in any block.
  std::vector<int64_t> layers_to_transform;
  std::vector<std::string> layers_pattern;
  // The first pattern that matches the end of a layer's name, at a dot, gives its rank or alpha.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;

  double scale() const;
};

class LoraAdapter : public LinearAdapter {
 public:
  // A (rank, in) is drawn as PEFT does (Kaiming uniform with a = √5), B (out, rank) is zero.
  LoraAdapter(int64_t in_features, int64_t out_features, const LoraOptions& options);
  Tensor forward(const Tensor& x, const Tensor& y) const override;
  // scale · B·A (out, in), f32.
  Array delta() const;
  // Off: the layer computes as if it had no adapter.
  void set_enabled(bool enabled) { enabled_ = enabled; }

  const ParameterPtr& a() const { return a_; }
  const ParameterPtr& b() const { return b_; }
  double scale() const { return scale_; }

 private:
  double scale_, dropout_;
  bool enabled_ = true;
  ParameterPtr a_, b_;
};

// The adapters of a model. The model must outlive them.
class Lora {
 public:
  // Freezes every parameter of the model and adds adapters, on the model's device. Throws Error
  // when one of target_modules matches no linear layer, when nothing is matched, and when a module
  // is matched that is no linear layer or the head. Where it throws, here as in load(), the model
  // is as it was: without adapters and with the same parameters to train.
  Lora(Module& model, const LoraOptions& options);
  // The same with the options and values of a PEFT folder (adapter_config.json,
  // adapter_model.safetensors). As in PEFT, some of the file's target_modules may match nothing.
  // Throws Error for whatever Binade's LoRA is not (see read_lora_config), for tensors that are
  // missing, unexpected or of another shape, and for values that are NaN or infinite.
  static Lora load(Module& model, const std::filesystem::path& folder);

  // Writes a PEFT folder. `base_model` is the name or path noted as the model it belongs to.
  void save(const std::filesystem::path& folder, const std::string& base_model = "") const;
  // Adds every product to its layer's weight and takes the adapters away. The sum is made in f32;
  // a half weight, which has no master where it is frozen, takes it rounded once.
  void merge();

  // While it lives the model computes as it did before it had adapters.
  class Off {
   public:
    explicit Off(const Lora& lora) : lora_(lora) { lora_.set_enabled(false); }
    ~Off() { lora_.set_enabled(true); }
    Off(const Off&) = delete;
    Off& operator=(const Off&) = delete;

   private:
    const Lora& lora_;
  };

  const LoraOptions& options() const { return options_; }
  // Linear layers with an adapter, in module order.
  std::vector<std::string> names() const;

 private:
  Lora() = default;
  void set_enabled(bool enabled) const;
  // Makes the adapters that the options mean; leaves the model as it is.
  void make_adapters(const Module& model);
  // Freezes the model and gives its layers the adapters.
  void attach(Module& model);
  struct Target {
    std::string name;  // of the linear layer
    Linear* layer;
    std::shared_ptr<LoraAdapter> adapter;
  };
  std::vector<std::pair<std::string, ParameterPtr>> file_parameters() const;  // by PEFT's names

  LoraOptions options_;
  std::vector<Target> targets_;
};

}  // namespace binade::nn
