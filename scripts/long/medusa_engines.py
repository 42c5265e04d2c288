"""Files of Medusa heads against the classes of serving engines, whose sources are given:

  medusa_engines.py compare FOLDER vllm=SOURCE fasterdecoding=SOURCE [tgi=SOURCE] [tensorrt_llm=SOURCE]
  medusa_engines.py names vllm=SOURCE,COMMIT …     prints tests/heads/medusa/engine_names.json

The engines' own classes make the parameters and compute the logits. What they import beside PyTorch
and transformers is replaced by the least that they need.
"""
import inspect
import json
import pathlib
import re
import sys
import types

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import engines as shared
from engines import (TOLERANCE, ParallelLMHead, default_weight_loader, difference, load, randomise,
                     report, shapes, stub)

# ---- vLLM ---------------------------------------------------------------------------------------
# Each engine: read(FOLDER, EXPECTED) says what is wrong with a folder, names(CASE) gives the tensors
# that it asks a file for, and write(), where there is one, makes a folder.
class Vllm:
    layout = "vllm"

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

    def config_of(self, case, dim, vocabulary):
        return self.config(hidden_size=dim, vocab_size=vocabulary, num_heads=case["heads"],
                           num_hidden_layers=case["layers"], medusa_fc_bias=True)

    def names(self, case):
        return shapes(self.make(self.config_of(case, DIM, VOCABULARY)).named_parameters())

    def write(self, folder, expected, case, generator):
        config = self.config_of(case, expected["hidden"].shape[-1], expected["logits"].shape[-1])
        model = self.make(config)
        randomise(model, generator)
        config.save_pretrained(folder)
        save_file(dict(model.named_parameters()), folder / "model.safetensors")
        return self.logits(model, expected["hidden"][0])


# ---- FasterDecoding -----------------------------------------------------------------------------
class FasterDecoding:
    layout = "original"

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

    def names(self, case):
        model = self.make(torch.zeros(VOCABULARY, DIM), case["heads"], case["layers"])
        return shapes(model.medusa_head.state_dict().items())

    def write(self, folder, expected, config, generator):
        model = self.make(expected["base_head"], config["heads"], config["layers"])
        randomise(model.medusa_head, generator)
        self.config(config["heads"], config["layers"], "base").save_pretrained(folder)
        save_file({name: values.contiguous()
                   for name, values in model.medusa_head.state_dict().items()},
                  folder / "medusa_lm_head.safetensors")
        return torch.stack([head(expected["hidden"][0]) for head in model.medusa_head])


# ---- TGI ----------------------------------------------------------------------------------------
class Asked(dict):
    """Tensors that a loader takes by name: what it asked for, in order. Made of zeros if there are
    none."""

    def __init__(self, given=None):
        super().__init__(given or {})
        self.empty, self.names = not given, []

    def __getitem__(self, name):
        self.names.append(name)
        return torch.zeros(1) if self.empty else super().__getitem__(name)


class Tgi:
    layout = "original"

    def __init__(self, source):
        self.speculate = 0

        class FastLinear(nn.Module):
            def __init__(self, weight, bias):
                super().__init__()
                self.weight, self.bias = weight, bias

            @staticmethod
            def load(config, prefix, weights, bias):
                return FastLinear(weights[f"{prefix}.weight"], weights[f"{prefix}.bias"] if bias else None)

            def forward(self, x):
                return nn.functional.linear(x, self.weight, self.bias)

        stub("text_generation_server.utils.speculate", get_speculate=lambda: self.speculate)
        stub("text_generation_server.layers.linear", FastLinear=FastLinear)
        stub("text_generation_server.layers.tensor_parallel", TensorParallelHead=None,
             TensorParallelColumnLinear=None)
        self.module = load("text_generation_server.layers.medusa",
                           source / "server/text_generation_server/layers/medusa.py")

    def names(self, case):
        asked, self.speculate = Asked(), case["heads"]
        self.module.MedusaModel(None, {"medusa_num_layers": case["layers"]}, asked)
        return {name: None for name in asked.names}  # its layers take what shape they find

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
        weights = Asked(given)
        model = self.module.MedusaModel(None, config, weights)
        if set(weights.names) != set(given):
            return f"passed over: {sorted(set(given) - set(weights.names))}"
        found = difference(model(expected["hidden"][0]).transpose(0, 1), expected["logits"][:, 0])
        return "" if found < TOLERANCE else f"logits differ by {found}"


