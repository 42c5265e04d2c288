"""BAGEL's public code beside folders of Binade, whose layout is its checkpoint's:

  bagel_public.py names SOURCE COMMIT         prints tests/heads/flow/public_names.json
  bagel_public.py autoencoder SOURCE COMMIT   prints tests/heads/flow/public_autoencoder.json
  bagel_public.py compare SOURCE FOLDER

SOURCE is a checkout of ByteDance-Seed/Bagel. FOLDER is what the test [.bagel-public-write] wrote: a model
of each architecture, inputs, and what Binade makes of them. The public classes, made by the sizes of the
folder's configuration as the public inference program makes them, have the folder's names and shapes and no
others; they take its weights; and the public packer, training pass and inference program find what Binade
found. Then the public classes write a folder of their own, in BF16, for the test [.bagel-public-read]. The
autoencoder is compared with what tests/heads/flow/public_autoencoder.json says.

Widths and layers are tiny; patches, channels and position tables are those of BAGEL-7B-MoT. All of it runs in
FP32 on the CPU. FlashAttention is replaced by PyTorch's attention, the tokenizer by lists of ids, the VAE and
the transforms of images by latents and pixels that are given; packages for pictures and tables by nothing.
"""
import contextlib
import json
import pathlib
import sys
import tempfile
import types

import torch
from safetensors.torch import load_file, save_file
from transformers import modeling_utils  # noqa: F401  before the stand-ins: it asks what is installed

import engines as shared
from engines import TOLERANCE, Placeholders, difference, report, shapes
from goldens import plain
from hashed_weights import directions

ARCHITECTURES = {"dense": "Qwen2DecoderLayer", "moe": "Qwen2MoEDecoderLayer", "mot": "Qwen2MoTDecoderLayer"}
TABLES = {"latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed"}
# What the public inference program says itself, in no file.
VIT_SIDE, LATENT_PATCH, LATENT_SIDE, LATENT_CHANNELS, DOWNSAMPLE = 70, 2, 64, 16, 8
IDS = {"bos_token_id": 1, "eos_token_id": 2, "start_of_image": 3, "end_of_image": 4}

AUTOENCODER_GOLDEN = pathlib.Path(__file__).parents[2] / "tests/heads/flow/public_autoencoder.json"
# Of the autoencoder's; all else in it is FLUX's.
AUTOENCODER_CHANNELS = 32

