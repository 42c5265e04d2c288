"""Files of EAGLE heads against the classes of serving engines, whose sources are given:

  eagle_engines.py compare FOLDER vllm=SOURCE sglang=SOURCE
  eagle_engines.py names FOLDER vllm=SOURCE,VERSION …     prints tests/heads/eagle/engine_names.json

FOLDER is what the test [.eagle-engines-write] wrote. The engines' own classes read the language model
and the head with their own loaders, choose the layers that config.json says, and compute features and
logits. What they import beside PyTorch and transformers (parallel layers, attention against a paged
cache, quantization) is replaced by the least that they need.
"""
import json
import pathlib
import re
import sys
import types

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig

import engines as shared
from engines import (TOLERANCE, ParallelLMHead, Placeholders, default_weight_loader, difference,
                     randomise, report, shapes)


# ---- what stands in for the engines' layers -----------------------------------------------------
class Linear(nn.Module):
    """Several layers of one input in one weight; `parts` has the rows of each by its shard id."""

    def __init__(self, inputs, parts, bias=False, return_bias=True):
        super().__init__()
        self.parts, self.return_bias = parts, return_bias
        self.weight = nn.Parameter(torch.zeros(sum(parts.values()), inputs))
        self.weight.weight_loader = self.load
        assert not bias, "a Llama layer has no biases"

    def load(self, parameter, values, shard_id=None):
        shard_id = getattr(values, "shard_id", shard_id)
        first = 0
        for part, rows in self.parts.items():
            if part == shard_id:
                return default_weight_loader(parameter[first:first + rows], values)
            first += rows
        raise ValueError(f"no shard {shard_id}")

    def forward(self, x, **_):
        y = x @ self.weight.T
        return (y, None) if self.return_bias else y


def one_linear(input_size, output_size, bias=True, return_bias=True, **_):
    return Linear(input_size, {None: output_size}, bias, return_bias)


def merged_linear(input_size, output_sizes, bias=True, **_):
    return Linear(input_size, dict(enumerate(output_sizes)), bias)


def qkv_linear(hidden_size, head_size, total_num_heads, total_num_kv_heads, bias=True, **_):
    rows = total_num_kv_heads * head_size
    return Linear(hidden_size, {"q": total_num_heads * head_size, "k": rows, "v": rows}, bias)


class RmsNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x, residual=None):
        stream = x if residual is None else x + residual
        normed = self.weight * stream * (stream.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt()
        return normed if residual is None else (normed, stream)


class Rope(nn.Module):
    def __init__(self, dim, base):
        super().__init__()
        self.dim, self.frequencies = dim, base ** -(torch.arange(0, dim, 2).double() / dim)

    def turn(self, positions, x):
        angles = positions[:, None, None].double() * self.frequencies
        cos, sin = angles.cos().float(), angles.sin().float()
        a, b = x.view(len(x), -1, self.dim).chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).view_as(x)

    def forward(self, positions, q, k):
        return self.turn(positions, q), self.turn(positions, k)


