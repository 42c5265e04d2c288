"""Convolutions on the CPU beside PyTorch's, shape by shape and in turn.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python bench/conv_beside_torch.py build/bench/conv_bench

Prints each side's fastest call in milliseconds and PyTorch's time over ours (above 1: we are faster). --processor-time counts
what all threads used, which says more on a busy machine (with OMP_NUM_THREADS=1). Gradients of PyTorch are those of
aten::convolution_backward, one at a time.
"""
import argparse
import functools
import subprocess
import time

import torch

# images, channels, height, width, filters, kernel, stride, padding, groups
SHAPES = {
    "CIFAR 3x3, 3 to 64, 32": (32, 3, 32, 32, 64, 3, 1, 1, 1),
    "CIFAR 3x3, 64, 32": (32, 64, 32, 32, 64, 3, 1, 1, 1),
    "CIFAR 3x3, 64, 32, batch 8": (8, 64, 32, 32, 64, 3, 1, 1, 1),
    "CIFAR 3x3, 64 to 128, 32, stride 2": (32, 64, 32, 32, 128, 3, 2, 1, 1),
    "CIFAR 3x3, 128, 16": (32, 128, 16, 16, 128, 3, 1, 1, 1),
    "CIFAR 3x3, 128, 16, batch 8": (8, 128, 16, 16, 128, 3, 1, 1, 1),
    "CIFAR 3x3, 128 to 256, 16, stride 2": (32, 128, 16, 16, 256, 3, 2, 1, 1),
    "CIFAR 3x3, 256, 8": (32, 256, 8, 8, 256, 3, 1, 1, 1),
    "CIFAR 3x3, 256, 8, batch 8": (8, 256, 8, 8, 256, 3, 1, 1, 1),
    "CIFAR 3x3, 512, 4": (32, 512, 4, 4, 512, 3, 1, 1, 1),
    "1x1, 64 to 128, 32, stride 2": (32, 64, 32, 32, 128, 1, 2, 0, 1),
    "1x1, 256 to 64, 56": (8, 256, 56, 56, 64, 1, 1, 0, 1),
    "1x1, 64 to 256, 56": (8, 64, 56, 56, 256, 1, 1, 0, 1),
    "1x1, 512 to 2048, 7": (8, 512, 7, 7, 2048, 1, 1, 0, 1),
    "stem 7x7, 3 to 64, 224, stride 2": (8, 3, 224, 224, 64, 7, 2, 3, 1),
    "3x3, 64, 56": (8, 64, 56, 56, 64, 3, 1, 1, 1),
    "depthwise 3x3, 128, 28": (8, 128, 28, 28, 128, 3, 1, 1, 128),
    "depthwise 3x3, 64, 112, stride 2": (8, 64, 112, 112, 64, 3, 2, 1, 64),
    "depthwise 3x3, 512, 14": (32, 512, 14, 14, 512, 3, 1, 1, 512),
    "groups of 4, 128, 28": (8, 128, 28, 28, 128, 3, 1, 1, 32),
    "U-Net 3x3, 32, 128": (4, 32, 128, 128, 32, 3, 1, 1, 1),
    "U-Net 3x3, 64 to 32, 128": (4, 64, 128, 128, 32, 3, 1, 1, 1),
    "U-Net 3x3, 256, 32": (4, 256, 32, 32, 256, 3, 1, 1, 1),
    "MNIST 3x3, 1 to 16, 28": (64, 1, 28, 28, 16, 3, 1, 1, 1),
    "MNIST 3x3, 16 to 32, 14": (64, 16, 14, 14, 32, 3, 1, 1, 1),
}


def fastest_ms(clock, call):
    call()
    fastest = float("inf")
    calls, begin = 0, clock()
    while calls < 3 or clock() - begin < 0.1:
        start = clock()
        call()
        fastest = min(fastest, (clock() - start) * 1e3)
        calls += 1
    return fastest


def torch_times(fastest, shape):
    images, channels, height, width, filters, kernel, stride, padding, groups = shape
    x = torch.randn(images, channels, height, width)
    weight = torch.randn(filters, channels // groups, kernel, kernel)
    bias = torch.randn(filters)
    with torch.no_grad():
        y = torch.conv2d(x, weight, bias, stride, padding, 1, groups)
        forward = fastest(lambda: torch.conv2d(x, weight, bias, stride, padding, 1, groups))

        def backward(mask):
            return fastest(lambda: torch.ops.aten.convolution_backward(
                y, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask))
        return forward, backward([True, False, False]), backward([False, True, False])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="conv_bench")
    parser.add_argument("words", nargs="*", help="only shapes whose name has all of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    fastest = functools.partial(fastest_ms, clock)
    command = [options.program] + ["--processor-time"] * options.processor_time
    ours = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds; ms")
    print("| shape | output: ours, PyTorch, ratio | gradient of x | gradient of the weight |\n|---|---|---|---|")
    for name, shape in SHAPES.items():
        if not all(word in name for word in options.words):
            continue
        times = [[], []]
        for _ in range(options.rounds):
            ours.stdin.write(" ".join(map(str, shape)) + "\n")
            ours.stdin.flush()
            times[0].append([float(word) for word in ours.stdout.readline().split()])
            times[1].append(torch_times(fastest, shape))
        cells = []
        for part in range(3):
            mine, theirs = (min(row[part] for row in side) for side in times)
            cells.append(f"{mine:.2f}, {theirs:.2f}, {theirs / mine:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
