#!/usr/bin/env python3
"""Writes what PyTorch makes of two trainings with a gradient penalty, the goldens of
tests/nn/gradient_penalty_test.cpp.

    python scripts/long/penalty_cases.py tests/nn/torch_penalties.json
"""
import sys

import goldens
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

STEPS = 8


class ConvCritic(nn.Module):
    """8×8 images of one channel → a number each."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm1 = nn.GroupNorm(2, 4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.norm2 = nn.LayerNorm(6 * 2 * 2)
        self.out = nn.Linear(6 * 2 * 2, 1)

    def forward(self, x):
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.2)
        x = F.silu(self.norm2(self.conv2(x).flatten(1)))
        return self.out(x)


class AttentionJudge(nn.Module):
    """Sequences of 5 tokens of 3 numbers → a logit each."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.norm = nn.LayerNorm(8)
        self.q, self.v, self.o = (nn.Linear(8, 8) for _ in range(3))
        self.k = nn.Linear(8, 8, bias=False)  # its gradient would be 0, and Adam divide noise by noise
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        x = self.embed(x)
        normed = self.norm(x)
        heads = [layer(normed).view(-1, 5, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v)]
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(-1, 5, 8))
        x = x + self.down(F.gelu(self.up(x), approximate="tanh"))
        return self.out(x.mean(1))


def wgan_gp(critic, step, inputs):
    """Gulrajani et al. 2017."""
    real, made, mix = (inputs[name][step] for name in ("real", "made", "mix"))
    between = (mix.view(-1, 1, 1, 1) * real + (1 - mix.view(-1, 1, 1, 1)) * made).requires_grad_()
    gradient, = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return critic(made).mean() - critic(real).mean() + 10 * penalty, penalty


def r1(judge, step, inputs):
    """Mescheder et al. 2018."""
    real, made = inputs["real"][step].clone().requires_grad_(), inputs["made"][step]
    logits = judge(real)
    gradient, = torch.autograd.grad(logits.sum(), real, create_graph=True)
    penalty = gradient.square().sum((1, 2)).mean()
    loss = F.softplus(-logits).mean() + F.softplus(judge(made)).mean() + 5 * penalty
    return loss, penalty


def train(name, network, loss_of, inputs):
    start = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0)
    losses, penalties, first = [], [], None
    for step in range(STEPS):
        optimizer.zero_grad()
        loss, penalty = loss_of(network, step, inputs)
        loss.backward()
        first = first or {key: value.grad.clone() for key, value in network.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
        penalties.append(penalty.item())
    return {"name": name, "inputs": inputs, "losses": losses, "penalties": penalties,
            "state": {key: {"shape": list(value.shape), "values": value, "grad": first[key],
                            "after": network.state_dict()[key]}
                      for key, value in start.items()}}


torch.manual_seed(4)
images = {"real": torch.rand(STEPS, 3, 1, 8, 8), "made": torch.randn(STEPS, 3, 1, 8, 8),
          "mix": torch.rand(STEPS, 3)}
sequences = {"real": torch.randn(STEPS, 4, 5, 3), "made": torch.rand(STEPS, 4, 5, 3)}
with sdpa_kernel(SDPBackend.MATH):  # the others' gradients have no gradient
    cases = [train("wgan-gp", ConvCritic(), wgan_gp, images),
             train("r1", AttentionJudge(), r1, sequences)]
goldens.write(sys.argv[1], cases)
