"""Compares ranking losses and their gradients with Rax's, in double precision, on random lists.

Usage: compare_rank_losses.py --program PROGRAM [--lists N]

PROGRAM is binade_rank_losses. What Rax defines otherwise is brought into line here and said so.
"""
import argparse
import functools
import json
import subprocess
import sys

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import rax  # noqa: E402


def shares(labels, where=None):
    return labels / jnp.sum(labels)


def softmax_of_labels(labels, where=None):
    return jax.nn.softmax(labels)


def pairs(loss, **options):
    """Sums over pairs: Rax's mean divides by their number, ours by the sum of their weights."""
    return lambda s, y, w: loss(s, y, weights=w, reduce_fn=jnp.sum, **options)


def lambdas(weight):
    """Rax multiplies these weights by the length of the list, and lets document weights into gains."""

    def loss(s, y, w):
        frozen = jax.lax.stop_gradient(weight(s, y, normalize=True)) / len(s)
        return rax.pairwise_logistic_loss(s, y, weights=w, reduce_fn=jnp.sum,
                                          lambdaweight_fn=lambda *_, **__: frozen)

    return loss


def approximate(metric, temperature):
    ranks = functools.partial(rax.utils.approx_ranks, step_fn=lambda x: jax.nn.sigmoid(x / temperature))
    return lambda s, y, w: 1 - metric(s, y, rank_fn=ranks)


# Name, Rax's loss of (scores, labels, weights), and what labels and weights it is compared on.
CASES = [
    ("mse:reduction=sum", lambda s, y, w: rax.pointwise_mse_loss(s, y, weights=w, reduce_fn=jnp.sum), "weights"),
    ("bce:reduction=sum", lambda s, y, w: rax.pointwise_sigmoid_loss(s, y, weights=w, reduce_fn=jnp.sum),
     "weights binary"),
    ("ranknet:reduction=sum", pairs(rax.pairwise_logistic_loss), "weights"),
    ("hinge:reduction=sum", pairs(rax.pairwise_hinge_loss), "weights"),
    ("soft01:reduction=sum", pairs(rax.pairwise_soft_zero_one_loss), "weights"),
    ("pairwise-mse:reduction=sum", pairs(rax.pairwise_mse_loss), "weights"),
    ("lambdarank", lambdas(rax.dcg_lambdaweight), "weights"),
    ("ndcg-loss2", lambdas(rax.dcg2_lambdaweight), "weights"),
    ("listnet:targets=share", lambda s, y, w: rax.softmax_loss(s, y, label_fn=shares), ""),
    ("listnet", lambda s, y, w: rax.softmax_loss(s, y, label_fn=softmax_of_labels), ""),
    ("poly1:epsilon=0.7", lambda s, y, w: rax.poly1_softmax_loss(s, shares(y), epsilon=0.7), ""),
    ("unique-softmax", lambda s, y, w: rax.unique_softmax_loss(s, y, weights=w), "weights"),
    ("listmle", lambda s, y, w: rax.listmle_loss(s, y), ""),
    ("approx-ndcg", approximate(rax.ndcg_metric, 0.1), ""),
    ("approx-ndcg:temperature=1", approximate(rax.ndcg_metric, 1.0), ""),
    # Rax takes the best document's 1/rank, we the mean over the relevant: the same for one of them.
    ("approx-mrr:temperature=1", approximate(rax.mrr_metric, 1.0), "one"),
]


def random_list(random, kind):
    n = int(random.integers(2, 60))
    scores = random.normal(size=n) * random.choice([0.5, 2, 8])
    labels = np.floor(random.random(n) ** 2 * 5)
    if "binary" in kind:
        labels = np.minimum(labels, 1)
    if "one" in kind:
        labels[:] = 0
    labels[random.integers(n)] = 1
    if "one" not in kind and labels.max() == labels.min():
        labels[0] = 1 - labels[0]
    weights = 0.25 + random.random(n) if "weights" in kind else np.ones(n)
    return scores, labels, weights.astype(np.float32).astype(np.float64)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--lists", type=int, default=20)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    lists = [(name, loss, *random_list(random, kind)) for name, loss, kind in CASES for _ in range(options.lists)]
    lines = "".join(
        json.dumps({"loss": name, "scores": list(s), "labels": list(y), "weights": list(w)}) + "\n"
        for name, _, s, y, w in lists)
    answers = subprocess.run([options.program], input=lines, capture_output=True, text=True, check=True).stdout
    worst = {name: 0.0 for name, _, _ in CASES}
    for (name, loss, s, y, w), answer in zip(lists, answers.splitlines(), strict=True):
        value, gradient = json.loads(answer)
        expected, slope = jax.value_and_grad(loss)(jnp.asarray(s), jnp.asarray(y), jnp.asarray(w))
        scale = max(1e-3, float(jnp.max(jnp.abs(slope))))
        worst[name] = max(worst[name], abs(value - float(expected)) / max(1e-3, abs(float(expected))),
                          float(jnp.max(jnp.abs(slope - jnp.asarray(gradient)))) / scale)
    for name, error in worst.items():
        print(f"{'ok' if error < 1e-9 else 'FAILED'} {name}: largest relative difference {error:.1e}")
    sys.exit(any(error >= 1e-9 for error in worst.values()))


if __name__ == "__main__":
    main()
