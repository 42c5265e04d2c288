#include <binade/heads/mtp/names.h>

#include <array>
#include <optional>

#include <binade/core/text.h>

namespace binade::heads::mtp {

namespace {

constexpr std::array kFormats = {Format::plain, Format::deepseek, Format::qwen3_next, Format::mimo};

// Of the parts beside the layer.
struct PartNames {
  const char *embedding_norm, *hidden_norm, *projection, *norm;
};
PartNames part_names(Format format) {
  switch (format) {
    case Format::deepseek:
      return {"enorm", "hnorm", "eh_proj", "shared_head.norm"};
    case Format::qwen3_next:
      return {"pre_fc_norm_embedding", "pre_fc_norm_hidden", "fc", "norm"};
    case Format::mimo:
      return {"token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm"};
    default:
      return {"embedding_norm", "hidden_norm", "projection", "norm"};
  }
}

// In front of the names of module k's parts, and of its layer's.
struct Prefixes {
  std::string parts, layer;
};
Prefixes prefixes(Format format, int64_t k, int64_t base_layers) {
  switch (format) {
    case Format::deepseek: {
      const std::string prefix = concat("model.layers.", base_layers + k, '.');
      return {prefix, prefix};
    }
    case Format::qwen3_next:
      return {"mtp.", concat("mtp.layers.", k, '.')};
    case Format::mimo: {
      const std::string prefix = concat("model.mtp_layers.", k, '.');
      return {prefix, prefix};
    }
    default:
      return {concat(k, '.'), concat(k, ".layer.")};
  }
}

int64_t module_count(const MtpHeads& heads) {
  return heads.config().kind == Kind::recursive ? 1 : heads.config().depth;
}

// Whether the layers are those that the formats have names for, and that engines build.
bool has_usual_layers(const nn::CausalLmConfig& base) {
  const int64_t last = base.layers - 1;
  return base.family != nn::Family::gpt2 && base.norms == nn::NormPlacement::before &&
         base.qk_norm != nn::QkNorm::width && !base.norm_from_one && !base.fused_projections &&
         base.activation == nn::Activation::silu && !base.scale_embedding && base.rotates(last) &&
         base.window_of(last) == 0;
}

}  // namespace

std::string_view name_of(Format format) {
  constexpr std::array<std::string_view, kFormats.size()> kNames = {"plain", "deepseek",
                                                                    "qwen3-next", "mimo"};
  return kNames[static_cast<size_t>(format)];
}

Format parse_format(std::string_view name) {
  for (const Format format : kFormats)
    if (name == name_of(format)) return format;
  fail("there is no format '", name,
       "' of multi-token prediction; there are plain, deepseek, qwen3-next and mimo");
}

Format default_format(Kind kind, const nn::CausalLmConfig& base) {
  const bool plain = kind == Kind::parallel || !has_usual_layers(base);
  return plain ? Format::plain : Format::deepseek;
}

Conventions conventions_of(Format format) {
  switch (format) {
    case Format::deepseek:
      return {.recurs_behind_norm = false, .zero_first_embedding = true};
    case Format::mimo:
      return {.embedding_first = false, .zero_first_embedding = true};
    default:
      return {};
  }
}

void check_fits(Format format, const MtpConfig& config, const nn::CausalLmConfig& base) {
  if (format == Format::plain) return;
  const auto refuse = [&](const auto&... reasons) {
    fail("the format ", name_of(format), " cannot hold these heads: ", reasons..., "; use plain");
  };
  if (config.kind == Kind::parallel) refuse("it has no names for parallel heads");
  if (!has_usual_layers(base))
    refuse("it has no names for layers such as the last of this '", nn::name_of(base.family),
           "' model");
  if (!(config.conventions == conventions_of(format)))
    refuse("they were trained by other conventions (embedding_first, recurs_behind_norm, ",
           "zero_first_embedding) than it has");
  if (format == Format::qwen3_next && config.kind == Kind::sequential && config.depth > 1)
    refuse("it has one projection for all depths, not ", config.depth);
  if (format != Format::mimo) return;
  // Its layer is Qwen2's.
  if (base.qk_norm != nn::QkNorm::none)
    refuse("its layer has no norm of queries and keys ('qk_norm'), as qwen3 has");
  if (base.attention_output_bias) refuse("its layer has no bias of o_proj ('attention_bias')");
  if (base.mlp_bias) refuse("its layer has no biases of the MLP ('mlp_bias')");
}

FileNames file_names(Format format, const MtpHeads& heads) {
  const PartNames parts = part_names(format);
  const std::array<std::pair<std::string, const char*>, 4> known = {
      {{"embedding_norm.", parts.embedding_norm},
       {"hidden_norm.", parts.hidden_norm},
       {"projection.", parts.projection},
       {"norm.", parts.norm}}};
  FileNames names;
  for (const nn::NamedParameter& named : heads.named_parameters()) {
    const size_t dot = named.name.find('.');
    const std::optional<double> number = parse_number(named.name.substr(0, dot));
    check(number.has_value(), "a parameter of multi-token prediction is named ", named.name);
    const Prefixes prefix =
        prefixes(format, static_cast<int64_t>(*number), heads.base().config().layers);
    const std::string rest = named.name.substr(dot + 1);
    std::string& name = names[named.name];
    if (rest.starts_with("layer.")) name = prefix.layer + rest.substr(rest.find('.') + 1);
    for (const auto& [own, in_file] : known)
      if (rest.starts_with(own)) name = concat(prefix.parts, in_file, '.', rest.substr(own.size()));
  }
  return names;
}

ExtraNames extra_names(Format format, const MtpHeads& heads) {
  ExtraNames names;
  const nn::CausalLmConfig& base = heads.base().config();
  if (format == Format::qwen3_next || format == Format::mimo) {
    names.embeddings = {"model.embed_tokens.weight"};
    names.outputs = {"lm_head.weight"};
  }
  for (int64_t k = 0; k < module_count(heads); ++k) {
    const Prefixes prefix = prefixes(format, k, base.layers);
    if (format == Format::deepseek) {
      names.embeddings.push_back(prefix.parts + "embed_tokens.weight");
      names.outputs.push_back(prefix.parts + "shared_head.head.weight");
    }
    if (format == Format::mimo && !base.attention_bias)
      for (const char* projection : {"q", "k", "v"})
        names.zero_biases[concat(prefix.layer, "self_attn.", projection, "_proj.bias")] =
            base.head_size() * (*projection == 'q' ? base.heads : base.key_heads());
  }
  return names;
}

bool is_stored_from_one(Format format, const std::string& own_name) {
  return format == Format::qwen3_next && own_name.ends_with("norm.weight");
}

}  // namespace binade::heads::mtp
