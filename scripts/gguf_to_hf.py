#!/usr/bin/env python3
"""Turns a GGUF file of a Llama-family model into a Hugging Face folder: config.json,
generation_config.json, model.safetensors, the tokenizer's files with the chat template, and
SHA256SUMS.

Quantised weights are turned back into numbers. Read are files of the architecture "llama" with a
byte-level BPE tokenizer; what else a file may hold is refused by name. The folder appears when it
is complete. Ends with status 2 and one line where something is wrong.
"""
# Needs: pip install gguf==0.19.0 safetensors==0.8.0
import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import sys

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

# What llama.cpp calls a tensor and what transformers calls it. "{}" stands for the layer.
TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_TENSORS = {
    "blk.{}.attn_norm.weight": "model.layers.{}.input_layernorm.weight",
    "blk.{}.attn_q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blk.{}.attn_k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blk.{}.attn_v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blk.{}.attn_output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blk.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blk.{}.ffn_gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blk.{}.ffn_up.weight": "model.layers.{}.mlp.up_proj.weight",
    "blk.{}.ffn_down.weight": "model.layers.{}.mlp.down_proj.weight",
}
# Keys of the architecture that say nothing unless they have another value than this.
NEUTRAL = {"rope.scaling.type": "none", "expert_count": 0, "expert_used_count": 0}

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA3 = {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {
    "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
             r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}}
# tokenizer.ggml.pre: how text is cut before merging, whether a whole word that is a token is taken
# without merging, and whether a text begins with BOS where the file does not say.
PRE_TOKENIZERS = {
    "gpt-2": ([BYTE_LEVEL], False, False),
    "smollm": ([DIGITS, BYTE_LEVEL], False, False),
    "llama-bpe": ([LLAMA3, {**BYTE_LEVEL, "use_regex": False}], True, True),
}

DTYPES = {"float16": np.float16, "float32": np.float32}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # tokenizer.ggml.token_type


class Refused(Exception):
    """The file is damaged, or holds what this program does not convert."""


def refuse(*words):
    raise Refused(" ".join(map(str, words)))


# ---- reading --------------------------------------------------------------------------------------

class GgufFile:
    """A GGUF file's metadata and tensors."""

    def __init__(self, path):
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                refuse("this is not a GGUF file: it does not begin with the letters GGUF")
        try:
            self.reader = gguf.GGUFReader(path)
        except Exception as error:  # of many kinds: whatever the damaged bytes lead to
            refuse(f"the file is cut short or damaged ({type(error).__name__}: {error})")
        self.architecture = self.get("general.architecture", str)
        if self.architecture != "llama":
            refuse(f"the architecture (general.architecture) is {self.architecture!r};",
                   "only 'llama' is converted")
        for key, needed in (("general.type", "model"), ("split.count", 1)):
            value = self.get(key, type(needed), needed)
            if value != needed:
                refuse(f"{key} is {value!r}; only {needed!r} is converted")
        self.used = set()

    def get(self, key, kind, *otherwise):
        """The value of a key, which must be of this kind; `otherwise` if there is no such key."""
        field = self.reader.fields.get(key)
        if field is None:
            if otherwise:
                return otherwise[0]
            refuse("the metadata lacks the key", key)
        try:
            value = field.contents()
        except Exception as error:
            refuse(f"the metadata's key {key} is damaged ({type(error).__name__}: {error})")
        if kind is float and isinstance(value, float):
            # An f32 number, by its shortest decimal form: 1e-05, not 9.999999747378752e-06.
            return float(str(np.float32(value)))
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            shown = "a list" if isinstance(value, list) else repr(value)
            refuse(f"the metadata's key {key} is {shown}; expected: {kind.__name__}")
        return value

    def model(self, key, kind, *otherwise):
        """The same for a key of the architecture."""
        self.used.add(key)
        return self.get(f"{self.architecture}.{key}", kind, *otherwise)

    def refuse_unused(self):
        """Refuses keys of the architecture that were not asked for: they may change the result."""
        for key, neutral in NEUTRAL.items():
            value = self.model(key, type(neutral), neutral)
            if value != neutral:
                refuse(f"{self.architecture}.{key} is {value!r}, which is not converted")
        for key in self.reader.fields:
            prefix, _, name = key.partition(".")
            if prefix == self.architecture and name not in self.used:
                refuse("the metadata's key", key, "is not known here")


