#!/usr/bin/env python3
"""Dense, mixture of experts and mixture of transformers beside each other (docs/unified.md).

    python scripts/long/unified.py BUILD FOLDER [--steps 2500] [--seeds 3] [-- options of train_bagel]

Trains each architecture with every seed (the same packs and the same noise for all), and dense once more with MLPs so wide
that it has MoT's parameters; judges all; prints a row a run, then the paired gaps. What FOLDER already holds is not run again.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys

RUNS = {"dense": ["--architecture", "dense"], "moe": ["--architecture", "moe"], "mot": ["--architecture", "mot"],
        "dense-wide": ["--architecture", "dense", "--hidden", "1664"]}


def run(arguments):
    print("$", " ".join(map(str, arguments)), file=sys.stderr, flush=True)
    return subprocess.run([str(a) for a in arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def result(o, name, seed):
    """-> the rows of judge_bagel's table of one run."""
    folder = o.folder / f"{name}-{seed}"
    table = folder / "table.json"
    if not table.exists():
        run([o.build / "examples/train_bagel", *RUNS[name], "--seed", seed, "--steps", o.steps, "--drawings", 0, "--quiet",
             "--run-dir", folder, "--save", folder / "model", *o.options])
        text = run([o.build / "examples/judge_bagel", "--model", folder / "model", "--judge", o.folder / "judge.safetensors",
                    "--drawings", o.drawings, "--sheet", folder / "drawings.png"])
        table.write_text(json.dumps({k: float(v) for k, v in (line.split() for line in text.splitlines())}))
    return json.loads(table.read_text())


def gap(title, first, second):
    """Of paired runs: the mean difference in per cent of the first, its standard deviation, and how often it has this sign."""
    gaps = [100 * (b - a) / a for a, b in zip(first, second)]
    mean = statistics.mean(gaps)
    spread = statistics.stdev(gaps) if len(gaps) > 1 else math.nan
    same = sum((g < 0) == (mean < 0) for g in gaps)
    print(f"{title:<28} {mean:+8.3f} %   s.d. {spread:.3f}   {same} of {len(gaps)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--drawings", type=int, default=2000)
    parser.add_argument("options", nargs="*")
    o = parser.parse_args()
    o.folder.mkdir(parents=True, exist_ok=True)
    results = {name: [result(o, name, seed) for seed in range(o.seeds)] for name in RUNS}
    rows = list(results["dense"][0])
    print(f"{'':<22}" + "".join(f"{f'{name}-{seed}':>14}" for name in RUNS for seed in range(o.seeds)))
    for row in rows:
        print(f"{row:<22}" + "".join(f"{one[row]:>14.4f}" for name in RUNS for one in results[name]))
    for metric in ("val_mse", "val_ce"):
        column = {name: [one[metric] for one in results[name]] for name in RUNS}
        for other in ("moe", "mot", "dense-wide"):
            gap(f"{metric}: {other} beside dense", column["dense"], column[other])
        gap(f"{metric}: mot beside dense-wide", column["dense-wide"], column["mot"])


if __name__ == "__main__":
    main()