class Attention(nn.Module):
    """Of one text, causal."""

    def __init__(self, heads, head_dim, scale, num_kv_heads, **_):
        super().__init__()
        self.heads, self.head_dim, self.scale, self.key_heads = heads, head_dim, scale, num_kv_heads

    def forward(self, q, k, v, *_):
        q, k, v = (x.view(len(x), -1, self.head_dim).transpose(0, 1) for x in (q, k, v))
        k, v = (x.repeat_interleave(self.heads // self.key_heads, 0) for x in (k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        return y.transpose(0, 1).reshape(y.shape[1], -1)


class Embedding(ParallelLMHead):
    def forward(self, ids):
        return self.weight[ids]


class SiluAndMul(nn.Module):
    def forward(self, x):
        gate, up = x.chunk(2, -1)
        return nn.functional.silu(gate) * up


class LogitsProcessor(nn.Module):
    def __init__(self, *_, **__):
        super().__init__()

    def forward(self, head, hidden):
        return hidden @ head.weight.T


LAYERS = {"QKVParallelLinear": qkv_linear, "MergedColumnParallelLinear": merged_linear,
          "RowParallelLinear": one_linear, "ReplicatedLinear": one_linear, "RMSNorm": RmsNorm,
          "SiluAndMul": SiluAndMul, "LogitsProcessor": LogitsProcessor, "ParallelLMHead": ParallelLMHead,
          "VocabParallelEmbedding": Embedding, "default_weight_loader": default_weight_loader}


def make_layers(count, make, prefix="", **_):
    return 0, count, nn.ModuleList(make(prefix=f"{prefix}.{i}") for i in range(count))


def put(module, **members):
    for name, value in members.items():
        setattr(sys.modules.get(module) or __import__(module, fromlist=["_"]), name, value)


def put_layers(package):
    """The stand-ins, in whichever of the engine's modules their names are."""
    for module, names in {"activation": ["SiluAndMul"], "layernorm": ["RMSNorm"],
                          "linear": ["QKVParallelLinear", "MergedColumnParallelLinear",
                                     "RowParallelLinear", "ReplicatedLinear"],
                          "logits_processor": ["LogitsProcessor"],
                          "vocab_parallel_embedding": ["ParallelLMHead", "VocabParallelEmbedding"]}.items():
        put(f"{package}.layers.{module}", **{name: LAYERS[name] for name in names})


# ---- the engines --------------------------------------------------------------------------------
# Each: trunk(FOLDER) and head(FOLDER, TRUNK) make its classes and fill them with its loaders;
# features(TRUNK, HEAD, IDS) are what the trunk hands over; run(HEAD, TRUNK, IDS, FEATURES) gives
# logits and what recurs. `fresh` makes a head without weights.
class Engine:
    def read_config(self, folder):
        return LlamaConfig.from_pretrained(folder)

    def fill(self, model, folder):
        """With numbers first that a loader must replace. Those that it did not are left out of the
        answer."""
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.full_like(parameter, 1234))
        model.load_weights(iter(load_file(folder / "model.safetensors").items()))
        return {name for name, values in model.named_parameters() if not (values == 1234).any()}

    def read(self, folder, base, expected, version):
        trunk = self.trunk(base)
        self.fill(trunk, base)
        head, config = self.fresh(folder, trunk)
        filled = self.fill(head, folder)
        wanted = {name for name, _ in head.named_parameters()} - self.from_trunk(version)
        if filled - self.from_trunk(version) != wanted:
            return f"not filled: {sorted(wanted - filled)}"
        self.adopt(head, trunk, version)
        ids, features = expected["ids"], self.features(trunk, config, expected["ids"], version)
        found = difference(features, expected["features"])
        if found > TOLERANCE:
            return f"features differ by {found}: other layers, or counted otherwise"
        # The head reads a feature beside the token behind it.
        logits, recurring = self.run(head, ids[1:], features[:-1], version)
        tokens = self.tokens(head)
        if tokens is not None and tokens.tolist() != expected["tokens"].tolist():
            return "its draft tokens are others"
        if tokens is None and len(expected["tokens"]) != logits.shape[-1]:
            return "it took the draft vocabulary for the whole one"
        if logits.shape[-1] != expected["logits"].shape[-1]:
            logits = logits[:, expected["tokens"]]
        for what, values in {"logits": logits, "recurring": recurring}.items():
            found = difference(values, expected[what])
            if found > TOLERANCE:
                return f"{what} differ by {found}"
        return ""

    def names(self, folder, base, version):
        """The tensors that its loader takes for each of its parameters."""
        trunk = self.trunk(base)
        head, _ = self.fresh(folder, trunk)
        result = {}
        for name, parameter in head.named_parameters():
            if name in self.from_trunk(version):
                continue
            own = name.removeprefix("model.").replace("draft_id_to_target_id", "d2t")
            if version == "eagle3":
                own = own.replace("layers.0.", "midlayer.")
            module = head.get_submodule(name.rpartition(".")[0])
            for part, rows in getattr(module, "parts", {None: len(parameter)}).items():
                part_name = {"q": "q_proj", "k": "k_proj", "v": "v_proj", 0: "gate_proj",
                             1: "up_proj"}.get(part)
                piece = own if part_name is None else own.replace("qkv_proj", part_name).replace(
                    "gate_up_proj", part_name)
                result[piece] = [rows, *parameter.shape[1:]]
        given = {name: torch.full(shape, 1.0 if name != "d2t" else 1).to(
            torch.int64 if name == "d2t" else torch.float32) for name, shape in result.items()}
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.full_like(parameter, 1234))
        head.load_weights(iter(given.items()))
        for name, values in head.named_parameters():
            assert name in self.from_trunk(version) or (values == 1).all(), f"{name} is not read so"
        return result


