"""Compares Binade with PyTorch's operator database (OpInfo), values and gradients; in f64 also the
gradients of gradients.

  opinfo.py make FOLDER --program BINARY --dtype f32 [--device cuda] [--autocast bf16] [--few]
  opinfo.py compare FOLDER --listed differences.json
  opinfo.py total FOLDER                              adds up the comparisons of FOLDER/*

`make` draws samples of the ops that the program has a row for, runs PyTorch on them in the dtype and,
from the same rounded inputs, in f64. `compare` reads what the program made of them. A number matches
if it is no further from the f64 result than 2 units in the last place and three times PyTorch's own
largest error in that tensor; NaN and infinities must stand where PyTorch has them.
"""
import argparse
import collections
import json
import math
import pathlib
import subprocess
import sys
import warnings

import numpy
import torch

from tensor_files import NAMES, read_safetensors, write_safetensors

DTYPES = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Mantissa bits and the smallest exponent of a normal number.
PRECISION = {"F64": (52, -1022), "F32": (23, -126), "F16": (10, -14), "BF16": (7, -126)}
MOST_DIMENSIONS = 8      # binade::kMaxDims
MOST_ELEMENTS = 1 << 14  # of a tensor in a sample: larger ones show nothing that smaller ones do not
MOST_SAMPLES = 1500      # of one op in one dtype


# ---- making samples ------------------------------------------------------------------------------

class Unsupported(Exception):
    """An argument that no row could read."""