# ---- the model ------------------------------------------------------------------------------------

def read_config(file):
    """config.json, but for what the weights say."""
    heads = file.model("attention.head_count", int)
    dim = file.model("embedding_length", int)
    if heads < 1 or dim < 1 or file.model("block_count", int) < 1:
        refuse(f"the model has no size: {heads} heads, embedding_length {dim}")
    head_dim = file.model("attention.key_length", int, dim // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        size = file.model(key, int, head_dim)
        if size != head_dim:
            refuse(f"llama.{key} is {size}, but the heads have {head_dim} elements; only equal",
                   "sizes are converted")
    tokens = file.get("tokenizer.ggml.tokens", list)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": file.model("vocab_size", int, len(tokens)),
        "hidden_size": dim,
        "intermediate_size": file.model("feed_forward_length", int),
        "num_hidden_layers": file.model("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": file.model("attention.head_count_kv", int, heads),
        "head_dim": head_dim,
        "max_position_embeddings": file.model("context_length", int),
        "rms_norm_eps": file.model("attention.layer_norm_rms_epsilon", float),
        "rope_theta": file.model("rope.freq_base", float, 10000.0),
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }
    file.refuse_unused()
    return config


def shapes(config):
    """The shape of each tensor, by its GGUF name."""
    dim, hidden, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries = config["num_attention_heads"] * head_dim
    keys = config["num_key_value_heads"] * head_dim
    layer = {"attn_norm": (dim,), "attn_q": (queries, dim), "attn_k": (keys, dim),
             "attn_v": (keys, dim), "attn_output": (dim, queries), "ffn_norm": (dim,),
             "ffn_gate": (hidden, dim), "ffn_up": (hidden, dim), "ffn_down": (dim, hidden)}
    found = {"token_embd.weight": (config["vocab_size"], dim), "output_norm.weight": (dim,),
             "output.weight": (config["vocab_size"], dim)}
    for number in range(config["num_hidden_layers"]):
        found.update({f"blk.{number}.{name}.weight": shape for name, shape in layer.items()})
    return found


def undo_permutation(weight, heads):
    """llama.cpp rotates neighbours, transformers an element and the one half a head further: so the
    rows of q and k lie in pairs in a GGUF file and in halves in a Hugging Face folder."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def numbers_of(tensor):
    """A tensor's numbers, as f32 in its usual orientation: (out, in)."""
    try:
        values = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        refuse(f"the tensor {tensor.name} has the type {tensor.tensor_type.name}, which the package",
               "gguf does not turn into numbers")
    return np.ascontiguousarray(values, dtype=np.float32)


def hugging_face_name(name):
    layer = re.fullmatch(r"blk\.(\d+)(\..*)", name)
    if layer:
        return LAYER_TENSORS["blk.{}" + layer[2]].format(layer[1])
    return TENSORS[name]


def read_weights(file, config, dtype):
    """The tensors by their names in transformers."""
    expected, weights = shapes(config), {}
    given = {tensor.name: tensor for tensor in file.reader.tensors}
    for name in given:
        if name == "rope_freqs.weight":
            refuse("the tensor rope_freqs.weight (scaled rotary frequencies) is not converted")
        if name not in expected:
            refuse("the tensor", name, "is not known here")
    for name, shape in expected.items():
        tensor = given.get(name)
        if tensor is None:
            if name == "output.weight":
                continue  # the embedding is the head, too
            refuse("the file lacks the tensor", name)
        if tuple(map(int, reversed(tensor.shape))) != shape:
            refuse(f"the tensor {name} has the shape {[int(n) for n in reversed(tensor.shape)]};",
                   f"expected from the metadata: {list(shape)}")
        values = numbers_of(tensor)
        if name.endswith("attn_q.weight"):
            values = undo_permutation(values, config["num_attention_heads"])
        elif name.endswith("attn_k.weight"):
            values = undo_permutation(values, config["num_key_value_heads"])
        with np.errstate(over="ignore"):
            stored = values.astype(DTYPES[dtype])
        if not np.isfinite(stored).all():
            refuse(f"the tensor {name} has numbers that {dtype} cannot hold (the largest is",
                   f"{np.abs(values).max():g})")
        weights[hugging_face_name(name)] = np.ascontiguousarray(stored)
    return weights


# ---- the tokenizer --------------------------------------------------------------------------------

class Vocabulary:
    """The tokenizer's metadata, checked."""

    def __init__(self, file):
        model = file.get("tokenizer.ggml.model", str)
        if model != "gpt2":
            refuse(f"the tokenizer (tokenizer.ggml.model) is {model!r};",
                   "only 'gpt2', byte-level BPE, is converted")
        pre = file.get("tokenizer.ggml.pre", str)
        if pre not in PRE_TOKENIZERS:
            refuse(f"how the tokenizer cuts text (tokenizer.ggml.pre) is {pre!r}; known are",
                   ", ".join(PRE_TOKENIZERS))
        self.steps, self.ignore_merges, add_bos = PRE_TOKENIZERS[pre]
        self.tokens = file.get("tokenizer.ggml.tokens", list)
        self.types = file.get("tokenizer.ggml.token_type", list, [NORMAL] * len(self.tokens))
        self.merges = file.get("tokenizer.ggml.merges", list)
        self.add_bos = file.get("tokenizer.ggml.add_bos_token", bool, add_bos)
        self.add_eos = file.get("tokenizer.ggml.add_eos_token", bool, False)
        self.chat_template = file.get("tokenizer.chat_template", str, None)
        self.ids = {role: file.get(f"tokenizer.ggml.{key}_token_id", int, None)
                    for role, key in (("bos", "bos"), ("eos", "eos"), ("eot", "eot"),
                                      ("unk", "unknown"), ("pad", "padding"))}
        if file.get("tokenizer.ggml.add_space_prefix", bool, False):
            refuse("tokenizer.ggml.add_space_prefix is not converted")
        self.check()

    def check(self):
        if len(self.types) != len(self.tokens):
            refuse(f"the tokenizer has {len(self.tokens)} tokens, but the types of {len(self.types)}")
        self.vocab = {}
        for number, (token, kind) in enumerate(zip(self.tokens, self.types)):
            if kind == UNUSED:
                continue  # rows that only make the embedding larger
            if kind not in (NORMAL, UNKNOWN, CONTROL, USER_DEFINED):
                refuse(f"the token {token!r} is of type {kind}, which is not converted")
            if self.vocab.setdefault(token, number) != number:
                refuse(f"the tokens {self.vocab[token]} and {number} are both {token!r}")
        for number, merge in enumerate(self.merges):
            parts = merge.split(" ")
            if len(parts) != 2 or not {*parts, "".join(parts)} <= self.vocab.keys():
                refuse(f"merge {number} of the tokenizer, {merge!r}, does not join two of its tokens",
                       "into a third")
        for role, number in self.ids.items():
            if number is not None and not 0 <= number < len(self.tokens):
                refuse(f"the tokenizer's {role} token is {number}, beyond its {len(self.tokens)} tokens")
        for role, wanted in (("bos", self.add_bos), ("eos", self.add_eos)):
            if wanted and self.ids[role] is None:
                refuse(f"a text gets the {role} token, but the metadata does not say which that is")

    def token(self, role):
        number = self.ids[role]
        return None if number is None else self.tokens[number]

    def added_tokens(self):
        """The tokens that are looked for in the text before it is cut."""
        return [{"id": number, "content": token, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False, "special": kind == CONTROL}
                for number, (token, kind) in enumerate(zip(self.tokens, self.types))
                if kind in (CONTROL, USER_DEFINED)]

    def post_processor(self):
        trim = {**BYTE_LEVEL, "trim_offsets": False}
        if not self.add_bos and not self.add_eos:
            return trim
        before = ["bos"] if self.add_bos else []
        behind = ["eos"] if self.add_eos else []

        def sequence(name, kind):
            mark = [{"SpecialToken": {"id": self.token(role), "type_id": kind}} for role in before]
            end = [{"SpecialToken": {"id": self.token(role), "type_id": kind}} for role in behind]
            return [*mark, {"Sequence": {"id": name, "type_id": kind}}, *end]

        marks = {self.token(role): {"id": self.token(role), "ids": [self.ids[role]],
                                    "tokens": [self.token(role)]} for role in before + behind}
        return {"type": "Sequence", "processors": [trim, {
            "type": "TemplateProcessing", "single": sequence("A", 0),
            "pair": sequence("A", 0) + sequence("B", 1), "special_tokens": marks}]}

    def tokenizer_json(self):
        steps = self.steps
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self.added_tokens(),
            "normalizer": None,
            "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
            "post_processor": self.post_processor(),
            "decoder": BYTE_LEVEL,
            # Bytes without a token are dropped, as llama.cpp does: no unk_token.
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                      "byte_fallback": False, "ignore_merges": self.ignore_merges,
                      "vocab": self.vocab, "merges": self.merges},
        }

    def special_tokens(self):
        roles = {f"{role}_token": self.token(role) for role in ("bos", "eos", "unk", "pad")}
        return {role: token for role, token in roles.items() if token is not None}

    def tokenizer_config(self, max_positions):
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": max_positions,
            **self.special_tokens(),
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        return config

    def lacking_bytes(self):
        return [byte for byte, character in byte_alphabet().items() if character not in self.vocab]