class Vllm(Engine):
    layout = "vllm"

    def __init__(self, source):
        models = "vllm.model_executor.models."
        Placeholders("vllm", source, {models + name for name in (
            "llama", "llama_eagle", "llama_eagle3", "utils", "interfaces")})
        same = lambda *given, **_: given[0] if given and isinstance(given[0], type) else (lambda x: x)
        put_layers("vllm.model_executor")
        put("vllm.model_executor.layers.attention", Attention=Attention, EncoderOnlyAttention=Attention)
        put("vllm.model_executor.layers.fusion.fused_act_quant",
            maybe_fused_act_quant=lambda act, x, _: act(x))
        put("vllm.model_executor.layers.rotary_embedding",
            get_rope=lambda dim, rope_parameters, **_: Rope(dim, rope_parameters["rope_theta"]))
        put("vllm.model_executor.model_loader.weight_utils", default_weight_loader=default_weight_loader)
        put("vllm.model_executor.model_loader.reload",
            support_quantized_model_reload_from_hp_weights=lambda f: f)
        put("vllm.compilation.decorators", support_torch_compile=same)
        put("vllm.model_executor.models.adapters", as_embedding_model=lambda c: c, as_seq_cls_model=lambda c: c)
        put("vllm.config", get_current_vllm_config=lambda: self.vllm_config)
        group = types.SimpleNamespace(is_first_rank=True, is_last_rank=True, world_size=1, rank_in_group=0)
        put("vllm.distributed", get_pp_group=lambda: group, get_tensor_model_parallel_world_size=lambda: 1,
            get_tensor_model_parallel_rank=lambda: 0)
        put("vllm.distributed.parallel_state", model_parallel_is_initialized=lambda: False)
        put("vllm.v1.attention.backend", AttentionType=types.SimpleNamespace(DECODER=1, ENCODER_ONLY=2))
        log = types.SimpleNamespace(**{name: print if name == "warning" else (lambda *_: None)
                                       for name in ("debug", "info", "warning", "info_once",
                                                    "warning_once")})
        put("vllm.logger", init_logger=lambda name: log)
        put("vllm.utils.torch_utils", direct_register_custom_op=lambda **_: None)
        import vllm.model_executor.models.llama as llama
        import vllm.model_executor.models.llama_eagle as eagle
        import vllm.model_executor.models.llama_eagle3 as eagle3
        llama.make_layers = lambda count, make, prefix: make_layers(count, make, prefix)
        self.llama = llama.LlamaForCausalLM
        self.heads = {"LlamaForCausalLM": eagle.EagleLlamaForCausalLM,
                      "LlamaForCausalLMEagle3": eagle3.Eagle3LlamaForCausalLM}

    def options(self, config, draft):
        model = types.SimpleNamespace(
            hf_config=config, dtype=torch.float32, get_vocab_size=lambda: config.vocab_size,
            get_num_layers=lambda _: config.num_hidden_layers,
            get_total_num_hidden_layers=lambda: config.num_hidden_layers)
        return types.SimpleNamespace(
            model_config=model, cache_config=None, quant_config=None, parallel_config=None,
            lora_config=None, speculative_config=draft and types.SimpleNamespace(
                draft_model_config=types.SimpleNamespace(hf_config=draft), parallel_drafting=False))

    def trunk(self, folder):
        config = self.read_config(folder)
        self.vllm_config = self.options(config, None)
        return self.llama(vllm_config=self.vllm_config)

    def fresh(self, folder, trunk):
        config = self.read_config(folder)
        self.vllm_config = self.options(trunk.config, config)
        import vllm.model_executor.models.utils as utils
        utils.get_draft_quant_config = lambda _: None
        for module in ("llama_eagle", "llama_eagle3"):
            sys.modules[f"vllm.model_executor.models.{module}"].get_draft_quant_config = lambda _: None
        (architecture,) = config.architectures
        return self.heads[architecture](vllm_config=self.vllm_config), config

    def from_trunk(self, version):
        return {"model.embed_tokens.weight"} if version == "eagle3" else set()

    def adopt(self, head, trunk, version):
        if version == "eagle3":
            assert not head.has_own_embed_tokens and head.has_own_lm_head
            head.model.embed_tokens = trunk.model.embed_tokens
        else:
            assert head.has_own_embed_tokens and not head.has_own_lm_head
            head.lm_head = trunk.lm_head

    def features(self, trunk, config, ids, version):
        if version == "eagle1":
            return trunk.model(ids, torch.arange(len(ids)), None)
        chosen = (config.eagle_config or {}) if hasattr(config, "eagle_config") else {}
        layers = chosen.get("eagle_aux_hidden_state_layer_ids")
        layers = layers or trunk.get_eagle3_default_aux_hidden_state_layers()
        trunk.set_aux_hidden_state_layers(tuple(layers))
        return torch.cat(trunk.model(ids, torch.arange(len(ids)), None)[1], -1)

    def run(self, head, ids, features, version):
        if version == "eagle3":
            features = head.combine_hidden_states(features)
        hidden, recurring = head(ids, torch.arange(len(ids)), features)
        return head.compute_logits(hidden), recurring

    def tokens(self, head):
        offsets = getattr(head, "draft_id_to_target_id", None)
        return None if offsets is None else offsets + torch.arange(len(offsets))