def describe(value, sample_id, tensors, leaves):
    if isinstance(value, torch.Tensor):
        if value.dtype not in NAMES or value.layout != torch.strided:
            raise Unsupported(f"a tensor of {value.dtype}, {value.layout}")
        if value.dim() > MOST_DIMENSIONS:
            raise Unsupported("too many dimensions")
        if value.numel() > MOST_ELEMENTS:
            raise Unsupported("too large")
        for name, leaf in leaves.items():
            if leaf is value:
                return {"tensor": name, "requires_grad": value.requires_grad}
        name = f"{sample_id}.in.{len(leaves)}"
        leaves[name] = value
        tensors[name] = value
        return {"tensor": name, "requires_grad": value.requires_grad}
    if isinstance(value, (list, tuple)):
        return [describe(item, sample_id, tensors, leaves) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if isinstance(value, (torch.memory_format, torch.dtype, torch.device)):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return {"unknown": str(value)}


def mapped(value, change):
    if isinstance(value, (torch.Tensor, torch.dtype)):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    return value


def second_gradients(gradients, leaves, seeds):
    """The gradients of the leaves' gradients, times seeds, by the leaves; None where there is none or
    PyTorch has none."""
    reached = [i for i, gradient in enumerate(gradients)
               if gradient is not None and gradient.requires_grad]
    for i in reached:
        seeds[i] = torch.randn(gradients[i].shape).bfloat16().to(gradients[i])
    if not reached:
        return [None] * len(leaves)
    try:
        return torch.autograd.grad([gradients[i] for i in reached], leaves,
                                   [seeds[i] for i in reached], allow_unused=True)
    except (RuntimeError, NotImplementedError):
        seeds.clear()
        return [None] * len(leaves)


def outputs_and_gradients(op, sample, seeds, autocast, wide, second_seeds=None):
    """The op's outputs and the gradients of the sample's leaves (by their place), in the sample's
    dtypes or (`wide`) from the same numbers in f64; with second_seeds the gradients' gradients, too."""
    copies = []

    def copy(tensor):
        if isinstance(tensor, torch.dtype):  # what a sample asks its result to be
            return torch.float64 if wide and tensor.is_floating_point else tensor
        for original, twin in copies:
            if original is tensor:
                return twin
        dtype = torch.float64 if wide and tensor.is_floating_point() else tensor.dtype
        twin = tensor.detach().to(dtype, copy=True)  # running statistics are written
        copies.append((tensor, twin.requires_grad_(tensor.requires_grad)))
        return twin

    call = (mapped(sample.input, copy), mapped(sample.args, copy), mapped(sample.kwargs, copy))
    with torch.autocast(autocast[0], autocast[1], enabled=not wide) if autocast else \
            torch.enable_grad():
        result = op(call[0], *call[1], **call[2])
    result = [item for item in (result if isinstance(result, (list, tuple)) else [result])
              if isinstance(item, torch.Tensor)]
    reached = [i for i, item in enumerate(result) if item.requires_grad and item.is_floating_point()]
    for i in reached:
        if i not in seeds:  # exact in every dtype
            seeds[i] = torch.randn(result[i].shape).bfloat16().float()
    gradients, seconds = [None] * len(copies), [None] * len(copies)
    wanted = [i for i, (_, twin) in enumerate(copies) if twin.requires_grad]
    if reached and wanted:
        leaves = [copies[i][1] for i in wanted]
        found = torch.autograd.grad([result[i] for i in reached], leaves,
                                    [seeds[i].to(result[i]) for i in reached], allow_unused=True,
                                    create_graph=second_seeds is not None)
        for i, gradient in zip(wanted, found):
            gradients[i] = None if gradient is None else gradient.detach()
        if second_seeds is not None:
            by_place = {}
            for i, second in zip(wanted, second_gradients(found, leaves, by_place)):
                seconds[i] = second
            second_seeds.update({wanted[i]: seed for i, seed in by_place.items()})
    return [item.detach() for item in result], copies, gradients, seconds


def drawn(op, device, dtype, with_grad):
    """OpInfo's ordinary samples and, where there are any, those that compare with NumPy."""
    samples = list(op.sample_inputs(device, dtype, requires_grad=with_grad))
    if op.reference_inputs_func is not None:
        try:
            samples += op.reference_inputs(device, dtype, requires_grad=with_grad)
        except ValueError:  # some draw integers, too, and ask for their gradient
            samples += op.reference_inputs(device, dtype, requires_grad=False)
    return samples[:MOST_SAMPLES]


def traits(value, place):
    """What a sample shows of an argument: options by their value, numbers by their type and sign,
    tensors by dtype, number of dimensions, emptiness and layout."""
    if isinstance(value, torch.Tensor):
        yield (place, str(value.dtype), value.dim(), value.numel() == 0, value.is_contiguous(),
               value.requires_grad)
    elif isinstance(value, (list, tuple)):
        yield place, len(value)
        for item in value:
            yield from traits(item, (place, "item"))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place, type(value).__name__, value > 0, value < 0
    else:
        yield place, str(value)


def few_of(samples):
    """The first samples that show something new of the op: each option, value of an option, dtype,
    number of dimensions and layout is in one of them."""
    seen, chosen = set(), []
    for sample in samples:
        shown = {trait for place, value in [*enumerate((sample.input, *sample.args)),
                                            *sample.kwargs.items()]
                 for trait in traits(value, place)}
        if not shown <= seen:
            chosen.append(sample)
        seen |= shown
    return chosen


def make(args):
    from torch.testing._internal.common_methods_invocations import op_db
    offered = subprocess.run([args.program, "--ops"], check=True, capture_output=True,
                             text=True).stdout.split()
    dtype, folder = DTYPES[args.dtype], pathlib.Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "results.safetensors", "counts.json"):  # of other samples
        (folder / name).unlink(missing_ok=True)
    autocast = (args.device, DTYPES[args.autocast]) if args.autocast else None
    descriptions, tensors, expected, skipped = [], {}, {}, collections.Counter()
    missing = set(offered) - {op.name for op in op_db}
    if missing:
        sys.exit(f"PyTorch {torch.__version__} has no OpInfo {', '.join(sorted(missing))}")
    for op in op_db:
        if op.name not in offered or not op.supports_dtype(dtype, args.device):
            continue
        torch.manual_seed(1)
        numpy.random.seed(1)
        with_grad = op.supports_autograd and dtype in op.supported_backward_dtypes(args.device)
        samples = drawn(op, args.device, dtype, with_grad)
        for sample in few_of(samples) if args.few else samples:
            sample_id = len(descriptions)
            own, leaves, seeds = {}, {}, {}
            second_seeds = {} if args.dtype == "f64" else None
            try:
                description = {
                    "id": sample_id, "op": op.name, "variant": op.variant_test_name,
                    "args": [describe(value, sample_id, own, leaves)
                             for value in (sample.input, *sample.args)],
                    "kwargs": {key: describe(value, sample_id, own, leaves)
                               for key, value in sample.kwargs.items()}}
                given, copies, gradients, seconds = outputs_and_gradients(
                    op, sample, seeds, autocast, False, second_seeds)
                exact, _, true_gradients, _ = outputs_and_gradients(op, sample, seeds, autocast, True)
            except (Unsupported, RuntimeError, NotImplementedError, ValueError, TypeError) as error:
                skipped[f"{op.name}: {str(error).splitlines()[0][:60]}"] += 1
                continue
            names = {id(leaf): name for name, leaf in leaves.items()}
            for i, (value, truth) in enumerate(zip(given, exact)):
                if value.dtype not in NAMES:
                    continue
                expected[f"{sample_id}.out.{i}"] = value
                expected[f"{sample_id}.true.{i}"] = truth
            for (leaf, _), gradient, truth in zip(copies, gradients, true_gradients):
                if gradient is not None:
                    name = names[id(leaf)]
                    expected[f"{sample_id}.grad.{name}"] = gradient
                    expected[f"{sample_id}.truegrad.{name}"] = truth
            for (leaf, _), second in zip(copies, seconds):
                if second is not None:  # in f64, where there is no truer one
                    for kind in ("second", "truesecond"):
                        expected[f"{sample_id}.{kind}.{names[id(leaf)]}"] = second
            for i, seed in seeds.items():
                own[f"{sample_id}.seed.{i}"] = seed
            for i, seed in (second_seeds or {}).items():
                own[f"{sample_id}.secondseed.{names[id(copies[i][0])]}"] = seed
            tensors.update({name: tensor.detach() for name, tensor in own.items()})
            descriptions.append(description)
    write_safetensors(folder / "samples.safetensors", tensors)
    write_safetensors(folder / "expected.safetensors", expected)
    (folder / "samples.json").write_text(json.dumps(descriptions))
    (folder / "made.json").write_text(json.dumps(
        {"torch": torch.__version__, "dtype": args.dtype, "device": args.device,
         "autocast": args.autocast or "", "skipped": skipped}))
    print(f"{len(descriptions)} samples in {args.dtype}; {sum(skipped.values())} that PyTorch "
          "refuses or that are too large")


