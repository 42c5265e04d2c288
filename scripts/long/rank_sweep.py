#!/usr/bin/env python3
"""Draws options of training programs, and trains with each draw on one rank and on two other numbers
of ranks: checkpoints, rows of metrics and saved files must be equal, byte for byte, however the ranks
share their state and whatever they speak over. Then takes the run of one rank back to its first
checkpoint, and resumes it on several.

    scripts/long/rank_sweep.py BUILD [--draws N] [--seed S] [--program NAME] [--gpus N]
"""
import argparse
import filecmp
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

RANKS = (2, 3, 4, 6)
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe"]
# What a row of metrics says of speed and memory.
OF_THE_MACHINE = ("peak_gib", "exposed_ms", "longest_wait_ms", "slowest_rank")


def precision(rng):
    """A preset, and a first scale that overflows for some steps where it moves."""
    preset = rng.choice(["fp32", "fp16", "fp16", "fp16", "fp16-autocast", "bf16", "fp16-no-masters",
                         "fp16-static:64", "fp16-pure"])
    options = ["--precision", preset]
    if preset in ("fp16", "fp16-autocast", "fp16-no-masters") and rng.random() < 0.6:
        options += ["--init-scale", str(2 ** rng.randrange(16, 25)), "--growth-interval",
                    str(rng.choice([2, 2000])), "--hysteresis", str(rng.choice([1, 2]))]
    return options


def training(rng):
    steps = rng.randrange(4, 9)
    options = ["--steps", steps, "--accumulation", rng.choice([4, 4, 6, 8, 12]), "--batch-size", 24,
               "--checkpoint-every", rng.choice([2, 3]), "--keep-checkpoints", 9,
               "--validate-every", rng.choice([0, 2, 3]), "--seed", rng.randrange(1000),
               "--optimizer", rng.choice(["adamw", "adamw", "sgd", "lion", "muon"]),
               "--schedule", rng.choice(["constant", "linear", "cosine"]), "--warmup", 2,
               "--clip", rng.choice([0, 0.1, 1]), "--weight-decay", rng.choice([0, 0.1])]
    if rng.random() < 0.5:
        options += ["--ema", 0.9]
    return options + precision(rng)


def of_gpt(rng, data):
    family = rng.choice(["gpt2", "llama"])
    options = ["--text", data / "text.txt", "--tokenizer", "bytes", "--family", family, "--layers",
               rng.choice([1, 2, 3]), "--dim", rng.choice([16, 32, 64]), "--heads", 2, "--seq-len",
               rng.choice([8, 24, 33]), "--sample-tokens", 0, "--validation-batches", 3,
               "--data-order", rng.choice(["shuffled", "sequential"]), "--recompute",
               rng.choice(["nothing", "norms", "activations", "norms+activations", "blocks"]),
               "--save-hf", "saved"]
    if family == "gpt2" and rng.random() < 0.5:
        options += ["--dropout", 0.1]
    if family == "llama" and rng.random() < 0.5:
        options += ["--kv-heads", 1]
    more = rng.random()
    if more < 0.25:
        options += ["--lora-rank", 3, "--lora-dropout", rng.choice([0, 0.2])]
    elif more < 0.4:
        options += ["--mtp", rng.choice(["sequential:1", "recursive:2"])]
    return options


def of_medusa(rng, data):
    options = ["--heads", rng.choice([1, 3]), "--save", "saved", *rng.choice(
        [["--head-layers", 0], ["--head-layers", 1, "--shared-output"], ["--head-layers", 2]])]
    if rng.random() < 0.5:
        options += ["--joint", "--save-model", "saved-model"]
        options += rng.choice([[], ["--ramp"], ["--lora-rank", 2], ["--lora-rank", 2, "--self-distill"]])
    elif rng.random() < 0.4:
        options += ["--hidden-cache", "cache"]
    return options + of_head(rng, data, "model-1")


def of_mtp(rng, data):
    options = ["--kind", rng.choice(["recursive", "sequential"]), "--depth", rng.choice([1, 2]), "--save", "saved"]
    if rng.random() < 0.5:
        options += ["--joint", "--save-model", "saved-model"]
    return options + of_head(rng, data, "model-1")


