"""Trains small rankers, exports them to ONNX, and compares ONNX Runtime's scores of raw features with
those of score_ranker. The largest difference, relative to scores above 1, must be below 1e-5."""

import argparse
import pathlib
import random
import subprocess
import tempfile

import numpy
import onnx
import onnxruntime

FEATURES = 12
LIMIT = 1e-5


def write_lists(path, seed):
    """60 lists of 1 to 40 documents with features of all sizes; returns (features, lengths)."""
    draw = random.Random(seed)
    rows, lengths = [], []
    with open(path, "w", encoding="utf-8") as file:
        for query in range(60):
            lengths.append(draw.randint(1, 40))
            for _ in range(lengths[-1]):
                label = draw.randint(0, 4)
                values = [
                    float(int(draw.lognormvariate(6, 4))), 10.0 ** draw.randint(-12, 8), label + draw.random(),
                    -draw.expovariate(0.01), 1e6 + draw.gauss(0, 1), 1e-13 * draw.random(), 3.0,
                    float(draw.random() < 0.1), draw.gauss(0, 1), 1e8 * (draw.random() < 0.05),
                    label * draw.random(), draw.gauss(0, 1e3)]
                rows.append(values)
                text = " ".join(f"{i + 1}:{value!r}" for i, value in enumerate(values))
                file.write(f"{label} qid:{query} {text}\n")
    return numpy.array(rows, dtype=numpy.float32), lengths


def cases():
    scalings = ["none", "log1p", "zscore", "log1p,zscore", "clip=0.01,log1p,zscore", "minmax",
                "clip=0.05,minmax,limit=0.5", "log1p,minmax", "zscore,limit=3"]
    models = {
        "linear": ["--model", "linear"],
        "mlp": ["--hidden", "32", "16"],
        "mlp without norm": ["--hidden", "32", "--no-layer-norm"],
        "attention": ["--model", "attention", "--dim", "16", "--blocks", "2", "--heads", "4"],
    }
    for scaling in scalings:
        for name, options in models.items():
            if scaling == "none" and name == "mlp without norm":
                continue  # raw features of 1e8 do not train
            yield f"{name}, {scaling}", [*options, "--scaling", scaling]
    for loss in ["ordinal", "prank", "mcrank", "listnet"]:
        yield f"mlp, loss {loss}", ["--hidden", "16", "--loss", loss]


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.stderr}")


def compare(programs, work, options, test, features, lengths):
    ranker, scores, file = work / "ranker", work / "scores", work / "ranker.onnx"
    run_folder = tempfile.mkdtemp(dir=work)
    run(programs / "train_ranker", "--device", "cpu", "--train", work / "train.txt", "--steps", "20",
        "--seed", "3", "--learning-rate", "0.01", "--quiet", "--run-dir", run_folder, "--save", ranker, *options)
    run(programs / "score_ranker", "--device", "cpu", "--precision", "fp32", "--ranker", ranker, "--data", test,
        "--scores", scores)
    run(programs / "export_ranker", "--ranker", ranker, "--onnx", file)
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    found, at = [], 0
    for length in lengths:
        found.append(session.run(["scores"], {"features": features[at:at + length]})[0])
        at += length
    found = numpy.concatenate(found)
    if metadata["documents"] == "each by itself":
        together = session.run(["scores"], {"features": features})[0]
        assert numpy.allclose(found, together, rtol=1e-5, atol=1e-5), "documents are not scored by themselves"
    expected = numpy.loadtxt(scores)
    assert found.shape == expected.shape and numpy.isfinite(expected).all()
    assert expected.std() > 1e-6, "all scores are the same"
    return float(numpy.max(numpy.abs(found - expected) / numpy.maximum(1, numpy.abs(expected))))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    write_lists(arguments.work / "train.txt", 1)
    features, lengths = write_lists(arguments.work / "test.txt", 2)
    bad = 0
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    for name, options in cases():
        worst = compare(arguments.programs, arguments.work, options, arguments.work / "test.txt", features, lengths)
        verdict = "ok" if worst < LIMIT else "not ok"
        bad += worst >= LIMIT
        print(f"{verdict} {name}: {worst:.1e}", flush=True)
    raise SystemExit(bad > 0)


if __name__ == "__main__":
    main()
