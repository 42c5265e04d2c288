#include "kinds.h"

#include <binade/autograd/ops.h>
#include <binade/heads/eagle/files.h>
#include <binade/heads/medusa/files.h>
#include <binade/heads/mtp/files.h>

namespace binade::examples {

namespace fs = std::filesystem;

namespace {

class Medusa : public DecodingHeads {
 public:
  explicit Medusa(std::shared_ptr<heads::medusa::MedusaHeads> heads) : heads_(std::move(heads)) {
    heads_->eval();
  }
  const nn::Module& module() const override { return *heads_; }
  std::vector<Tensor> logits(const Tensor& ids) const override {
    const Tensor hidden = heads_->base().hidden_states(ids);
    std::vector<Tensor> logits;
    for (int64_t k = 0; k < heads_->config().heads; ++k)
      logits.push_back(select(heads_->logits(k, hidden), 0, 0));
    return logits;
  }
  void write(const fs::path& folder, const WriteHeadsOptions& options) const override {
    heads::medusa::save_medusa(*heads_, folder,
                               {.layout = heads::medusa::parse_layout(options.layout),
                                .base_name = options.base_name,
                                .dtype = options.dtype});
  }

 private:
  std::shared_ptr<heads::medusa::MedusaHeads> heads_;
};

std::string medusa_layout(const fs::path& folder) {
  const auto layout = heads::medusa::layout_of(folder);
  return layout ? std::string(heads::medusa::name_of(*layout)) : std::string();
}

std::unique_ptr<DecodingHeads> read_medusa(const fs::path& folder,
                                           std::shared_ptr<const nn::CausalLm> base) {
  return std::make_unique<Medusa>(heads::medusa::load_medusa(folder, std::move(base)));
}

class Mtp : public DecodingHeads {
 public:
  explicit Mtp(std::shared_ptr<heads::mtp::MtpHeads> heads) : heads_(std::move(heads)) {
    heads_->eval();
  }
  const nn::Module& module() const override { return *heads_; }
  std::vector<Tensor> logits(const Tensor& ids) const override {
    const nn::CausalLm& base = heads_->base();
    std::vector<Tensor> logits;
    for (const Tensor& output : heads_->outputs(heads_->trunk(ids, {}), ids, {}, {}))
      logits.push_back(select(base.logits(output), 0, 0));
    return logits;
  }
  void write(const fs::path& folder, const WriteHeadsOptions& options) const override {
    heads::mtp::save_mtp(*heads_, folder,
                         {.format = heads::mtp::parse_format(options.layout),
                          .base_name = options.base_name,
                          .dtype = options.dtype});
  }

 private:
  std::shared_ptr<heads::mtp::MtpHeads> heads_;
};

std::string mtp_format(const fs::path& folder) {
  const auto format = heads::mtp::format_of(folder);
  return format ? std::string(heads::mtp::name_of(*format)) : std::string();
}

std::unique_ptr<DecodingHeads> read_mtp(const fs::path& folder,
                                        std::shared_ptr<const nn::CausalLm> base) {
  return std::make_unique<Mtp>(heads::mtp::load_mtp(folder, std::move(base)));
}

class Eagle : public DecodingHeads {
 public:
  explicit Eagle(std::shared_ptr<heads::eagle::EagleHead> head) : head_(std::move(head)) {
    head_->eval();
  }
  const nn::Module& module() const override { return *head_; }
  // Of three drafting steps.
  std::vector<Tensor> logits(const Tensor& ids) const override {
    std::vector<Tensor> logits;
    for (const Tensor& output : head_->unroll(head_->trunk(ids, {}), ids, {}, {}, 3))
      logits.push_back(select(head_->logits(output), 0, 0));
    return logits;
  }
  void write(const fs::path& folder, const WriteHeadsOptions& options) const override {
    heads::eagle::save_eagle(*head_, folder,
                             {.layout = heads::eagle::parse_layout(options.layout),
                              .base_name = options.base_name,
                              .dtype = options.dtype});
  }

 private:
  std::shared_ptr<heads::eagle::EagleHead> head_;
};

std::string eagle_layout(const fs::path& folder) {
  const auto layout = heads::eagle::layout_of(folder);
  return layout ? std::string(heads::eagle::name_of(*layout)) : std::string();
}

std::unique_ptr<DecodingHeads> read_eagle(const fs::path& folder,
                                          std::shared_ptr<const nn::CausalLm> base) {
  return std::make_unique<Eagle>(heads::eagle::load_eagle(folder, std::move(base)));
}

}  // namespace

const std::vector<HeadKind>& head_kinds() {
  static const std::vector<HeadKind> kinds = {
      {"medusa",
       {{"original", "TGI, TensorRT-LLM; FasterDecoding by way of scripts/medusa_to_pt.py"},
        {"vllm", "vLLM"}},
       medusa_layout,
       read_medusa},
      {"mtp",
       {{"deepseek", "vLLM, SGLang: names of DeepSeek-V3 and GLM"},
        {"qwen3-next", "vLLM"},
        {"mimo", "vLLM"},
        {"plain", "Binade"}},
       mtp_format,
       read_mtp},
      {"eagle",
       {{"vllm", "vLLM, SafeAILab's EAGLE"}, {"sglang", "SGLang"}},
       eagle_layout,
       read_eagle},
  };
  return kinds;
}

}  // namespace binade::examples
