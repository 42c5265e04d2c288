// The kinds of decoding heads that export_heads knows: a row of kKinds each.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <binade/nn/models/causal_lm.h>

namespace binade::examples {

struct WriteHeadsOptions {
  std::string layout, base_name;
  DType dtype = DType::f16;
};

// Heads beside their language model.
class DecodingHeads {
 public:
  virtual ~DecodingHeads() = default;
  virtual const nn::Module& module() const = 0;
  // ids (1, T) of a text → the logits (T, V) of each head or depth, where it has some.
  virtual std::vector<Tensor> logits(const Tensor& ids) const = 0;
  virtual void write(const std::filesystem::path& folder,
                     const WriteHeadsOptions& options) const = 0;
};

struct HeadLayout {
  std::string name;
  std::string read_by;  // which engines
};

struct HeadKind {
  std::string name;
  std::vector<HeadLayout> layouts;
  // The layout of a folder that holds heads of this kind; otherwise empty.
  std::string (*layout_of)(const std::filesystem::path& folder);
  // Throws Error for files that are damaged, or do not fit the model.
  std::unique_ptr<DecodingHeads> (*read)(const std::filesystem::path& folder,
                                         std::shared_ptr<const nn::CausalLm> base);
};

const std::vector<HeadKind>& head_kinds();

}  // namespace binade::examples