# Tiny configurations with the keys of BAGEL-7B-MoT's files.
LLM = {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
       "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 48,
       "max_position_embeddings": 512, "max_window_layers": 2, "model_type": "qwen2",
       "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
       "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False,
       "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False, "vocab_size": 97}
VIT = {"hidden_size": 16, "image_size": 980, "intermediate_size": 40, "model_type": "siglip_vision_model",
       "num_attention_heads": 2, "num_hidden_layers": 3, "patch_size": 14}


# ---- what stands in for what the public code imports --------------------------------------------
def flash_attention(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal):
    """Each segment of queries (tokens, heads, size) against its keys; causal: aligned at their ends."""
    out = torch.empty_like(q)
    for i in range(len(cu_seqlens_q) - 1):
        queries = slice(cu_seqlens_q[i], cu_seqlens_q[i + 1])
        keys = slice(cu_seqlens_k[i], cu_seqlens_k[i + 1])
        a, b, c = (x.transpose(0, 1) for x in (q[queries], k[keys], v[keys]))
        b, c = (x.repeat_interleave(a.shape[0] // x.shape[0], 0) for x in (b, c))
        seen = torch.ones(a.shape[1], b.shape[1], dtype=torch.bool)
        seen = seen.tril(b.shape[1] - a.shape[1]) if causal else seen
        out[queries] = torch.nn.functional.scaled_dot_product_attention(a, b, c, seen).transpose(0, 1)
    return out


class Picture:
    """What the VAE and the ViT see of an image."""
    mode, info = "RGB", {}

    def __init__(self, latents, pixels):
        self.latents, self.pixels = latents, pixels
        self.size = (latents.shape[2] * DOWNSAMPLE, latents.shape[1] * DOWNSAMPLE)

    def convert(self, mode):
        return self


class Public:
    """The public code."""

    def __init__(self, source):
        for package in ("flash_attn", "PIL"):
            Placeholders(package, source, set())
        Placeholders("data", source, {"data.data_utils", "data.dataset_base"})
        import flash_attn
        import PIL
        flash_attn.flash_attn_varlen_func = flash_attention
        PIL.Image = types.SimpleNamespace(Image=Picture, fromarray=lambda values: values)
        sys.path.insert(0, str(source))
        import inferencer
        import modeling.bagel as classes
        import modeling.autoencoder as autoencoder
        import modeling.bagel.qwen2_navit as navit
        import data.data_utils
        import data.dataset_base
        navit.sdpa_kernel = lambda backends: contextlib.nullcontext()  # the one it wants is a GPU's
        self.classes, self.inferencer, self.vae = classes, inferencer, autoencoder
        self.utils, self.packing = sys.modules["data.data_utils"], sys.modules["data.dataset_base"]

    def model(self, folder, layer_module=None):
        """As the public inference program makes it of a folder. The layers are those that
        llm_config.json names, if it does: that program knows MoT's alone."""
        classes = self.classes
        llm = classes.Qwen2Config.from_json_file(folder / "llm_config.json")
        llm.qk_norm, llm.tie_word_embeddings = True, False
        llm.layer_module = layer_module or llm.layer_module
        vit = classes.SiglipVisionConfig.from_json_file(folder / "vit_config.json")
        vit.rope = False
        vit.num_hidden_layers -= 1
        llm._attn_implementation = vit._attn_implementation = "eager"  # no look for FlashAttention
        vae = types.SimpleNamespace(downsample=DOWNSAMPLE, z_channels=LATENT_CHANNELS)
        config = classes.BagelConfig(
            visual_gen=True, visual_und=True, llm_config=llm, vit_config=vit, vae_config=vae,
            vit_max_num_patch_per_side=VIT_SIDE, connector_act="gelu_pytorch_tanh",
            latent_patch_size=LATENT_PATCH, max_latent_size=LATENT_SIDE)
        model = classes.Bagel(classes.Qwen2ForCausalLM(llm), classes.SiglipVisionModel(vit), config)
        model.vit_model.vision_model.embeddings.convert_conv2d_to_linear(vit)
        return model.eval()


@contextlib.contextmanager
def replaced(module, **members):
    before = {name: getattr(module, name) for name in members}
    for name, value in members.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def in_fp32(noise):
    """The public code rounds to BF16 by name, and draws its noise here."""
    return replaced(torch, bfloat16=torch.float32, randn_like=lambda x: noise.view_as(x),
                    randn=lambda *sizes: noise.view(sizes))


# ---- what the public code computes --------------------------------------------------------------
def training_pass(public, model, parts, given):
    """The public packer and Bagel.forward on one sample: velocities at noised tokens, logits where
    there are labels, and both losses."""
    packer = public.packing.PackedDataset.__new__(public.packing.PackedDataset)
    packer.data_config = public.packing.DataConfig(
        [], 0, 0, 0, vae_image_downsample=DOWNSAMPLE * LATENT_PATCH, max_latent_size=LATENT_SIDE,
        vit_patch_size=model.vit_patch_size, max_num_patch_per_side=VIT_SIDE)
    packer.get_flattened_position_ids = public.utils.get_flattened_position_ids_extrapolate
    packer.use_flex = False
    vars(packer).update(IDS)
    plan, texts, images, latents = [], [], [], []
    for part in parts:
        kind = part["kind"]
        if kind == "text":
            texts.append(part["ids"])
        elif kind == "vit":
            images.append(given[part["image"]])
        else:
            latents.append(given[part["image"]])
            images.append(torch.zeros(3, *(DOWNSAMPLE * size for size in latents[-1].shape[1:])))
        plan.append({"type": "text" if kind == "text" else "vit_image" if kind == "vit" else "vae_image",
                     "enable_cfg": 0, "loss": int(part.get("loss", kind == "noise")),
                     "special_token_loss": 0, "special_token_label": None})
    status = packer.pack_sequence(
        {"sequence_plan": plan, "text_ids_list": texts, "image_tensor_list": images},
        packer.set_sequence_status())
    data = packer.to_tensor(status)
    for key in ("padded_images", "ce_loss_weights"):
        data.pop(key)
    # u, one a noised image, is Binade's.
    drawn = torch.isfinite(data["packed_timesteps"])
    data["packed_timesteps"] = data["packed_timesteps"].float().masked_scatter(drawn, given["u"])
    noise = torch.zeros(len(drawn), given["noise"].shape[-1])
    noise[drawn] = given["noise"]
    seen = {}
    hooks = [layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
             for name, layer in {"velocity": model.llm2vae, "logits": model.language_model.lm_head}.items()]
    model.train()
    with in_fp32(noise):
        losses = model(**data, padded_latent=latents)
    model.eval()
    for hook in hooks:
        hook.remove()
    return {"velocity": seen["velocity"], "logits": seen["logits"],
            "losses": torch.stack([losses["mse"].mean(), losses["ce"].mean()])}


class Given:
    """The stand-ins for tokenizer, transforms and VAE, for the public inference program."""

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return "<|im_start|>" + " ".join(str(int(one)) for one in ids[1:])

    def resize_transform(self, picture):
        return picture

    def __call__(self, picture):  # what the VAE reads: its size counts
        self.picture = picture
        return torch.zeros(3, *picture.size[::-1])

    def vae(self):
        def decoded(latents):
            self.drawn = latents[0]
            return torch.zeros(1, 3, 1, 1)
        return types.SimpleNamespace(encode=lambda images: [self.picture.latents], decode=decoded)


def inference(public, model, case, given):
    """The public inference program's drawing, or its answer."""
    stand_in = Given()
    program = public.inferencer.InterleaveInferencer(model, stand_in.vae(), stand_in, stand_in,
                                                     lambda picture: picture.pixels, IDS)
    context = [Picture(given[case["latents"]], given[case["pixels"]])] if "pixels" in case else []
    context.append(" ".join(map(str, case["ids"])))
    if case["kind"] == "answer":
        with in_fp32(None):
            (text,) = program.interleave_inference(context, understanding_output=True,
                                                   max_think_token_n=case["most"] + 1)
        return torch.tensor(stand_in.encode(text))
    with in_fp32(given["begin"]):
        program.interleave_inference(
            context, image_shapes=tuple(DOWNSAMPLE * size for size in case["size"]),
            cfg_text_scale=case["text_scale"], cfg_img_scale=case["image_scale"],
            cfg_interval=[case["low"], case["high"]], cfg_renorm_type=case["renorm"],
            cfg_renorm_min=case["least_renorm"], num_timesteps=case["points"], timestep_shift=case["shift"])
    return stand_in.drawn


def compute(public, model, cases, given):
    with torch.no_grad():
        results = training_pass(public, model, cases["sample"], given)
        for name, case in cases["inference"].items():
            results[name] = inference(public, model, case, given)
    return {name: values.contiguous() for name, values in results.items()}


def hashed(name, *shape):
    return torch.tensor(directions(name, torch.Size(shape).numel())).view(shape).float()


def autoencoder(public):
    """Names and shapes of the autoencoder's tensors, and what it makes of made-up weights."""
    model = public.vae.AutoEncoder(public.vae.AutoEncoderParams(
        resolution=256, in_channels=3, downsample=DOWNSAMPLE, ch=AUTOENCODER_CHANNELS, out_ch=3,
        ch_mult=[1, 2, 4, 4], num_res_blocks=2, z_channels=LATENT_CHANNELS, scale_factor=0.3611,
        shift_factor=0.1159))
    state = model.state_dict()
    model.load_state_dict({
        name: 1 + 0.2 * hashed(name, *values.shape) if "norm" in name and name.endswith("weight")
        else 0.1 * hashed(name, *values.shape) for name, values in state.items()})
    with torch.no_grad(), in_fp32(hashed("noise", 1, LATENT_CHANNELS, 2, 3)):
        return {"tensors": shapes(state.items()), "latents": model.encode(hashed("picture", 1, 3, 16, 24)),
                "picture": model.decode(hashed("latents", 1, LATENT_CHANNELS, 2, 3))}


# ---- comparing ----------------------------------------------------------------------------------
def mismatch(ours, theirs):
    missing, unknown = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
    other = sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])
    found = {"lacks": missing, "has beside": unknown, "shapes differ": other}
    return "; ".join(f"{what} {names}" for what, names in found.items() if names)


def compare_results(name, ours, theirs):
    for what, values in theirs.items():
        if values.dtype == torch.int64:
            same = ours[what].tolist() == values.tolist()
            report(f"{name}: {what}", "" if same else f"{ours[what].tolist()} and not {values.tolist()}")
        else:
            found = difference(ours[what], values)
            report(f"{name}: {what}", "" if found < TOLERANCE else f"differs by {found}")


def compare_autoencoder(public):
    golden, made = json.loads(AUTOENCODER_GOLDEN.read_text()), autoencoder(public)
    report("autoencoder: names and shapes", mismatch(golden.pop("tensors"), made.pop("tensors")))
    compare_results("autoencoder", {name: torch.tensor(golden[name]).view_as(values)
                                    for name, values in made.items()}, made)


def compare(public, folder):
    compare_autoencoder(public)
    cases = json.loads((folder / "cases.json").read_text())
    given = load_file(folder / "inputs.safetensors")
    for architecture, layer_module in ARCHITECTURES.items():
        ours, weights = folder / architecture, load_file(folder / architecture / "ema.safetensors")
        model = public.model(ours)
        chosen = model.config.llm_config.layer_module
        report(f"{architecture}: layers", "" if chosen == layer_module else f"the folder names {chosen}")
        state = model.state_dict()
        report(f"{architecture}: names and shapes", mismatch(shapes(weights.items()), shapes(state.items())))
        tables = max(difference(weights[name], state[name]) for name in TABLES)
        report(f"{architecture}: position tables", "" if tables < 1e-6 else f"differ by {tables}")
        model.load_state_dict(weights, strict=True)
        compare_results(architecture, load_file(folder / f"{architecture}.safetensors"),
                        compute(public, model, cases, given))
        write(public, model, folder, architecture, cases, given)


def write(public, model, folder, architecture, cases, given):
    """A folder as the public program reads them, of other weights, in BF16, and what it finds with
    them. Its tables are those that the classes make, as in the public training program."""
    generator = torch.Generator().manual_seed(len(architecture))
    state = {name: values if name in TABLES else
             (values + 0.1 * torch.randn(values.shape, generator=generator)).bfloat16().float()
             for name, values in model.state_dict().items()}
    model.load_state_dict(state)
    theirs = folder / f"public-{architecture}"
    theirs.mkdir()
    config = {"layer_module": ARCHITECTURES[architecture]} if architecture != "mot" else {}
    (theirs / "llm_config.json").write_text(json.dumps(LLM | config))
    (theirs / "vit_config.json").write_text(json.dumps(VIT))
    save_file({name: values.bfloat16().contiguous() for name, values in state.items()},
              theirs / "ema.safetensors")
    save_file(compute(public, model, cases, given), folder / f"public-{architecture}.safetensors")


def source_of(commit):
    return f"ByteDance-Seed/Bagel, commit {commit}"


def names(public, commit):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "llm_config.json").write_text(json.dumps(LLM))
        (folder / "vit_config.json").write_text(json.dumps(VIT))
        tensors = {architecture: shapes(public.model(folder, layer_module).state_dict().items())
                   for architecture, layer_module in ARCHITECTURES.items()}
    lines = [f"  \"source\": {json.dumps(source_of(commit))}",
             f"  \"llm_config\": {json.dumps(LLM)}", f"  \"vit_config\": {json.dumps(VIT)}"]
    for architecture, named in tensors.items():
        inner = ",\n".join(f"    {json.dumps(name)}: {json.dumps(shape)}" for name, shape in named.items())
        lines.append(f"  \"{architecture}\": {{\n{inner}\n  }}")
    print("{\n" + ",\n".join(lines) + "\n}")


def main():
    public = Public(pathlib.Path(sys.argv[2]).resolve())
    if sys.argv[1] == "names":
        return names(public, sys.argv[3])
    if sys.argv[1] == "autoencoder":
        made = plain({"source": source_of(sys.argv[3]), **autoencoder(public)})
        return print("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}"
                                         for key, value in made.items()) + "\n}")
    compare(public, pathlib.Path(sys.argv[3]))
    sys.exit(shared.failures > 0)


if __name__ == "__main__":
    main()
