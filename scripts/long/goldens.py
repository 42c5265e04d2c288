"""How scripts write PyTorch's values for tests: JSON, a case a line."""
import json

import torch


def plain(value):
    """-> tensors as lists of numbers that f32 holds, in dicts and lists."""
    if isinstance(value, torch.Tensor):
        return [float(f"{one:.9g}") for one in value.detach().flatten().tolist()]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def write(path, cases):
    with open(path, "w") as file:
        file.write('{"torch": "%s", "cases": [\n' % torch.__version__.split("+")[0])
        file.write(",\n".join(json.dumps(plain(case), separators=(",", ":")) for case in cases))
        file.write("\n]}\n")