def byte_alphabet():
    """The characters that byte-level vocabularies write bytes with (GPT-2's)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {**{byte: chr(byte) for byte in shown},
            **{byte: chr(256 + number) for number, byte in enumerate(others)}}


# ---- writing --------------------------------------------------------------------------------------

def special_ids(vocabulary):
    """The ids for config.json and generation_config.json; a turn's end is an end of text, too."""
    ids = vocabulary.ids
    ends = list(dict.fromkeys(number for number in (ids["eos"], ids["eot"]) if number is not None))
    found = {"bos_token_id": ids["bos"], "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
             "pad_token_id": ids["pad"]}
    return {key: number for key, number in found.items() if number is not None}


def convert(source, folder, dtype):
    """Writes the files into an empty folder; returns lines to show."""
    file = GgufFile(source)
    vocabulary = Vocabulary(file)
    config = read_config(file)
    if config["vocab_size"] < len(vocabulary.tokens):
        refuse(f"the model has {config['vocab_size']} rows for {len(vocabulary.tokens)} tokens")
    weights = read_weights(file, config, dtype)
    config.update(tie_word_embeddings="lm_head.weight" not in weights, torch_dtype=dtype,
                  **special_ids(vocabulary))

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name, content in (
            ("config.json", config),
            ("generation_config.json", special_ids(vocabulary)),
            ("tokenizer.json", vocabulary.tokenizer_json()),
            ("tokenizer_config.json", vocabulary.tokenizer_config(config["max_position_embeddings"])),
            ("special_tokens_map.json", vocabulary.special_tokens())):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    lines = [f"{name.name}  {name.stat().st_size} bytes" for name in sorted(folder.iterdir())]
    sums = [f"{hashlib.sha256(name.read_bytes()).hexdigest()}  {name.name}\n"
            for name in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(sums))

    types = {}
    for tensor in file.reader.tensors:
        types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + 1
    lines.append("tensors: " + ", ".join(f"{count} {name}" for name, count in sorted(types.items())))
    named = [key for key in file.reader.fields if key.startswith("tokenizer.chat_template.")]
    if named:
        lines.append("left out: " + ", ".join(named))
    if vocabulary.lacking_bytes():
        lines.append("the vocabulary has no token for these bytes, which encoding drops: " +
                     " ".join(f"{byte:02X}" for byte in vocabulary.lacking_bytes()))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", metavar="FILE", type=pathlib.Path, help="the GGUF file")
    parser.add_argument("folder", metavar="FOLDER", type=pathlib.Path,
                        help="the folder to write; it must not exist yet")
    parser.add_argument("--dtype", choices=DTYPES, default="float16",
                        help="of the written weights (default: %(default)s); float32 keeps quantised "
                        "weights exactly")
    arguments = parser.parse_args()
    partial = arguments.folder.with_name(f"{arguments.folder.name}.partial-{os.getpid()}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if arguments.folder.exists():
            refuse(f"{arguments.folder} exists already; remove it or name another folder")
        partial.mkdir(parents=True)
        try:
            lines = convert(arguments.gguf, partial, arguments.dtype)
        except Refused as reason:
            refuse(f"{arguments.gguf}: {reason}")
        partial.rename(arguments.folder)
    except (Refused, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
