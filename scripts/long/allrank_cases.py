#!/usr/bin/env python3
"""Writes what allRank computes for random ragged lists, the goldens of tests/heads/rank/allrank_test.cpp.

    pip install torch numpy && pip install --no-deps allRank==1.4.3
    python scripts/long/allrank_cases.py tests/heads/rank/allrank.json

Its losses run as they come, on lists that are padded to the longest, and in double precision. Where
allRank defines something otherwise, a case brings it into line, and says how. What differs for all:

- A mean over the lists of a batch; here every value is the sum over the lists. allRank counts every
  list in that mean (neuralNDCG: those with a relevant document), and lets a list of equal labels
  teach listNet, listMLE, approxNDCG and ndcgLoss1. The lists here have two distinct labels.
- 1e-10 within logarithms and below sigmoids, for stability. It is 1e-300 here where it is a parameter.
- Equal labels are put in one random order for the whole batch by listMLE. Its labels are distinct here.
"""
import json
import math
import sys
from unittest import mock

import numpy as np
import torch

# The package is written in f32; its formulas are what counts here.
torch.set_default_dtype(torch.float64)
torch.float = torch.float32 = torch.float64
torch.Tensor.float = torch.Tensor.double
# What its reader of data needs, and its losses do not.
for name in ("attr", "gcsfs", "pkg_resources", "sklearn", "sklearn.datasets", "torchvision", "torchvision.transforms"):
    sys.modules[name] = mock.MagicMock()

from allrank.models import losses, metrics  # noqa: E402
from allrank.models.losses import lambdaLoss as lambda_loss  # noqa: E402
from allrank.models.losses import loss_utils  # noqa: E402

PADDED = -1
NONE = 1e-300  # 0 would not do: padded documents have a logarithm, too


def mean_of_lists(loss, **options):
    """-> a loss summed over the lists."""
    return lambda s, y: len(y) * loss(s, y, **options)


def one_minus(loss, **options):
    """The negative of a measure, a mean over lists -> 1 - the measure, summed."""
    return lambda s, y: len(y) * (1 + loss(s, y, **options))


def weighted_pairs(scheme, **options):
    """A sum over the pairs of the batch, as ours; log2 by default, ours is natural."""
    return lambda s, y: lambda_loss(s, y, eps=NONE, weighing_scheme=scheme, reduction_log="natural", **options)


def ndcg_loss1(s, y):
    """Its pairs have i = j among them: Gi/D(ri) * ln 2 each, in all ln 2 times the NDCG, without gradient."""
    return weighted_pairs("ndcgLoss1_scheme")(s, y) - math.log(2) * metrics.ndcg(s.detach(), y).sum()


def mean_of_pairs(loss):
    """A mean over the pairs of the whole batch -> their sum."""
    return lambda s, y: sum(((one[:, None] > one) & (one != PADDED)).sum() for one in y) * loss(s, y)


def rmse(s, y):
    """A root for each list; ours is what stands below it."""
    return sum(losses.pointwise_rmse(s[q:q + 1], y[q:q + 1], no_of_levels=1) ** 2 for q in range(len(y)))


def one_by_one(loss):
    """PyTorch refuses -1 as a target of its BCELoss, so these read lists without padding."""
    return lambda s, y: sum(loss(one[None, labels != PADDED], labels[None, labels != PADDED])
                            for one, labels in zip(s, y))


def bce(s, y):
    """Reads probabilities; a sum over documents, divided by the number of lists."""
    return len(y) * losses.bce(torch.sigmoid(s), y)


def ordinal(s, y):
    """Reads probabilities; a sum over thresholds, and a mean over the documents of the batch."""
    return y.numel() * losses.ordinal(torch.sigmoid(s), y, n=s.shape[2])


def without_early_stop(loss):
    """Its Sinkhorn scaling stops when no sum of the batch is 1e-6 from 1."""
    original = loss_utils.sinkhorn_scaling
    module = sys.modules[loss.__module__]

    def run(*arguments, **options):
        with mock.patch.object(module, "sinkhorn_scaling",
                               lambda *a, **o: original(*a, **{**o, "tol": 0, "max_iter": 50})):
            return loss(*arguments, **options)

    return run