def of_eagle(rng, data):
    if rng.random() < 0.4:
        return ["--kind", "eagle1", "--feature-noise", rng.choice([0, 0.1]), "--save", "saved"] + of_head(
            rng, data, "model-1")
    options = ["--draft-vocabulary", rng.choice([0, 64]), "--draft-steps", rng.choice([1, 3]), "--save", "saved"]
    if rng.random() < 0.4:
        options += ["--recompute-steps"]
    return options + of_head(rng, data, "model-3")


def of_head(rng, data, model):
    options = ["--model", data / model, "--text", data / "text.txt", "--seq-len", rng.choice([16, 24]),
               "--validation-batches", 3]
    return options + (["--no-pack"] if rng.random() < 0.3 else [])


def of_ranker(rng, data):
    options = ["--fold", data / "fold", "--model", rng.choice(["linear", "mlp", "attention", "dasalc"]),
               "--loss", rng.choice(["lambdarank", "listnet", "ranknet", "xe-ndcg", "approx-ndcg", "mse",
                                     "listmle:ties=random", "neural-ndcg:iterations=5"]),
               "--hidden", 16, "--dim", 16, "--blocks", 1, "--norm", rng.choice(["none", "layer"]),
               "--dropout", rng.choice([0, 0.2]), "--noise", rng.choice([0, 0.1]), "--patience", 0,
               "--save", "saved"]
    return options + (["--longest-list", 6] if rng.random() < 0.3 else [])


def of_bagel(rng, data):
    return ["--data", data / "items", "--architecture", rng.choice(["dense", "moe", "mot"]), "--preset", "tiny",
            "--dim", 32, "--layers", rng.choice([1, 2]), "--hidden", 48, "--workers", rng.choice([1, 3]),
            "--validation-packs", rng.choice([1, 3]), "--drawings", rng.choice([0, 2]), "--save", "saved"]


PROGRAMS = {"train_gpt": of_gpt, "finetune_medusa": of_medusa, "finetune_mtp": of_mtp,
            "finetune_eagle": of_eagle, "train_ranker": of_ranker, "train_bagel": of_bagel}


def way(rng):
    """What has no say in the result."""
    options = ["--zero", rng.choice([0, 1, 1, 2]), "--send-values", rng.choice(["update", "forward"])]
    options += ["--timeline"] if rng.random() < 0.3 else []
    return options + (["--compare-ranks", rng.choice([0, 1, 2])] if rng.random() < 0.5 else [])


