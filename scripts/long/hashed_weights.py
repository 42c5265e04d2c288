"""Values that follow from a name and a place, the same as in tests/nn/hashed_weights.h."""
import numpy


def hashes(name, count):
    """FNV-1a of the name, then SplitMix64 of its sums with 1, 2, …: 24 bits each."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with numpy.errstate(over="ignore"):
        z = numpy.uint64(seed) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        z = z ^ (z >> numpy.uint64(31))
    return z >> numpy.uint64(40)


def directions(name, count):
    """Numbers in [−1, 1)."""
    return hashes(name, count).astype(numpy.float64) / 2**23 - 1