class Sglang(Engine):
    layout = "sglang"

    def __init__(self, source):
        Placeholders("sglang", source, {f"sglang.srt.models.{name}" for name in (
            "llama", "llama_eagle", "llama_eagle3")})
        put_layers("sglang.srt")
        put("sglang.srt.layers.radix_attention", RadixAttention=Attention)
        put("sglang.srt.layers.rotary_embedding", get_rope=lambda dim, base, **_: Rope(dim, base))
        put("sglang.srt.model_loader.weight_utils", default_weight_loader=default_weight_loader,
            maybe_remap_kv_scale_name=lambda name, _: name)
        group = types.SimpleNamespace(is_first_rank=True, is_last_rank=True, world_size=1, rank_in_group=0)
        put("sglang.srt.distributed", get_pp_group=lambda: group, get_tensor_model_parallel_rank=lambda: 0,
            get_tensor_model_parallel_world_size=lambda: 1)
        put("sglang.srt.utils", is_npu=lambda: False, add_prefix=lambda name, prefix: f"{prefix}.{name}",
            make_layers=lambda count, make, prefix, **_: (lambda first, end, layers: (layers, first, end))(
                *make_layers(count, lambda prefix: make(idx=int(prefix.split(".")[-1]), prefix=prefix),
                             prefix)))
        put("sglang.srt.layers.utils", get_layer_id=lambda name: (
            int(found[1]) if (found := re.search(r"layers\.(\d+)\.", name)) else None))
        put("sglang.srt.layers.pooler", Pooler=lambda **_: None,
            PoolingType=types.SimpleNamespace(LAST=0))
        options = types.SimpleNamespace(enable_dp_lm_head=False)
        put("sglang.srt.server_args", get_global_server_args=lambda: options)
        import sglang.srt.models.llama as llama
        import sglang.srt.models.llama_eagle as eagle
        import sglang.srt.models.llama_eagle3 as eagle3
        self.llama = llama.LlamaForCausalLM
        self.heads = {"LlamaForCausalLMEagle": eagle.LlamaForCausalLMEagle,
                      "LlamaForCausalLMEagle3": eagle3.LlamaForCausalLMEagle3}

    def read_config(self, folder):
        config = super().read_config(folder)
        # transformers 5 has it in rope_parameters.
        config.rope_theta = json.loads((folder / "config.json").read_text())["rope_theta"]
        config.rope_scaling = None
        return config

    def trunk(self, folder):
        return self.llama(self.read_config(folder))

    def fresh(self, folder, trunk):
        config = self.read_config(folder)
        (architecture,) = config.architectures
        return self.heads[architecture](config), config

    def from_trunk(self, version):
        return ({"model.embed_tokens.weight"} if version == "eagle3" else
                {"model.embed_tokens.weight", "lm_head.weight"})

    def adopt(self, head, trunk, version):
        head.model.embed_tokens = trunk.model.embed_tokens
        if version == "eagle1":
            head.lm_head = trunk.lm_head

    def features(self, trunk, config, ids, version):
        if version == "eagle1":
            return trunk.model(ids, torch.arange(len(ids)), None)
        chosen = getattr(config, "eagle_config", None) or {}
        trunk.set_eagle3_layers_to_capture(chosen.get("eagle_aux_hidden_state_layer_ids"))
        return torch.cat(trunk.model(ids, torch.arange(len(ids)), None)[1], -1)

    def run(self, head, ids, features, version):
        batch = types.SimpleNamespace(spec_info=types.SimpleNamespace(hidden_states=features))
        made = head.model(ids, torch.arange(len(ids)), batch)
        hidden, recurring = (made[0], made[1][0]) if version == "eagle3" else (made, made)
        return hidden @ head.lm_head.weight.T, recurring

    def tokens(self, head):
        return getattr(head, "hot_token_id", None)