# ---- comparing -----------------------------------------------------------------------------------

def ulps(values, dtype):
    bits, lowest = PRECISION[dtype]
    with numpy.errstate(divide="ignore", invalid="ignore"):
        exponent = numpy.floor(numpy.log2(numpy.abs(values)))
    exponent = numpy.where(numpy.isfinite(exponent), numpy.maximum(exponent, lowest), lowest)
    return numpy.exp2(exponent - bits)


def difference(ours, theirs, truth):
    """Why `ours` does not match and by how many ulps of its largest number (inf where that
    says nothing), or None. Each argument is (dtype, values)."""
    if ours[1].shape != theirs[1].shape:
        return f"shape {ours[1].shape}, PyTorch's {theirs[1].shape}", math.inf
    a, b, exact = ours[1], theirs[1], truth[1]
    if theirs[0] not in PRECISION:
        wrong = a != b
        return (f"{int(wrong.sum())} elements differ", math.inf) if wrong.any() else None
    if ours[0] not in PRECISION:
        return f"dtype {ours[0]}, PyTorch's {theirs[0]}", math.inf
    nan, infinite = numpy.isnan(a) != numpy.isnan(b), numpy.isinf(a) | numpy.isinf(b)
    infinite &= ~numpy.isnan(a) & ~numpy.isnan(b) & (a != b)
    if nan.any() or infinite.any():
        wrong = nan | infinite
        limit = torch.finfo(next(key for key, name in NAMES.items() if name == theirs[0])).max
        exact = numpy.where(numpy.abs(exact) > limit, numpy.copysign(numpy.inf, exact), exact)
        with numpy.errstate(invalid="ignore"):
            near = (a == exact) | (numpy.abs(a - exact) <= 2 * ulps(exact, theirs[0]))
        as_exact = (numpy.isnan(a) & numpy.isnan(exact) | near)[wrong].all()
        what = f"{int(nan.sum())} NaN and {int(infinite.sum())} infinities of {a.size} differ"
        return what + (", ours are those of f64" if as_exact else ""), math.inf
    finite = numpy.isfinite(a) & numpy.isfinite(b) & numpy.isfinite(exact)
    if not finite.any():
        return None
    a, b, exact = a[finite], b[finite], exact[finite]
    # The coarser of the two results sets the unit: a loss of f32 may be compared with one of f16.
    coarser = min(ours[0], theirs[0], key=lambda name: PRECISION[name][0])
    allowed = 2 * ulps(exact, coarser) + 3 * numpy.abs(b - exact).max()
    if theirs[0] == "F64":  # there is no truer result: another order of sums must pass
        allowed = allowed + 64 * ulps(numpy.abs(exact).max(), "F64") + 1e-13 * numpy.abs(exact)
    off = numpy.abs(a - exact)
    worst = int(numpy.argmax(off / allowed))
    if off[worst] <= allowed[worst]:
        return None
    unit = ulps(exact, coarser)[worst]
    of_largest = numpy.max(off) / ulps(numpy.abs(exact).max(), coarser)
    return (f"{a[worst]:.6g}, exactly {exact[worst]:.6g}: {off[worst] / unit:.1f} ulp, PyTorch "
            f"{abs(b[worst] - exact[worst]) / unit:.1f}"), of_largest


