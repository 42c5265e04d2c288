#!/usr/bin/env python3
"""Writes PyTorch's values of small GRUs and LSTMs, the goldens of tests/nn/recurrent_test.cpp.

    python scripts/long/recurrent_cases.py tests/nn/torch_recurrent.json
"""
import sys

import goldens
import torch


def run(kind, bias):
    torch.manual_seed(5)
    layer = (torch.nn.GRU if kind == "gru" else torch.nn.LSTM)(
        3, 4, num_layers=2, bias=bias, batch_first=True).double()
    x = torch.randn(2, 5, 3, dtype=torch.double, requires_grad=True)
    hidden, cell = (torch.randn(2, 2, 4, dtype=torch.double) for _ in range(2))
    with torch.no_grad():  # values that f32 holds
        for value in (*layer.parameters(), x, hidden, cell):
            value.copy_(value.float())
    if kind == "gru":
        outputs, last = layer(x, hidden)
        last = [last]
    else:
        outputs, last = layer(x, (hidden, cell))
    places = torch.arange(outputs.numel(), dtype=torch.double).reshape(outputs.shape)
    loss = (outputs * places / 40).sum() + sum((one * one).sum() for one in last)
    loss.backward()
    return {"kind": kind, "bias": bias, "x": x, "hidden": hidden, "cell": cell,
            "outputs": outputs, "last": list(last), "x_grad": x.grad,
            "state": {name: {"shape": list(value.shape), "values": value, "grad": value.grad}
                      for name, value in layer.named_parameters()}}


cases = [run(*case) for case in (("gru", True), ("lstm", True), ("lstm", False))]
goldens.write(sys.argv[1], cases)