# ---- TensorRT-LLM -------------------------------------------------------------------------------
class TensorRtLlm:
    layout = "original"

    def __init__(self, source):
        class Filled:
            """A parameter of its layers; `value` is what the loader puts there."""

            def __init__(self, *shape):
                self.shape, self.value = shape, None

        class ColumnLinear(nn.Module):
            def __init__(self, inputs, outputs, bias=True, dtype=None, tp_group=None, tp_size=1,
                         gather_output=True):
                super().__init__()
                self.weight = Filled(outputs, inputs)
                self.bias = Filled(outputs) if bias else None

            def forward(self, x):
                bias = None if self.bias is None else torch.as_tensor(self.bias.value)
                return nn.functional.linear(x, torch.as_tensor(self.weight.value), bias)

        def split(v, tp_size, idx, dim=0):
            assert tp_size == 1
            return v

        mapping = type("Mapping", (), {"tp_group": None, "tp_size": 1, "tp_rank": 0})
        stub("tensorrt")
        stub("tensorrt_llm", logger=types.SimpleNamespace(info=lambda text: None))
        stub("tensorrt_llm._common", default_net=None)
        stub("tensorrt_llm._utils", pad_vocab_size=lambda size, ranks: size,
             str_dtype_to_torch=lambda name: getattr(torch, name), torch_to_numpy=lambda x: x.numpy(),
             numpy_to_torch=torch.as_tensor)
        stub("tensorrt_llm.functional", ACT2FN={"silu": nn.functional.silu}, Tensor=None, stack=None,
             gather_last_token_logits=None)
        stub("tensorrt_llm.layers", ColumnLinear=ColumnLinear)
        stub("tensorrt_llm.mapping", Mapping=mapping)
        stub("tensorrt_llm.module", Module=nn.Module, ModuleList=nn.ModuleList)
        stub("tensorrt_llm.models", MedusaLM=object)
        for package in ("models.llama", "models.qwen", "models.medusa"):
            stub(f"tensorrt_llm.{package}")
            sys.modules[f"tensorrt_llm.{package}"].__path__ = []
        sys.modules["tensorrt_llm.models"].__path__ = []
        stub("tensorrt_llm.models.llama.model", LLaMAForCausalLM=object)
        stub("tensorrt_llm.models.llama.weight", split=split)
        stub("tensorrt_llm.models.qwen.model", QWenForCausalLM=object)
        stub("tensorrt_llm.models.convert_utils", split=split, **dict.fromkeys((
            "dup_kv_weight", "generate_int8", "smooth_gemm", "smooth_gemm_fc1_gate", "split_matrix_tp",
            "split_qkv_tp")))
        stub("tensorrt_llm.models.generation_mixin", GenerationMixin=object)
        stub("tensorrt_llm.models.modeling_utils", PretrainedModel=object, QuantConfig=None)
        stub("tensorrt_llm.models.medusa.config", MedusaConfig=object)
        folder = source / "tensorrt_llm/models/medusa"
        self.load_weights = load("tensorrt_llm.models.medusa.weight", folder / "weight.py").load_medusa_hf
        self.head = load("tensorrt_llm.models.medusa.model", folder / "model.py").MedusaHead

    def filled(self, folder, case, dim, vocabulary, asked):
        """Its heads with what its loader takes from `asked` in place of the folder's file, and by
        parameter the name that was asked for."""
        heads = [self.head(case["layers"], dim, vocabulary) for _ in range(case["heads"])]
        parameters = {}
        for h, head in enumerate(heads):
            for j, layer in enumerate(head.medusa_layers):
                parameters[f"medusa_heads.{h}.medusa_layers.{j}.linear.weight"] = layer.linear.weight
                parameters[f"medusa_heads.{h}.medusa_layers.{j}.linear.bias"] = layer.linear.bias
            parameters[f"medusa_heads.{h}.lm_head.weight"] = head.lm_head.weight
        before, torch.load = torch.load, lambda *_, **__: asked
        try:
            if "num_medusa_heads" in inspect.signature(self.load_weights).parameters:
                (folder / "medusa_lm_head.pt").touch()
                loaded = self.load_weights(str(folder), case["heads"], case["layers"])
                assert set(loaded) == set(parameters), "its loader and its classes differ"
                for name, values in loaded.items():
                    parameters[name].value = values
                order = [parameters[name] for name in loaded]
            else:
                model = types.SimpleNamespace(medusa_heads=heads, num_medusa_heads=case["heads"],
                                              num_medusa_layers=case["layers"])
                self.load_weights(str(folder), model)
                order = list(parameters.values())
        finally:
            torch.load = before
        assert len(asked.names) == len(order), "a tensor that it asked for went nowhere"
        return heads, {name: list(where.shape) for name, where in zip(asked.names, order)}

    def names(self, case):
        return self.filled(pathlib.Path("/nowhere"), case, DIM, VOCABULARY, Asked())[1]

    def read(self, folder, expected):
        config = json.loads((folder / "config.json").read_text())
        if config.get("num_medusa_heads") != config["medusa_num_heads"]:
            return "its MedusaConfig reads num_medusa_heads, its loader medusa_num_heads"
        given = torch.load(folder / "medusa_lm_head.pt", map_location="cpu")
        case = {"heads": config["medusa_num_heads"], "layers": config["medusa_num_layers"]}
        if f"0.{case['layers']}.weight" not in given:
            return ""  # it has no heads without output layers
        asked = Asked(given)
        heads, wanted = self.filled(folder, case, expected["hidden"].shape[-1],
                                    expected["logits"].shape[-1], asked)
        if wanted != shapes(given.items()):
            return f"asks for {wanted}"
        logits = torch.stack([head(expected["hidden"][0]) for head in heads])
        found = difference(logits, expected["logits"][:, 0])
        return "" if found < TOLERANCE else f"logits differ by {found}"


