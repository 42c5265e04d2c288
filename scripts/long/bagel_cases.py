#!/usr/bin/env python3
"""Writes what the peer of the small unified model computes, the golden of tests/heads/flow/peer_test.cpp.

    python scripts/long/bagel_cases.py ../shared/peers/torch_bagel_small.py tests/heads/flow/torch_bagel.json
"""
import importlib.util
import sys

import goldens
import numpy as np
import torch
from hashed_weights import directions

CONFIG = dict(d=16, layers=2, heads=4, kv=2, ff=24, vit=32, vit_layers=1)


def our_names(peer):
    """The name that Binade has for a parameter of the peer; three for a fused one."""
    parts = peer.split(".")
    suffix = "_moe_gen" if "gen" in parts else ""
    last = parts[-1]
    if parts[0] == "blocks":
        layer = f"language_model.model.layers.{parts[1]}."
        if parts[2] == "mlp":
            return [f"{layer}mlp{suffix}.{parts[4]}_proj.{last}"]
        names = dict(n1="input_layernorm", n2="post_attention_layernorm", q="self_attn.q_proj", k="self_attn.k_proj",
                     v="self_attn.v_proj", o="self_attn.o_proj", qn="self_attn.q_norm", kn="self_attn.k_norm")
        return [f"{layer}{names[parts[2]]}{suffix}.{last}"]
    if parts[0] == "norm":
        return [f"language_model.model.norm{suffix}.{last}"]
    vision = "vit_model.vision_model."
    if parts[:2] == ["vit", "layers"]:
        layer = f"{vision}encoder.layers.{parts[2]}."
        if parts[3] == "1":
            return [f"{layer}self_attn.{x}_proj.{last}" for x in "qkv"]
        names = {"0": "layer_norm1", "2": "self_attn.out_proj", "3": "layer_norm2", "4": "mlp.fc1", "5": "mlp.fc2"}
        return [f"{layer}{names[parts[3]]}.{last}"]
    names = {"embed": "language_model.model.embed_tokens", "head": "language_model.lm_head", "time.0": "time_embedder.mlp.0",
             "time.2": "time_embedder.mlp.2", "vae2llm": "vae2llm", "llm2vae": "llm2vae",
             "vit.patch": vision + "embeddings.patch_embedding", "vit.pos": vision + "embeddings.position_embedding",
             "vit.post": vision + "post_layernorm", "vit.fc1": "connector.fc1", "vit.fc2": "connector.fc2"}
    return [f"{names['.'.join(parts[:-1])]}.{last}"]


def values(name, shape):
    x = np.array(directions(name, int(np.prod(shape)))).reshape(shape)
    is_norm = "norm" in name and name.endswith("weight")
    return (1 + .2 * x if is_norm else .2 * x).astype(np.float32)


def main():
    spec = importlib.util.spec_from_file_location("peer", sys.argv[1])
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    torch.set_num_threads(1)
    model = peer.Bagel(CONFIG, "mot")
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, p in named.items():
            ours = our_names(name)
            shape = (p.shape[0] // len(ours), *p.shape[1:])
            p.copy_(torch.from_numpy(np.concatenate([values(one, shape) for one in ours])))

    def image(name):
        return np.array(directions(name, 3 * 8 * 8), np.float32).reshape(3, 8, 8)
    samples = [
        [("text", [7, 9], 0, 0), ("noise", image("first"), 1, 0)],
        [("vae", image("second"), 0, 0), ("vit", image("second"), 0, 0), ("text", [8], 0, 0), ("text", [5, 6], 1, 0),
         ("text", [12], 0, 0), ("noise", image("first"), 1, 0)]]
    pack = peer.Pack(1, *(sum(peer.need(s) for s in samples) + 2))
    for s in samples:
        pack.put(0, s, np.random.default_rng(0))
    b = pack.tensors()
    b["u"] = torch.where(b["noisy"], torch.tensor(.3), torch.tensor(-float("inf")))
    noise = torch.from_numpy(np.array(directions("noise", b["clean"].numel()), np.float32).reshape(b["clean"].shape))
    mse, ce = model.losses(b, noise)
    (mse + .25 * ce).backward()
    t = torch.sigmoid(b["u"])
    with torch.no_grad():
        und, gen = model(b, torch.lerp(b["clean"], noise, t[..., None]), t)
        logits, velocity = model.head(und), model.llm2vae(gen)
    gradients = {}
    for name, p in named.items():
        ours = our_names(name)
        for one, g in zip(ours, p.grad.chunk(len(ours))):  # a projection of each gradient
            gradients[one] = float((g.double().flatten() * torch.tensor(directions(one + "/probe", g.numel()))).sum())
    goldens.write(sys.argv[2], [{"mse": mse, "ce": ce, "slots": b["meta"], "positions": b["rope"], "logits": logits,
                                "velocity": velocity, "gradients": gradients}])


if __name__ == "__main__":
    main()
