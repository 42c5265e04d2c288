#include <binade/heads/decoding/base_weights.h>

#include <binade/core/file.h>
#include <binade/train/checkpoint.h>

namespace binade::heads::decoding {

namespace {

// As files hold it; undefined where the model has no parameter of this name.
Array weight_of(const nn::CausalLm& model, const std::string& name) {
  for (const nn::NamedParameter& named : model.named_parameters())
    if (named.name == name) return model.file_view(name, named.parameter->master());
  return {};
}

}  // namespace

Array embedding_of(const nn::CausalLm& model) {
  return weight_of(model, model.embedding_name());
}

Array output_of(const nn::CausalLm& model) {
  const Array own = weight_of(model, "lm_head.weight");
  return own.defined() ? own : embedding_of(model);
}

uint32_t weights_fingerprint(const nn::CausalLm& model) {
  uint32_t checksum = 0;
  for (const nn::NamedParameter& named : model.named_parameters()) {
    const Array values = model.file_view(named.name, named.parameter->peek())
                             .to(Device::cpu())
                             .to(DType::f32)
                             .contiguous();
    const uint32_t of_values = train::checksum_of(values);
    checksum = crc32c(named.name.data(), named.name.size(), checksum);
    checksum = crc32c(&of_values, sizeof(of_values), checksum);
  }
  return checksum;
}

}  // namespace binade::heads::decoding
