#!/usr/bin/env python3
"""Reads a trace of bench/kernel_trace.cpp and prints where a training step's time goes.

    bench/timeline.py trace.csv [--steps 10] [--top 40]

A step ends with its optimizer kernel's last launch (a name that matches --marker). The table is the
mean over the last --steps steps: time by class of kernel, time by kernel, and the gaps between the
end of one kernel and the start of the next.
"""
import argparse
import collections
import re

CLASSES = [  # the first that matches
    ("attention", r"sdpa|flash|fmha|dot_do_o|convert_dq|attention"),
    ("products", r"nvjet|gemm|cutlass|xmma|cublas|splitK|sm90_"),
    ("optimizer", r"update_flat|gradient_partials|add_partials|step_scaler|advance"),
    ("loss", r"cross_entropy"),
    ("norms", r"norm_"),
    ("sums", r"fold_|reduce_"),
    ("copies", r"memcpy|memset"),
]


def class_of(name):
    for label, pattern in CLASSES:
        if re.search(pattern, name):
            return label
    return "other"


def short(name):
    name = re.sub(r"^_ZN\d+binade\d+kernels\d+cuda\d+_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_[0-9a-f]+_\d+",
                  r"\1:", name)
    return name[:110]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--marker", default="step_scaler")
    parser.add_argument("--top", type=int, default=40)
    options = parser.parse_args()
    events = []
    with open(options.trace) as lines:
        for line in lines:
            start, end, name = line.rstrip("\n").split(",", 2)
            events.append((int(start), int(end), name))
    ends = [i for i, event in enumerate(events) if re.search(options.marker, event[2])]
    if len(ends) <= options.steps:
        raise SystemExit(f"{len(ends)} steps in the trace; more than {options.steps} are needed")
    window = events[ends[-options.steps - 1] + 1:ends[-1] + 1]
    count = options.steps
    span = (window[-1][1] - window[0][0]) / count / 1e3
    by_class, by_kernel = collections.Counter(), collections.defaultdict(lambda: [0, 0])
    gaps, busy_until, busy, previous = [], window[0][0], 0, ""
    for start, end, name in window:
        time = end - start
        by_class[class_of(name)] += time
        by_kernel[name][0] += time
        by_kernel[name][1] += 1
        if start > busy_until:
            gaps.append((start - busy_until, short(previous)[:50], short(name)[:50]))
        busy += max(0, end - max(start, busy_until))
        busy_until, previous = max(busy_until, end), name
    print(f"step {span:.0f} us, busy {busy / count / 1e3:.0f} us, {len(window) / count:.0f} launches")
    print("\nby class, us a step")
    for label, time in by_class.most_common():
        print(f"  {label:12} {time / count / 1e3:9.0f} {100 * time / count / 1e3 / span:5.1f} %")
    print("\nby kernel: us a step, launches a step, us each")
    for name, (time, launches) in sorted(by_kernel.items(), key=lambda item: -item[1][0])[:options.top]:
        print(f"  {time / count / 1e3:9.0f} {launches / count:6.1f} {time / launches / 1e3:9.1f}  {short(name)}")
    sizes = sorted(gap for gap, _, _ in gaps)
    print(f"\ngaps: {len(sizes) / count:.0f} a step, sum {sum(sizes) / count / 1e3:.0f} us, "
          f"median {sizes[len(sizes) // 2] / 1e3:.2f} us, above 3 us: "
          f"{sum(size > 3000 for size in sizes) / count:.1f} a step")
    long_gaps = collections.defaultdict(list)
    for gap, before, after in gaps:
        if gap > 3000:
            long_gaps[before, after].append(gap)
    for (before, after), found in sorted(long_gaps.items(), key=lambda item: -sum(item[1])):
        print(f"  {len(found) / count:5.1f} a step, at most {max(found) / 1e3:.2f} us, between {before} and {after}")


if __name__ == "__main__":
    main()
