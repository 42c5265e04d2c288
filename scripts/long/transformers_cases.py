"""What transformers computes with tiny models, for tests/nn/transformers_test.cpp.

  transformers_cases.py goldens FILE    a few numbers of each model (committed)
  transformers_cases.py compare FILE    whether they are still the same to five places
  transformers_cases.py models FOLDER   the models as folders, each with expected.safetensors
  transformers_cases.py saved FOLDER    whether folders that Binade wrote are the same models

A weight follows from its name and its place, so that the test makes the same ones: see `values`.
"""

import json
import pathlib
import sys

import numpy
import torch
import transformers
from hashed_weights import directions, hashes
from safetensors.torch import save_file

TOKENS = 40
NEW_TOKENS = 20
SIZES = dict(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)
DIVISORS = {"short_factor": [1.0, 1.25, 1.5, 2.0], "long_factor": [1.5, 2.5, 4.0, 8.0]}

# name: (class, keys of its configuration, tokens of the prompt)
CASES = {
    "llama_yarn": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
        8,
    ),
    "qwen2_yarn": (
        "Qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000.0,
                "factor": 2.0,
                "original_max_position_embeddings": 32,
                "attention_factor": 1.25,
                "beta_fast": 6.0,
                "beta_slow": 0.5,
                "truncate": False,
            }
        },
        8,
    ),
    "llama_yarn_mscale": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "mscale": 1.5,
                "mscale_all_dim": 0.75,
            }
        },
        8,
    ),
    # The text grows beyond the 24 positions behind which the base grows with it.
    "llama_dynamic": (
        "Llama",
        {
            "max_position_embeddings": 24,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
        },
        8,
    ),
    "mistral": ("Mistral", {"sliding_window": 7, "head_dim": 16}, 8),
    "mistral_full": ("Mistral", {"sliding_window": None, "tie_word_embeddings": True}, 8),
    "qwen2_window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        8,
    ),
    "qwen3_window": (
        "Qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "head_dim": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        8,
    ),
    "olmo2": ("Olmo2", {}, 8),
    "olmo2_bias": ("Olmo2", {"attention_bias": True, "num_key_value_heads": 4}, 8),
    "phi3": ("Phi3", {"sliding_window": 11, "partial_rotary_factor": 0.5}, 8),
    "phi3_longrope_short": (
        "Phi3",
        {
            "original_max_position_embeddings": 48,
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, **DIVISORS},
        },
        8,
    ),
    "phi3_longrope_long": (
        "Phi3",
        {
            "original_max_position_embeddings": 16,
            "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, **DIVISORS},
        },
        20,
    ),
    "llama_longrope": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "factor": 3.0,
                "original_max_position_embeddings": 16,
                **DIVISORS,
            },
        },
        20,
    ),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 4}, 8),
    "smollm3_window": (
        "SmolLM3",
        {
            "num_hidden_layers": 3,
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 6,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": False,
        },
        8,
    ),
    "gemma3_text": (
        "Gemma3",
        {
            "num_hidden_layers": 3,
            "head_dim": 8,
            "sliding_window": 7,
            "query_pre_attn_scalar": 12,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        8,
    ),
    "gemma3_text_pattern": (
        "Gemma3",
        {"num_hidden_layers": 6, "head_dim": 16, "sliding_window": 12},
        8,
    ),
}


def values(name, shape, from_one):
    count = int(numpy.prod(shape))
    spread = directions(name, count) * 0.5
    if name.endswith("norm.weight") and not from_one:
        spread += 1
    if from_one and name.endswith("embed_tokens.weight"):
        spread *= 0.25  # Gemma's embedding is scaled by √32, and would drown the layers
    return torch.tensor(spread.reshape(shape), dtype=torch.float32)