class Sweep:
    def __init__(self, build, work, gpus):
        self.bin = build / "examples"
        self.work = work
        self.data = work / "data"
        self.transports = ["tcp", "mpi"] if shutil.which("mpirun") and not gpus else ["tcp"]
        self.device = ["--device", "cuda", "--deterministic"] if gpus else ["--device", "cpu"]
        self.ranks = [n for n in RANKS if not gpus or n <= gpus]
        self.gpus = gpus

    def make_data(self):
        (self.data / "fold").mkdir(parents=True)
        (self.data / "text.txt").write_text("".join(
            f"Line {i}: the quick brown fox jumps over the lazy dog, {i * i} times.\n" for i in range(300)))
        rng = random.Random(1)
        for name, lists in ("train", 60), ("vali", 20), ("test", 20):
            with (self.data / "fold" / f"{name}.txt").open("w") as file:
                for query in range(lists):
                    for _ in range(rng.randrange(1, 13)):
                        grade = rng.randrange(3)
                        features = [grade + 3 * rng.random(), 2 * rng.random(), rng.random()]
                        words = " ".join(f"{i + 1}:{x:.4f}" for i, x in enumerate(features))
                        file.write(f"{grade} qid:{query + 1} {words}\n")
        self.make_items()
        for layers in 1, 3:
            self.run([self.bin / "train_gpt", "--text", self.data / "text.txt", "--tokenizer", "bytes", "--family",
                      "llama", "--layers", layers, "--dim", 16, "--heads", 2, "--seq-len", 32, "--batch-size", 4,
                      "--steps", 10, "--sample-tokens", 0, "--device", "cpu", "--quiet", "--run-dir",
                      f"base-{layers}", "--save-hf", f"model-{layers}"], self.data)

    def make_items(self):
        """Images of stripes, as Fashion-MNIST's files."""
        items = self.data / "items"
        items.mkdir()
        for name in "train", "t10k":
            pixels = b"".join(bytes(255 * ((x // (1 + i % 10)) % 2) for _ in range(28) for x in range(28))
                              for i in range(60))
            (items / f"{name}-images-idx3-ubyte.gz").write_bytes(struct.pack(">IIII", 0x803, 60, 28, 28) + pixels)
            (items / f"{name}-labels-idx1-ubyte.gz").write_bytes(
                struct.pack(">II", 0x801, 60) + bytes(i % 10 for i in range(60)))

    def run(self, command, folder):
        command = [str(word) for word in command]
        result = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                timeout=300)
        if result.returncode != 0:
            raise RuntimeError(f"status {result.returncode}: {' '.join(command)}\n{result.stdout[-2000:]}")

    def train(self, ranks, folder, program, options, rng):
        command = [self.bin / program, *options, *self.device, "--quiet", "--run-dir", "run"]
        if ranks > 1:
            transport = rng.choice(self.transports)
            launch = MPIRUN if transport == "mpi" else [self.bin / "binade-run"]
            command = [*launch, "-n", ranks, *command, *way(rng)]
        (self.work / folder).mkdir(exist_ok=True)
        self.run(command, self.work / folder)
        return " ".join(str(word) for word in command)

    def rows(self, folder):
        rows = []
        for line in (self.work / folder / "run" / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            rows.append({key: value for key, value in row.items()
                         if key not in OF_THE_MACHINE and not key.endswith("_per_s")})
        return rows

    def difference(self, first, second):
        for part in "run/checkpoints", "saved", "saved-model":
            if not (self.work / first / part).exists():
                continue
            a, b = self.work / first / part, self.work / second / part
            names = sorted(file.name for file in a.iterdir())
            if names != sorted(file.name for file in b.iterdir()):
                return f"{part} has other files"
            _, other, missing = filecmp.cmpfiles(a, b, names, shallow=False)
            if other or missing:
                return f"{part}: {other + missing} differ"
        for one, two in zip(self.rows(first), self.rows(second)):
            if one != two:
                return f"{one} is not {two}"
        return "" if len(self.rows(first)) == len(self.rows(second)) else "rows are missing"

    def take_back(self, folder):
        """To the first checkpoint."""
        shutil.copytree(self.work / "ranks-1", self.work / folder)
        for saved in (self.work / folder).glob("saved*"):
            shutil.rmtree(saved)
        checkpoints = sorted((self.work / folder / "run" / "checkpoints").glob("step-*"))
        for path in [*checkpoints[1:], checkpoints[0].parent / "best.safetensors"]:
            path.unlink(missing_ok=True)
        return len(checkpoints) > 1

    def compare(self, program, options, rng):
        """What differs, with the command; nothing if all is equal."""
        for folder in self.work.glob("ranks-*"):
            shutil.rmtree(folder)
        if self.gpus:  # chooses matmul algorithms, which the others find
            self.train(1, "ranks-0", program, options, rng)
        first = self.train(1, "ranks-1", program, options, rng)
        lanes = options[options.index("--accumulation") + 1]
        numbers = [n for n in self.ranks if lanes % n == 0]
        for ranks in rng.sample(numbers, min(2, len(numbers))):
            command = self.train(ranks, f"ranks-{ranks}", program, options, rng)
            problem = self.difference("ranks-1", f"ranks-{ranks}")
            if problem:
                return f"{problem}\n  {first}\n  {command}"
        if not self.take_back("ranks-again"):
            return ""
        command = self.train(rng.choice(numbers), "ranks-again", program, [*options, "--resume"], rng)
        last = sorted((self.work / "ranks-1" / "run" / "checkpoints").glob("step-*"))[-1].name
        paths = [self.work / folder / "run" / "checkpoints" / last for folder in ("ranks-1", "ranks-again")]
        return "" if filecmp.cmp(*paths, shallow=False) else f"resumed it ends elsewhere\n  {first}\n  {command}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10 ** 6))
    parser.add_argument("--program", choices=PROGRAMS)
    parser.add_argument("--gpus", type=int, default=0, help="a rank on each, at most; 0: the CPU")
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        sweep = Sweep(arguments.build.resolve(), Path(work), arguments.gpus)
        sweep.make_data()
        for draw in range(arguments.draws):
            rng = random.Random(f"{arguments.seed} {draw}")
            program = arguments.program or rng.choice(list(PROGRAMS))
            options = PROGRAMS[program](rng, sweep.data) + training(rng)
            try:
                problem = sweep.compare(program, options, rng)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                problem = str(error)
            failed += problem != ""
            print(f"seed {arguments.seed}, draw {draw}, {program}: {problem or 'equal'}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