def summary(sample):
    def show(value):
        if isinstance(value, dict):
            return value.get("tensor", "?").split(".")[-1] if "tensor" in value else "?"
        return str(value)
    return ", ".join([show(value) for value in sample["args"]] +
                     [f"{key}={show(value)}" for key, value in sample["kwargs"].items()])


def only_ties(sample, results, expected, inputs):
    """Whether what differs of a sort or topk is only another choice among equal numbers: the values
    are PyTorch's, each index points at its value, of equal numbers the first comes first, and the
    gradient of a value goes to where the index points."""
    def of(tensors, name):
        return tensors.get(f"{sample['id']}.{name}", ("", None))[1]
    x_name = sample["args"][0]["tensor"]
    place = {"sort": 1, "topk": 2}[sample["op"]]
    dim = sample["args"][place] if place < len(sample["args"]) else sample["kwargs"].get("dim", -1)
    x, values, indices = inputs[x_name][1], of(results, "out.0"), of(results, "out.1")
    if values is None or indices is None or values.shape != indices.shape:
        return False
    indices = indices.astype(int)
    if not ((0 <= indices) & (indices < x.shape[dim])).all():
        return False
    for wanted in (of(expected, "out.0"), numpy.take_along_axis(x, indices, dim)):
        if not numpy.array_equal(values, wanted, equal_nan=True):
            return False
    values, places = numpy.moveaxis(values, dim, -1), numpy.moveaxis(indices, dim, -1)
    before, after = values[..., :-1], values[..., 1:]
    equal = (before == after) | (numpy.isnan(before) & numpy.isnan(after))
    if (equal & (places[..., :-1] >= places[..., 1:])).any():
        return False
    seed, gradient = of(inputs, "seed.0"), of(results, f"grad.{x_name}")
    if seed is None or gradient is None:  # none was asked for
        return seed is None and gradient is None
    sent = numpy.zeros_like(x)
    numpy.put_along_axis(sent, indices, seed, dim)
    return numpy.array_equal(sent, gradient)


def reason_for(entry_list, sample, what, dtype, setting, message, off, tie):
    """The reason of the first entry that the difference meets. An entry names op, what (refused,
    value, gradient or second gradient) and a part of the message; it may be held to dtypes, to a
    setting ("cpu", "cuda autocast"), to samples with or without an argument, to so many ulps of the
    tensor's largest number, or ("ties") to samples of which tie() says that only another choice
    among equal numbers was made."""
    for entry in entry_list:
        if (entry["op"] == sample["op"] and entry["what"] == what and
                off <= entry.get("ulps", math.inf) and
                entry.get("with", "") in summary(sample) and
                entry.get("without", "\n") not in summary(sample) and
                dtype in entry.get("dtypes", list(DTYPES)) and
                entry.get("setting", setting) == setting and entry["message"] in message and
                (not entry.get("ties") or tie())):
            return entry["reason"]
    return None


