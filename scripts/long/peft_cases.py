"""What PEFT does with an adapter_config.json, for tests/nn/lora_config_test.cpp.

  peft_cases.py targets FILE    which layers PEFT adapts, with which rank and scale (committed)
  peft_cases.py models FOLDER   tiny models with adapters and the logits that PEFT computes
"""

import dataclasses
import json
import pathlib
import sys

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

LAYERS = 11  # two digits, so that block 1 and block 10 can be taken for each other
LLAMA_NAMES = [
    {"target_modules": ["q_proj", "down_proj"]},
    {"target_modules": None},
    {"target_modules": ["q_proj", "query_key_value"]},
    {"target_modules": ["model.layers.1.self_attn.q_proj", "layers.10.mlp.up_proj"]},
    {"target_modules": ["proj"]},
    {"target_modules": ["mlp"]},
    {"target_modules": []},
    {"target_modules": ["1.self_attn.q_proj"]},
    {"target_modules": "all-linear"},
    {"target_modules": "All-Linear", "exclude_modules": ["o_proj", "model.layers.3.mlp.up_proj"]},
    {"target_modules": "all-linear", "exclude_modules": r".*layers\.([2-9]|10)\..*"},
    {"target_modules": ["all-linear"]},
    {"target_modules": "q_proj"},
    {"target_modules": r".*\.(q_proj|v_proj)"},
    {"target_modules": r".*layers\.[02468]\.self_attn\.q_proj"},
    {"target_modules": r".*q_pro"},
    {"target_modules": r".*\.layers\.\d\.(?P<part>mlp)\.(?:up|gate)_proj"},
    {"target_modules": r".*layers\.\d{,1}\.self_attn\.k_proj"},
    {"target_modules": r".*layers\.1{1,2}\.self_attn\.k_proj\Z"},
    {"target_modules": r".*\.[[qk]_proj"},
    {"target_modules": r"(.*)\.self_attn\.(q|k)_proj|model\.layers\.0\.mlp\.up_proj"},
    {"target_modules": r"model\.layers\.(\d)\D*\.q_proj(?<!1\.self_attn\.q_proj)"},
    {"target_modules": r".*\.q_proj$", "exclude_modules": r"model\.layers\.1\..*"},
    {"target_modules": ["q_proj"], "exclude_modules": r"layers\.1\..*"},
    {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]},
    {"target_modules": ["q_proj"], "exclude_modules": []},
    {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": 1},
    {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0, 10]},
    {"target_modules": ["q_proj"], "layers_to_transform": []},
    {"target_modules": ["q_proj"], "layers_to_transform": [99]},
    {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": "layers"},
    {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": ""},
    {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": ["h", "layers"]},
    {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": "l.*s"},
    {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": ["blocks"]},
    {"target_modules": ["q_proj"], "layers_pattern": ["layers"]},
    {"target_modules": r".*\.q_proj", "layers_to_transform": [2]},
    {"target_modules": ["model.layers.5.self_attn.q_proj", "v_proj"], "layers_to_transform": [2]},
    {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}},
    {"target_modules": ["q_proj"], "rank_pattern": {"proj": 2, "_proj": 3, "j": 4}},
    {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj|v_proj": 2}},
    {"target_modules": ["q_proj"], "rank_pattern": {"model.layers.1.self_attn.q_proj": 2}},
    {"target_modules": ["q_proj"], "rank_pattern": {"^model.layers.1.self_attn.q_proj": 2}},
    {"target_modules": ["q_proj"], "rank_pattern": {"layers.1.self_attn.q_proj": 2}},
    {"target_modules": ["q_proj"], "rank_pattern": {r"layers\.1.*q_proj": 2, "q_proj": 3}},
    {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 3, r"layers\.1.*q_proj": 2}},
    {"target_modules": ["q_proj"], "rank_pattern": {r".*\.[0-4]\..*": 6}, "use_rslora": True},
    {"target_modules": ["q_proj", "up_proj"], "alpha_pattern": {"up_proj": 3}},
    {"target_modules": ["q_proj", "up_proj"], "alpha_pattern": {"self_attn.q_proj": 0.5},
     "rank_pattern": {r"[02]\.mlp\.up_proj": 16}},
    {"target_modules": ["q_proj"], "use_rslora": True},
    {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 0}},
    {"target_modules": ["q_proj"], "r": 0},
    {"target_modules": ["q_proj"], "r": 3, "lora_alpha": 7},
    {"target_modules": ["k_proj"], "init_lora_weights": False},
    {"target_modules": ["k_proj"], "init_lora_weights": "gaussian"},
    {"target_modules": ["k_proj"], "fan_in_fan_out": True},
]
GPT2_NAMES = [
    {"target_modules": None},
    {"target_modules": ["c_attn", "mlp.c_proj"]},
    {"target_modules": "all-linear"},
    {"target_modules": r".*\.h\.\d\.attn\.c_proj", "fan_in_fan_out": True},
    {"target_modules": ["c_fc"], "layers_to_transform": [1, 10], "layers_pattern": "h"},
    {"target_modules": ["c_fc"], "layers_to_transform": [1], "layers_pattern": "layers"},
    {"target_modules": ["c_proj"], "rank_pattern": {"attn.c_proj": 2}, "alpha_pattern": {"mlp.c_proj": 1}},
]
CASES = [("llama", c) for c in LLAMA_NAMES] + [("gpt2", c) for c in GPT2_NAMES]


def base_model(family, layers=LAYERS):
    """The sizes of tests/nn/tiny_models.cpp, with more layers."""
    torch.manual_seed(7)
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=61, n_embd=32, n_layer=layers, n_head=4, n_inner=48, n_positions=48,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3,
            bos_token_id=0, eos_token_id=0)
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=48, max_position_embeddings=48,
        initializer_range=0.3)
    return transformers.LlamaForCausalLM(config).eval()