ENGINES = {"vllm": Vllm, "sglang": Sglang}


def cases(folder):
    return sorted(path.parent for path in folder.glob("*/expected.safetensors"))


def version_of(case):
    return case.name.partition("_")[0]


def compare(folder, sources):
    for name, source in sources.items():
        engine = ENGINES[name](pathlib.Path(source))
        for case in cases(folder):
            if (case / engine.layout).exists():
                report(f"{name} reads {case.name}", engine.read(
                    case / engine.layout, folder / "base", load_file(case / "expected.safetensors"),
                    version_of(case)))


def print_names(folder, sources):
    result = {"engines": {}}
    for name, argument in sources.items():
        source, version = argument.split(",")
        engine = ENGINES[name](pathlib.Path(source))
        result["engines"][name] = {"source": version, "tensors": {
            case.name: engine.names(case / engine.layout, folder / "base", version_of(case))
            for case in cases(folder) if (case / engine.layout).exists()}}
    print(re.sub(r"\[\s+(\d+)(?:,\s+(\d+))?\s+\]",
                 lambda m: f"[{m[1]}, {m[2]}]" if m[2] else f"[{m[1]}]", json.dumps(result, indent=2)))


def main():
    sources = dict(argument.split("=", 1) for argument in sys.argv[3:])
    with torch.no_grad():
        (print_names if sys.argv[1] == "names" else compare)(pathlib.Path(sys.argv[2]), sources)
    sys.exit(shared.failures > 0)


if __name__ == "__main__":
    main()