def compare(args):
    folder = pathlib.Path(args.folder)
    made = json.loads((folder / "made.json").read_text())
    samples = json.loads((folder / "samples.json").read_text())
    states = json.loads((folder / "results.json").read_text())
    expected = read_safetensors(folder / "expected.safetensors")
    results = read_safetensors(folder / "results.safetensors")
    inputs = read_safetensors(folder / "samples.safetensors")
    listed = json.loads(pathlib.Path(args.listed).read_text())["differences"]
    if not all(entry["message"] and entry["reason"] for entry in listed):
        sys.exit(f"{args.listed}: an entry needs a message that it is met by, and a reason")
    setting = made["device"] + (" autocast" if made["autocast"] else "")
    counts, not_offered, unlisted = collections.Counter(), collections.Counter(), []
    reasons = collections.Counter()
    by_sample = collections.defaultdict(list)
    for name in expected:
        sample_id, kind, rest = name.split(".", 2)
        if kind in ("out", "grad", "second"):
            by_sample[sample_id].append((kind, rest))
    for sample in samples:
        sample_id = str(sample["id"])
        state = states[sample_id]
        if state["state"] == "not offered":
            counts["not offered"] += 1
            not_offered[f"{sample['op']}: {state['message']}"] += 1
            continue
        counts["run"] += 1
        differences = []
        if state["state"] == "refused":
            differences.append(("refused", state["message"], math.inf))
        else:
            for kind, rest in by_sample[sample_id]:
                if kind == "second" and "once" in state:
                    continue
                theirs = expected[f"{sample_id}.{kind}.{rest}"]
                truth = expected[f"{sample_id}.true{'' if kind == 'out' else kind}.{rest}"]
                ours = results.get(f"{sample_id}.{kind}.{rest}")
                if ours is None and kind == "out":
                    differences.append(("value", f"output {rest} is missing", math.inf))
                    continue
                if ours is None:  # nothing flowed there
                    ours = theirs[0], numpy.zeros_like(theirs[1])
                why = difference(ours, theirs, truth)
                if why:
                    what = {"out": "value", "grad": "gradient", "second": "second gradient"}[kind]
                    differences.append((what, *why))
        counts["once"] += "once" in state
        if not differences:
            counts["matched"] += 1
            continue
        unexplained = []
        for what, why, off in differences:
            reason = reason_for(listed, sample, what, made["dtype"], setting, why, off,
                                lambda: only_ties(sample, results, expected, inputs))
            if reason is None:
                unexplained.append((what, why))
            else:
                reasons[f"{sample['op']}: {reason}"] += 1
        if unexplained:
            counts["different"] += 1
            unlisted.append((sample, unexplained))
        else:
            counts["listed"] += 1
    title = made["dtype"] + " on " + made["device"] + \
        (f" under autocast to {made['autocast']}" if made["autocast"] else "")
    print(f"{title} (PyTorch {made['torch']}): {counts['run']} run, {counts['matched']} matched, "
          f"{counts['listed']} listed, {counts['different']} different; {counts['not offered']} not "
          f"offered; {counts['once']} without a second gradient")
    if args.verbose:
        for what, count in sorted(not_offered.items()):
            print(f"  not offered {count:5d}  {what}")
        for what, count in sorted(reasons.items()):
            print(f"  listed {count:5d}  {what}")
    shown = collections.Counter()
    for sample, differences in unlisted:
        shown[sample["op"]] += 1
        if shown[sample["op"]] > args.most:
            continue
        for what, why in differences:
            print(f"  DIFFERENT {sample['op']}({summary(sample)}) #{sample['id']} {what}: {why}")
    for op, count in sorted(shown.items()):
        print(f"  {count:5d} of {op}")
    (folder / "counts.json").write_text(json.dumps(counts))
    return 1 if unlisted else 0


def total(args):
    counts, folders = collections.Counter(), sorted(pathlib.Path(args.folder).glob("*/counts.json"))
    for path in folders:
        counts.update(json.loads(path.read_text()))
    print(f"{len(folders)} comparisons: {counts['run']} samples run, {counts['matched']} matched, "
          f"{counts['listed']} listed, {counts['different']} different; {counts['not offered']} not "
          "offered")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make")
    making.add_argument("folder")
    making.add_argument("--program", required=True, help="binade_opinfo")
    making.add_argument("--dtype", required=True, choices=DTYPES)
    making.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    making.add_argument("--autocast", choices=["f16", "bf16"])
    making.add_argument("--few", action="store_true",
                        help="only the samples that show an option, dtype or layout first")
    making.set_defaults(run=make)
    comparing = commands.add_parser("compare")
    comparing.add_argument("folder")
    comparing.add_argument("--listed", required=True, help="the differences that have a reason")
    comparing.add_argument("--most", type=int, default=3, help="differences to print of an op")
    comparing.add_argument("--verbose", action="store_true")
    comparing.set_defaults(run=compare)
    adding = commands.add_parser("total")
    adding.add_argument("folder")
    adding.set_defaults(run=total)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.exit(args.run(args) or 0)


if __name__ == "__main__":
    main()
