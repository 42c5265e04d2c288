"""Compares the runs of curves.sh: test loss by preset and seed, spread, distance from FP32, skipped
steps. Writes results.json and fails where the specification's bounds do not hold."""
import argparse
import json
import math
import pathlib
import statistics
import sys

LARGEST_DISTANCE = 0.005  # of fp16's and bf16's mean test loss from fp32's
MUST_AGREE = ("fp16", "bf16")
WARM_UP = 100  # steps in which the scale finds its place


def evaluation(path):
    """The loss that `evaluate` printed; infinite for a run that failed."""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "loss" and math.isfinite(float(value)):
            return float(value)
    return math.inf


def skipped_after_warm_up(run):
    skipped = 0
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        skipped += bool(row.get("skipped")) and row["step"] > WARM_UP
    return skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--presets", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()

    results, problems = {}, []
    for preset in options.presets:
        losses, skips = [], []
        for seed in options.seeds:
            run = options.folder / f"{preset}-{seed}"
            losses.append(evaluation(options.folder / f"{preset}-{seed}.evaluation"))
            skips.append(skipped_after_warm_up(run))
        results[preset] = {
            "test_loss": [loss if math.isfinite(loss) else None for loss in losses],
            "mean": statistics.fmean(losses) if all(map(math.isfinite, losses)) else None,
            "spread": max(losses) - min(losses) if all(map(math.isfinite, losses)) else None,
            "skipped_after_100": skips,
        }
    reference = results["fp32"]["mean"]
    if reference is None:
        sys.exit("a run in fp32 failed")
    for preset, result in results.items():
        result["distance"] = result["mean"] / reference - 1 if result["mean"] else None
        print(f"{preset:14} {result['test_loss']} distance {result['distance']} "
              f"skipped {result['skipped_after_100']}")
    for preset in MUST_AGREE:
        result = results[preset]
        if result["distance"] is None or abs(result["distance"]) > LARGEST_DISTANCE:
            problems.append(f"{preset} is not within {LARGEST_DISTANCE:.1%} of fp32")
        if max(result["skipped_after_100"]) > 1 + options.steps / 1000:
            problems.append(f"{preset} skipped too many steps")
    for preset in options.presets:
        distance = results[preset]["distance"]
        if preset not in ("fp32", *MUST_AGREE) and distance is not None and distance < LARGEST_DISTANCE:
            problems.append(f"{preset} does not fail visibly")

    (options.folder / "results.json").write_text(json.dumps(
        {"steps": options.steps, "seeds": options.seeds, "presets": results}, indent=2) + "\n")
    if problems:
        sys.exit("; ".join(problems))


if __name__ == "__main__":
    main()