# Ours, theirs as a sum over lists, and what labels they are for. allRank's truncation of lambdaLoss
# wants both documents of a pair among the first k, ours one of them, so it is not compared; nor are
# its weights of pairs by the difference of labels, and its draws of neuralNDCG, which we have not.
CASES = [
    ("mse", rmse, "grades"),
    ("bce:reduction=sum", one_by_one(bce), "binary"),
    ("ordinal:reduction=sum", one_by_one(ordinal), "grades"),
    ("ranknet:reduction=sum", mean_of_pairs(losses.rankNet), "grades"),
    ("ranknet:sigma=0.5,reduction=sum", weighted_pairs("rankNet_scheme", sigma=0.5), "grades"),
    ("lambdarank", weighted_pairs("lambdaRank_scheme"), "grades"),
    ("lambdarank:sigma=2", weighted_pairs("lambdaRank_scheme", sigma=2), "grades"),
    ("ndcg-loss1", ndcg_loss1, "grades"),
    ("ndcg-loss2", weighted_pairs("ndcgLoss2_scheme"), "grades"),
    ("ndcg-loss2++:mu=3", weighted_pairs("ndcgLoss2PP_scheme", mu=3), "grades"),
    ("listnet", mean_of_lists(losses.listNet, eps=NONE), "grades"),
    ("listnet:targets=share", mean_of_lists(losses.binary_listNet, eps=NONE), "binary"),
    ("listmle", mean_of_lists(losses.listMLE, eps=NONE), "distinct"),
    # alpha is 1/T.
    ("approx-ndcg:temperature=1", one_minus(losses.approxNDCGLoss, eps=NONE), "grades"),
    ("approx-ndcg:temperature=0.25", one_minus(losses.approxNDCGLoss, eps=NONE, alpha=4), "grades"),
    ("neural-ndcg", one_minus(without_early_stop(losses.neuralNDCG)), "grades"),
    ("neural-ndcg:temperature=2,truncation=3", one_minus(without_early_stop(losses.neuralNDCG), temperature=2, k=3), "grades"),
    ("neural-ndcg:truncation=4", one_minus(without_early_stop(losses.neuralNDCG_transposed), k=4), "grades"),
]
THRESHOLDS = 4
SIZES = (2, 3, 5, 9, 17, 30)


def random_labels(random, n, kind):
    if kind == "distinct":
        return random.permutation(n).astype(float)
    labels = np.floor(random.random(n) ** 2 * 5)
    if kind == "binary":
        labels = np.minimum(labels, 1)
    if labels.max() == labels.min():
        labels[0] = 1 - min(labels[0], 1)
    return labels


def padded(lists, value):
    longest = max(map(len, lists))
    return np.stack([np.pad(one, [(0, longest - len(one))] + [(0, 0)] * (one.ndim - 1), constant_values=value)
                     for one in lists])


def plain(values):
    return [float(f"{one:.10g}") for one in np.asarray(values).flatten()]


def loss_case(name, loss, kind, random):
    columns = (THRESHOLDS,) if name.startswith("ordinal") else ()
    # Scores that a few digits write, no two of which are equal in a list.
    scores = [np.stack([random.permutation(4000)[:n] / 1000 - 2 for _ in range(math.prod(columns))], -1).reshape(n, *columns)
              for n in SIZES]
    labels = [random_labels(random, n, kind) for n in SIZES]
    s = torch.tensor(padded(scores, 0.0), requires_grad=True)
    value = loss(s, torch.tensor(padded(labels, PADDED)))
    value.backward()
    gradient = np.concatenate([s.grad[q, :n].numpy() for q, n in enumerate(SIZES)])
    return {"loss": name, "sizes": SIZES, "columns": THRESHOLDS if columns else 1,
            "scores": plain(np.concatenate(scores)), "labels": plain(np.concatenate(labels)),
            "value": plain(value.detach())[0], "gradient": plain(gradient)}


def metric_case(kind, random):
    """Some lists are irrelevant. allRank's MRR is that of the largest label, so labels are binary for it."""
    sizes = (1, 1, 2, 4, 7, 12, 25, 40)
    scores = [random.permutation(4000)[:n] / 1000 - 2 for n in sizes]
    labels = [random_labels(random, n, kind) if n % 4 else np.zeros(n) for n in sizes]
    s, y = torch.tensor(padded(scores, 0.0)), torch.tensor(padded(labels, PADDED))
    names = {"ndcg@1": 1, "ndcg@3": 3, "ndcg@10": 10, "ndcg": None}
    each = {name: plain(metrics.ndcg(s, y, ats=cut and [cut])) for name, cut in names.items()}
    if kind == "binary":
        each |= {f"mrr@{k}": plain(metrics.mrr(s, y, ats=[k])) for k in (1, 5, 100)}
    return {"sizes": sizes, "scores": plain(np.concatenate(scores)), "labels": plain(np.concatenate(labels)),
            "metrics": each}


def main():
    random = np.random.default_rng(1)
    torch.manual_seed(1)
    lines = [json.dumps(loss_case(*case, random), separators=(",", ":")) for case in CASES]
    measured = [json.dumps(metric_case(kind, random), separators=(",", ":")) for kind in ("grades", "binary")]
    with open(sys.argv[1], "w") as file:
        file.write('{"allRank": "1.4.3", "torch": "%s", "losses": [\n' % torch.__version__.split("+")[0])
        file.write(",\n".join(lines) + '\n], "metrics": [\n' + ",\n".join(measured) + "\n]}\n")


if __name__ == "__main__":
    main()