def make(kind, keys):
    config_class = "Gemma3TextConfig" if kind == "Gemma3" else kind + "Config"
    config = getattr(transformers, config_class)(**{**SIZES, **keys})
    config._attn_implementation = "eager"
    model = getattr(transformers, kind + "ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values(name, parameter.shape, kind == "Gemma3"))
    return model


def text():
    return torch.tensor(hashes("ids", 2 * TOKENS).astype(numpy.int64) % 58 + 3).reshape(2, TOKENS)


def compute(model, prompt):
    ids = text()
    targets = ids[:, 1:].clone()
    targets[0, 3] = targets[1, 17] = -100
    # The shorter text first: "dynamic" keeps the base of the longest one that it has seen.
    loss = torch.nn.functional.cross_entropy(
        model(ids[:, :-1]).logits.reshape(-1, 61), targets.reshape(-1)
    )
    loss.backward()
    logits = model(ids).logits
    with torch.no_grad():
        greedy = model.generate(
            ids[:1, :prompt],
            attention_mask=torch.ones(1, prompt, dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    gradients = {name: p.grad.detach() for name, p in model.named_parameters()}
    return ids, targets, logits.detach(), loss.detach(), greedy[0], gradients


def along(tensor, name):
    return float(numpy.dot(tensor.double().numpy().ravel(), directions(name, tensor.numel())))


def golden(name):
    kind, keys, prompt = CASES[name]
    model = make(kind, keys)
    _, _, logits, loss, greedy, gradients = compute(model, prompt)
    config = json.loads(model.config.to_json_string())
    for key in ("transformers_version", "architectures", "dtype"):
        config.pop(key, None)
    rows = logits.reshape(-1, 61)
    return {
        "config": config,
        "prompt": prompt,
        "logits": [round(along(row, "logits"), 5) for row in rows],
        "largest_logit": round(float(logits.abs().max()), 5),
        "loss": float(loss),
        "greedy": greedy[prompt:].tolist(),
        # shape, the gradient's part along a direction, its norm
        "parameters": {
            name: [list(gradient.shape), along(gradient, "grad"), float(gradient.norm())]
            for name, gradient in gradients.items()
        },
    }


def write_goldens(path):
    lines = [json.dumps(name) + ": " + json.dumps(golden(name)) for name in CASES]
    pathlib.Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def alike(a, b):
    """Equal but for what another version of PyTorch sums in another order: numbers are rounded to 1e-5,
    and between 2.6 and the one that made the goldens they moved by at most 2e-5."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float):
        return abs(a - b) <= 3e-5 * max(1, abs(a))
    return a == b


def compare(path):
    committed = json.loads(pathlib.Path(path).read_text())
    now = {name: golden(name) for name in CASES}
    differing = [name for name in now if not alike(now[name], committed.get(name))]
    if differing or now.keys() != committed.keys():
        sys.exit("other numbers: " + ", ".join(differing or ["the list of models"]))


def write_models(folder):
    for name, (kind, keys, prompt) in CASES.items():
        model = make(kind, keys)
        target = pathlib.Path(folder) / name
        model.save_pretrained(target)
        ids, targets, logits, loss, greedy, gradients = compute(model, prompt)
        expected = {
            "input_ids": ids,
            "targets": targets.reshape(-1),
            "logits": logits,
            "loss": loss,
            "greedy": greedy,
        }
        expected.update({"grad." + key: value for key, value in gradients.items()})
        save_file({key: value.contiguous() for key, value in expected.items()},
                  str(target / "expected.safetensors"))


def saved(folder):
    for name, (kind, keys, _) in CASES.items():
        again, report = transformers.AutoModelForCausalLM.from_pretrained(
            pathlib.Path(folder) / name, attn_implementation="eager", output_loading_info=True
        )
        if report["missing_keys"] or report["unexpected_keys"]:
            sys.exit(f"{name}: {report}")
        # A fresh model each: "dynamic" keeps the base of the longest text that it has seen.
        with torch.no_grad():
            expected = make(kind, keys)(text()).logits
            difference = float((again.eval()(text()).logits - expected).abs().max())
        if type(again).__name__ != kind + "ForCausalLM" or difference > 1e-6:
            sys.exit(f"{name}: read back as {type(again).__name__}, logits differ by {difference}")
        print(f"{name}: logits differ by {difference}")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    {"goldens": write_goldens, "compare": compare, "models": write_models, "saved": saved}[sys.argv[1]](sys.argv[2])
