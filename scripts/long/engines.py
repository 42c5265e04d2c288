"""What comparisons with the classes of serving engines share: a report, and modules that stand in for
what the engines' sources import."""
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

import torch
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
    return module


class Placeholders(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Of a package: the modules in `real` are the engine's own, all others are empty, and every name
    that is imported from one is an empty class."""

    def __init__(self, package, source, real):
        self.package, self.source, self.real = package, source, real
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != self.package:
            return None
        if name in self.real:
            file = self.source / (name.replace(".", "/") + ".py")
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)

        def member(key):
            if key.startswith("__"):
                raise AttributeError(key)
            return type(key, (), {})

        module.__getattr__ = member
        return module

    def exec_module(self, module):
        pass


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def default_weight_loader(parameter, values):
    if parameter.shape != values.shape:
        raise ValueError(f"{tuple(values.shape)} for a parameter {tuple(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(values)


class ParallelLMHead(nn.Module):
    """On one device and without padding it is a weight."""

    def __init__(self, rows, dim, *_, **__):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, dim))


def randomise(module, generator):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def shapes(parameters):
    return {name: list(values.shape) for name, values in parameters}


def difference(a, b):
    assert a.shape == b.shape, f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    return ((a - b).abs().max() / b.abs().max()).item()