def adapted_layers(family, config):
    """{name: [rank, scale]}, or None where PEFT refuses the configuration."""
    try:
        model = get_peft_model(base_model(family), LoraConfig(task_type="CAUSAL_LM", **config))
    except Exception:  # PEFT raises several kinds
        return None
    return {
        name.removeprefix("base_model.model."): [module.r["default"], module.scaling["default"]]
        for name, module in model.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def defaults():
    """The keys of adapter_config.json with what PEFT writes for them by default."""
    config = LoraConfig(task_type="CAUSAL_LM").to_dict()
    names = {field.name for field in dataclasses.fields(LoraConfig)} - {"runtime_config"}
    assert names == set(config), names ^ set(config)
    return {key: value for key, value in sorted(config.items()) if key != "peft_version"}


def write_targets(path):
    lines = []
    for family, config in CASES:
        case = {"family": family, "config": config, "layers": adapted_layers(family, config)}
        lines.append("    " + json.dumps(case))
    path.write_text(
        '{\n  "peft": "%s",\n  "defaults": %s,\n  "cases": [\n%s\n  ]\n}\n'
        % (peft.__version__, json.dumps(defaults(), default=str), ",\n".join(lines)))


def write_models(folder):
    """A folder per case: base/, adapter/, config.txt and logits.safetensors (ids, logits), which is
    missing where PEFT refuses to load the adapter that it saved."""
    from safetensors.torch import save_file

    transformers.logging.disable_progress_bar()

    for number, (family, config) in enumerate(CASES):
        if not adapted_layers(family, config):
            continue
        place = folder / ("%02d" % number)
        base_model(family).save_pretrained(place / "base")
        model = get_peft_model(base_model(family), LoraConfig(task_type="CAUSAL_LM", **config))
        torch.manual_seed(number)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(std=0.2)
        model.save_pretrained(place / "adapter")
        (place / "config.txt").write_text(f"{family} {json.dumps(config)}\n")
        # As a user would have it: from the files. PEFT sorts the keys of its file, so that another
        # pattern may be the first that matches a layer than in memory; then the shapes differ.
        try:
            loaded = PeftModel.from_pretrained(base_model(family), place / "adapter").eval()
        except RuntimeError as error:
            assert "size mismatch" in str(error), config
            continue
        ids = torch.randint(0, 61, (2, 9))
        with torch.no_grad():
            logits = loaded(ids).logits
            plain = base_model(family)(ids).logits
        assert (logits - plain).abs().max() > 1e-3, config
        save_file({"ids": ids.to(torch.int32), "logits": logits.contiguous()},
                  place / "logits.safetensors")


if __name__ == "__main__":
    command, where = sys.argv[1], pathlib.Path(sys.argv[2])
    {"targets": write_targets, "models": write_models}[command](where)
