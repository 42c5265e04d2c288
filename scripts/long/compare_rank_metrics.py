"""Compares evaluate_ranking's values of every list with scikit-learn and trec_eval. Run by rank_metrics.sh.

Usage: compare_rank_metrics.py --program build/examples/evaluate_ranking --work FOLDER [--lists N] [--seed N]
"""
import argparse
import csv
import pathlib
import random
import subprocess
import sys

import numpy
import pytrec_eval
from sklearn.metrics import ndcg_score

CUTS = (1, 3, 10)


def make_lists(rng, count):
    """(label, score, name) of every document; many scores are equal, some lists are irrelevant."""
    lists = []
    for _ in range(count):
        length = rng.randint(2, 40)
        levels = rng.choice([1, 3, 10, 1000])
        largest = rng.choice([0, 1, 4])
        names = rng.sample(range(10000), length)
        lists.append([(rng.randint(0, largest), rng.randint(-levels, levels) / 8, f"d{n:05d}")
                      for n in names])
    return lists


def ours(program, work, lists, arguments):
    data, scores, table = work / "lists.txt", work / "scores.txt", work / "table.csv"
    with open(data, "w") as lines, open(scores, "w") as numbers:
        for q, documents in enumerate(lists):
            for label, score, name in documents:
                lines.write(f"{label} qid:{q} 1:0 #docid = {name}\n")
                numbers.write(f"{score!r}\n")
    subprocess.run([program, "--data", data, "--scores", scores, "--per-query", table, *arguments],
                   check=True, stdout=subprocess.DEVNULL)
    with open(table) as rows:
        return list(csv.DictReader(rows))


class Comparison:
    def __init__(self):
        self.count = self.largest = 0

    def __call__(self, name, list_number, actual, expected):
        self.count += 1
        difference = abs(float(actual) - expected)
        self.largest = max(self.largest, difference)
        if difference > 1e-9:
            sys.exit(f"{name} of list {list_number}: {actual}, expected {expected}")


def compare_sklearn(program, work, lists):
    compare = Comparison()
    for preset, gain in (("zero", lambda y: 2.0 ** y - 1), ("trec_eval", float)):
        for ties, ignore_ties in (("expected", False), ("stable", True)):
            metrics = [f"ndcg@{k}" for k in CUTS] + ["ndcg"]
            rows = ours(program, work, lists, ["--metrics", *metrics, "--convention", preset, "--ties", ties])
            for q, (row, documents) in enumerate(zip(rows, lists)):
                truth = numpy.array([[gain(label) for label, _, _ in documents]])
                scores = numpy.array([[score for _, score, _ in documents]])
                if ignore_ties:  # scikit-learn orders ties backwards; a ranking without ties says the same
                    order = sorted(range(len(documents)), key=lambda i: -documents[i][1])
                    scores[0, order] = range(len(documents), 0, -1)
                for k in (*CUTS, None):
                    name = "NDCG" if k is None else f"NDCG@{k}"
                    expected = ndcg_score(truth, scores, k=k, ignore_ties=ignore_ties)
                    compare(f"{name} ({preset}, ties {ties})", q, row[f"{name} {preset}"], expected)
    return compare


def compare_trec_eval(program, work, lists):
    names = {"NDCG": "ndcg", "MAP": "map", "MRR": "recip_rank"}
    for k in CUTS:
        names[f"NDCG@{k}"] = f"ndcg_cut_{k}"
        names[f"P@{k}"] = f"P_{k}"
        names[f"MAP@{k}"] = f"map_cut_{k}"
    cuts = ",".join(map(str, CUTS))
    judged = {str(q): {name: label for label, _, name in documents} for q, documents in enumerate(lists)}
    runs = {str(q): {name: score for _, score, name in documents} for q, documents in enumerate(lists)}
    evaluator = pytrec_eval.RelevanceEvaluator(
        judged, {"ndcg", "map", "recip_rank", f"ndcg_cut.{cuts}", f"P.{cuts}", f"map_cut.{cuts}"})
    theirs = evaluator.evaluate(runs)
    rows = ours(program, work, lists, ["--metrics", *(name.lower() for name in names), "--convention", "trec_eval"])
    compare = Comparison()
    for q, row in enumerate(rows):
        for name, measure in names.items():
            compare(f"{name} (trec_eval)", q, row[f"{name} trec_eval"], theirs[str(q)][measure])
    return compare


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--lists", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lists = make_lists(random.Random(args.seed), args.lists)
    for name, compare in (("scikit-learn", compare_sklearn), ("trec_eval", compare_trec_eval)):
        result = compare(args.program, args.work, lists)
        print(f"{name}: {result.count} values agree, largest difference {result.largest:.2g}")


if __name__ == "__main__":
    main()