ENGINES = {"vllm": Vllm, "fasterdecoding": FasterDecoding, "tgi": Tgi, "tensorrt_llm": TensorRtLlm}
CASES = {"one_block": {"heads": 3, "layers": 1}, "two_blocks": {"heads": 2, "layers": 2}}
DIM, VOCABULARY = 32, 61  # of the tests' small model


def print_names(sources):
    result = {"dim": DIM, "vocabulary": VOCABULARY, "cases": CASES, "engines": {}}
    for name, source in sources.items():
        path, commit = source.split(",")
        engine = ENGINES[name](pathlib.Path(path))
        result["engines"][name] = {"source": commit, "layout": engine.layout,
                                   "tensors": {case: engine.names(CASES[case]) for case in CASES}}
    text = json.dumps(result, indent=2)
    print(re.sub(r"\[\s+(\d+)(?:,\s+(\d+))?\s+\]",
                 lambda m: f"[{m[1]}, {m[2]}]" if m[2] else f"[{m[1]}]", text))


def compare(folder, sources):
    engines = {name: ENGINES[name](pathlib.Path(source)) for name, source in sources.items()}
    generator = torch.Generator().manual_seed(1)
    for case in [*CASES, "shared_output"]:
        expected = load_file(folder / case / "expected.safetensors")
        for name in ENGINES:
            if name in engines:
                engine = engines[name]
                report(f"{name} reads {case}", engine.read(folder / case / engine.layout, expected))
            else:
                print(f"skip {name} reads {case}: no source was given")
        for name, engine in engines.items():
            if case not in CASES or not hasattr(engine, "write"):
                continue
            out = folder / "from_engines" / f"{name}_{case}"
            out.mkdir(parents=True)
            logits = engine.write(out, expected, CASES[case], generator)
            save_file({"hidden": expected["hidden"], "logits": logits[:, None].contiguous()},
                      out / "expected.safetensors.check")


def main():
    sources = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    with torch.no_grad():
        if sys.argv[1] == "names":
            print_names(sources)
        else:
            compare(pathlib.Path(sys.argv[2]), sources)
    sys.exit(shared.failures > 0)


if __name__ == "__main__":
    main()
