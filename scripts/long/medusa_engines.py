"""Files of Medusa heads against the classes of serving engines, with whose sources this is called:
medusa_engines.py FOLDER VLLM_SOURCE FASTERDECODING_SOURCE [TGI_SOURCE]

The engines' own classes make the parameters and compute the logits. What they import beside PyTorch
and transformers is replaced by the least that they need.
"""
import importlib.util
import json
import pathlib
import sys
import types

import torch
from safetensors.torch import load_file, save_file
from torch import nn

TOLERANCE = 1e-5  # of logits around 10, in FP32: the sums have other orders
failures = 0


def report(name, problem=""):
    global failures
    failures += bool(problem)
    print(f"not ok {name}: {problem}" if problem else f"ok {name}")


def stub(name, **members):
    """A module of this name, with the packages above it."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        package = sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
        package.__path__ = []
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    sys.modules[name] = module


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def randomise(module, generator):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


# ---- vLLM ---------------------------------------------------------------------------------------
class ParallelLMHead(nn.Module):
    """On one device and without padding it is a weight."""

    def __init__(self, rows, dim, prefix=""):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, dim))


def default_weight_loader(parameter, values):
    if parameter.shape != values.shape:
        raise ValueError(f"{tuple(values.shape)} for a parameter {tuple(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(values)


class Vllm:
    def __init__(self, source):
        stub("vllm.config", VllmConfig=object)
        stub("vllm.model_executor.layers.logits_processor",
             LogitsProcessor=lambda *_: lambda head, hidden: hidden @ head.weight.T)
        stub("vllm.model_executor.layers.vocab_parallel_embedding", ParallelLMHead=ParallelLMHead)
        stub("vllm.model_executor.model_loader.weight_utils",
             default_weight_loader=default_weight_loader)
        stub("vllm.model_executor.models.utils", maybe_prefix=lambda a, b: b)
        stub("vllm.transformers_utils.utils", without_trust_remote_code=lambda options: options)
        self.config = load("vllm.transformers_utils.configs.medusa",
                           source / "vllm/transformers_utils/configs/medusa.py").MedusaConfig
        self.model = load("vllm.model_executor.models.medusa",
                          source / "vllm/model_executor/models/medusa.py").Medusa

    def make(self, config):
        holder = types.SimpleNamespace(hf_config=config)
        return self.model(vllm_config=types.SimpleNamespace(
            speculative_config=types.SimpleNamespace(draft_model_config=holder)))

    def logits(self, model, hidden):
        return torch.stack(model.compute_logits(model.forward(hidden)))

    def read(self, folder, expected):
        config = self.config.from_pretrained(folder)
        model = self.make(config)
        given = load_file(folder / "model.safetensors")
        loaded = model.load_weights(given.items())
        wanted = {name for name, _ in model.named_parameters()}
        if wanted != loaded:
            return f"not loaded: {sorted(wanted - loaded)}"
        if len(given) != len(loaded):
            return f"passed over: {sorted(set(given) - wanted)}"
        if config.architectures != ["MedusaModel"]:
            return f"architectures {config.architectures}"
        found = difference(self.logits(model, expected["hidden"][0]), expected["logits"][:, 0])
        return "" if found < TOLERANCE else f"logits differ by {found}"

    def write(self, folder, expected, config, generator):
        config = self.config(hidden_size=expected["hidden"].shape[-1],
                             vocab_size=expected["logits"].shape[-1], num_heads=config["heads"],
                             num_hidden_layers=config["layers"], medusa_fc_bias=True)
        model = self.make(config)
        randomise(model, generator)
        config.save_pretrained(folder)
        save_file(dict(model.named_parameters()), folder / "model.safetensors")
        return self.logits(model, expected["hidden"][0])


# ---- FasterDecoding -----------------------------------------------------------------------------
class FasterDecoding:
    def __init__(self, source):
        import transformers
        tokenizer = types.SimpleNamespace(from_pretrained=lambda name: None)
        stub("medusa.model.modeling_llama_kv", LlamaForCausalLM=object)
        stub("medusa.model.utils")
        stub("medusa.model.kv_cache", initialize_past_key_values=None)
        before = transformers.AutoTokenizer
        transformers.AutoTokenizer = tokenizer
        module = load("medusa.model.medusa_model", source / "medusa/model/medusa_model.py")
        transformers.AutoTokenizer = before
        self.model, self.config = module.MedusaModel, module.MedusaConfig

    def make(self, base_head, heads, layers):
        base = nn.Module()
        base.lm_head = nn.Linear(base_head.shape[1], base_head.shape[0], bias=False)
        base.lm_head.weight = nn.Parameter(base_head.clone())
        base.config, base.dtype, base.device = None, torch.float32, "cpu"
        model = self.model(base, heads, layers)
        # Its list repeats one block; files have as many as there are layers.
        for head in model.medusa_head:
            for j in range(1, layers):
                head[j] = type(head[0])(base_head.shape[1])
        return model

    def read(self, folder, expected):
        config = self.config.from_pretrained(folder)
        model = self.make(expected["base_head"], config.medusa_num_heads, config.medusa_num_layers)
        if not (folder / "medusa_lm_head.pt").exists():
            return "no medusa_lm_head.pt"
        given = torch.load(folder / "medusa_lm_head.pt", map_location="cpu")
        answer = model.medusa_head.load_state_dict(given, strict=False)
        outputs = {f"{k}.{config.medusa_num_layers}.weight" for k in range(config.medusa_num_heads)}
        # Without output layers of their own, the heads keep the copies of the model's.
        if answer.unexpected_keys or set(answer.missing_keys) not in (set(), outputs):
            return f"keys: {answer}"
        logits = torch.stack([head(expected["hidden"][0]) for head in model.medusa_head])
        found = difference(logits, expected["logits"][:, 0])
        return "" if found < TOLERANCE else f"logits differ by {found}"

    def write(self, folder, expected, config, generator):
        model = self.make(expected["base_head"], config["heads"], config["layers"])
        randomise(model.medusa_head, generator)
        self.config(config["heads"], config["layers"], "base").save_pretrained(folder)
        save_file({name: values.contiguous()
                   for name, values in model.medusa_head.state_dict().items()},
                  folder / "medusa_lm_head.safetensors")
        return torch.stack([head(expected["hidden"][0]) for head in model.medusa_head])


# ---- TGI ----------------------------------------------------------------------------------------
class Tgi:
    def __init__(self, source):
        self.speculate = 0

        class FastLinear(nn.Module):
            def __init__(self, weight, bias):
                super().__init__()
                self.weight, self.bias = weight, bias

            @staticmethod
            def load(config, prefix, weights, bias):
                weights.asked |= {f"{prefix}.weight"} | ({f"{prefix}.bias"} if bias else set())
                return FastLinear(weights.given[f"{prefix}.weight"],
                                  weights.given[f"{prefix}.bias"] if bias else None)

            def forward(self, x):
                return nn.functional.linear(x, self.weight, self.bias)

        stub("text_generation_server.utils.speculate", get_speculate=lambda: self.speculate)
        stub("text_generation_server.layers.linear", FastLinear=FastLinear)
        stub("text_generation_server.layers.tensor_parallel", TensorParallelHead=None,
             TensorParallelColumnLinear=None)
        self.module = load("text_generation_server.layers.medusa",
                           source / "server/text_generation_server/layers/medusa.py")

    def read(self, folder, expected):
        config = json.loads((folder / "config.json").read_text())
        if "architectures" in config:
            return "architectures in config.json: it would be taken for a model"
        given = load_file(folder / "medusa_lm_head.safetensors")
        self.speculate = config["medusa_num_heads"]
        if f"0.{config['medusa_num_layers']}.weight" not in given:
            # Its second class for heads without outputs reads the blocks' layers alone.
            wanted = {f"{k}.0.linear.{what}" for k in range(self.speculate)
                      for what in ("weight", "bias")}
            return "" if set(given) == wanted else f"has {sorted(given)}"
        weights = types.SimpleNamespace(given=given, asked=set())
        model = self.module.MedusaModel(None, config, weights)
        if weights.asked != set(given):
            return f"passed over: {sorted(set(given) - weights.asked)}"
        found = difference(model(expected["hidden"][0]).transpose(0, 1), expected["logits"][:, 0])
        return "" if found < TOLERANCE else f"logits differ by {found}"


def main():
    folder = pathlib.Path(sys.argv[1])
    vllm, faster = Vllm(pathlib.Path(sys.argv[2])), FasterDecoding(pathlib.Path(sys.argv[3]))
    tgi = Tgi(pathlib.Path(sys.argv[4])) if len(sys.argv) > 4 else None
    generator = torch.Generator().manual_seed(1)
    cases = {"one_block": {"heads": 3, "layers": 1}, "two_blocks": {"heads": 2, "layers": 2},
             "shared_output": None}
    with torch.no_grad():
        for name, config in cases.items():
            expected = load_file(folder / name / "expected.safetensors")
            report(f"vLLM reads {name}", vllm.read(folder / name / "vllm", expected))
            report(f"FasterDecoding reads {name}", faster.read(folder / name / "original", expected))
            if tgi:
                report(f"TGI reads {name}", tgi.read(folder / name / "original", expected))
            else:
                print(f"skip TGI reads {name}: no source was given")
            if config is None:
                continue
            for engine, writer in {"vllm": vllm, "fasterdecoding": faster}.items():
                out = folder / "from_engines" / f"{engine}_{name}"
                out.mkdir(parents=True)
                logits = writer.write(out, expected, config, generator)
                save_file({"hidden": expected["hidden"], "logits": logits[:, None].contiguous()},
                          out / "expected.safetensors.check")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
