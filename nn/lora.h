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

struct LoraOptions {
  int64_t rank = 8;   // "r"
  double alpha = 16;  // "lora_alpha"
  double dropout = 0;
  bool rank_stabilised = false;  // alpha / √rank (Kalajdzievski 2023, "use_rslora")
  // Linear layers whose name is one of these or ends in "." and one of these. None: PEFT's choice,
  // q_proj and v_proj for the Llama family, c_attn for GPT-2.
  std::vector<std::string> target_modules;

  double scale() const;
};

class LoraAdapter : public LinearAdapter {
 public:
  // A (rank, in) is drawn as PEFT does (Kaiming uniform with a = √5), B (out, rank) is zero.
  LoraAdapter(int64_t in_features, int64_t out_features, const LoraOptions& options);
  Tensor forward(const Tensor& x, const Tensor& y) const override;
  // scale · B·A (out, in), f32.
  Array delta() const;

  const ParameterPtr& a() const { return a_; }
  const ParameterPtr& b() const { return b_; }

 private:
  double scale_, dropout_;
  ParameterPtr a_, b_;
};

// The adapters of a model. The model must outlive them.
class Lora {
 public:
  // Freezes every parameter of the model and adds adapters, on the model's device. Throws Error
  // when a target matches no linear layer.
  Lora(Module& model, const LoraOptions& options);
  // The same with the options and values of a PEFT folder (adapter_config.json,
  // adapter_model.safetensors). Throws Error for whatever Binade's LoRA is not (DoRA, trained
  // biases, …) and for tensors that are missing, unexpected or of another shape.
  static Lora load(Module& model, const std::filesystem::path& folder);

  // Writes a PEFT folder. `base_model` is the name or path noted as the model it belongs to.
  void save(const std::filesystem::path& folder, const std::string& base_model = "") const;
  // Adds every product to its layer's weight and takes the adapters away. The sum is made in f32;
  // a half weight, which has no master where it is frozen, takes it rounded once.
  void merge();

  const LoraOptions& options() const { return options_; }
  // Linear layers with an adapter, in module order.
  std::vector<std::string> names() const;

 private:
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
