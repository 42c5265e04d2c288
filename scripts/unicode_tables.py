#!/usr/bin/env python3
"""Writes data/unicode_tables.inc: where the Unicode tables of Debian 12's PCRE2 (Unicode 14)
and utf8proc (15) differ from those inside the pip package `tokenizers`, whose ids ours must equal.

Usage: unicode_tables.py > data/unicode_tables.inc    (needs: pip install tokenizers)
"""
import ctypes
import ctypes.util
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co").split()
# A long-standing code point of the same category, by UTF-8 length.
STAND_INS = {
    3: dict(Lu=0x1E00, Ll=0x1E01, Lm=0x0971, Lo=0x0905, Mn=0x0901, Mc=0x0903, Nd=0x0966, No=0x2070,
            Po=0x0964, Pd=0x2010, Sm=0x2200, So=0x2100, Cf=0x200B, Sc=0x20A0),
    4: dict(Lu=0x10400, Ll=0x10428, Lm=0x16B40, Lo=0x10000, Mn=0x10A01, Mc=0x11000, Nd=0x104A0, No=0x10107,
            Po=0x10100, Pd=0x10EAD, Sm=0x1D6C1, So=0x10137, Cf=0x110BD, Sc=0x1E2FF),
}


def matched(pattern):
    """The code points that a one-character pattern matches in `tokenizers`."""
    normalizer, found = normalizers.Replace(Regex(pattern), ""), set()
    for i in range(0, len(CODE_POINTS), 4096):
        block = "".join(map(chr, CODE_POINTS[i:i + 4096]))
        found |= set(block) - set(normalizer.normalize_str(block))
    return {ord(c) for c in found}


def ranges(values, bridge=lambda c: False):
    """(first, last, value) of runs of equal value; `values` maps code points, `bridge` says which
    code points between two runs may be swallowed."""
    runs = []
    for c in sorted(values):
        if runs and runs[-1][2] == values[c] and all(bridge(g) for g in range(runs[-1][1] + 1, c)):
            runs[-1][1] = c
        else:
            runs.append([c, c, values[c]])
    return runs


def table(name, rows):
    print(f"constexpr {name}[] = {{")
    line = "   "
    for row in rows:
        cell = " {" + ", ".join(f"{x:#x}" for x in row) + "},"
        if len(line) + len(cell) > 100:
            print(line)
            line = "   "
        line += cell
    print(line)
    print("};")


def main():
    assert unicodedata.unidata_version == "14.0.0", "run with a Python of Unicode 14 (3.11)"
    category = {c: k for k in CATEGORIES for c in matched(rf"\p{{{k}}}")}
    newer = {}
    for c in CODE_POINTS:
        now = category.get(c, "Cn")
        if now != unicodedata.category(chr(c)):
            length = len(chr(c).encode())
            newer[c] = 0x20000 if now == "Lo" and c >= 0x20000 else STAND_INS[length][now]
    for stand_in in set(newer.values()):
        assert unicodedata.category(chr(stand_in)) == category[stand_in]

    library = ctypes.CDLL(ctypes.util.find_library("utf8proc"))
    library.utf8proc_version.restype = ctypes.c_char_p
    libc = ctypes.CDLL(None)

    def utf8proc(text, options):
        data, result = text.encode(), ctypes.c_void_p()
        size = library.utf8proc_map(data, ctypes.c_ssize_t(len(data)), ctypes.byref(result), options)
        mapped = ctypes.string_at(result.value, size).decode()
        libc.free(result)
        return mapped

    # A code point unknown to the normaliser of `tokenizers` neither decomposes nor reorders there.
    # It shows by its own decomposition, by not being a mark, or by not moving behind a mark of a
    # lower combining class (U+0334 has 1, U+0345 has 240). U+11A7 is no trailing consonant, but
    # utf8proc joins it to a Hangul syllable.
    stable, compat, compose, decompose = 2, 4, 8, 16
    forms = [(normalizers.NFKD(), stable | compat | decompose), (normalizers.NFC(), stable | compose)]
    strip = normalizers.StripAccents()

    def is_mark(c):
        return 6 <= library.utf8proc_category(newer.get(c, c)) <= 8

    def differs(c):
        if c == 0x334 or c == 0x345:
            return False
        if is_mark(c) != (strip.normalize_str(chr(c)) == ""):
            return True
        probes = (chr(c), "\uac00" + chr(c), "a" + chr(c) + "\u0334", "a\u0345" + chr(c))
        return any(form.normalize_str(p) != utf8proc(p, options) for form, options in forms for p in probes)

    unknown = {c: 0 for c in CODE_POINTS if differs(c)}
    inert = {c for c in CODE_POINTS if unicodedata.category(chr(c)) == "Cn" and c not in unknown}

    lower = {}
    for c in CODE_POINTS:
        theirs = normalizers.Lowercase().normalize_str(chr(c))
        if len(theirs) == 1 and ord(theirs) != library.utf8proc_tolower(c):
            lower[c] = (ord(theirs) - c) & 0xFFFFFFFF

    print("// Written by scripts/unicode_tables.py from tokenizers", tokenizers.__version__,
          "and utf8proc", library.utf8proc_version().decode() + ".")
    print("// Code points that Unicode 14 does not have, and one of the same category that it has:")
    print("// {first, last, stand-in}.")
    table("CodePointRange kNewer", ranges(newer))
    print("// Code points that the normaliser of `tokenizers` leaves alone: {first, last}.")
    table("CodePointRange kNotNormalized", [r[:2] for r in ranges(unknown, inert.__contains__)])
    print("// Lower-case mappings that utf8proc lacks: {first, last, difference}.")
    table("CodePointRange kLowerCase", ranges(lower))


main()
