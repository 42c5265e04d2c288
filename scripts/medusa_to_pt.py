#!/usr/bin/env python3
"""Writes medusa_lm_head.pt beside medusa_lm_head.safetensors: FasterDecoding's own program reads
only that file.

Usage: scripts/medusa_to_pt.py FOLDER     a folder of the layout "original"
"""
# Needs: pip install torch safetensors
import os
import pathlib
import sys

import torch
from safetensors.torch import load_file


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__.strip())
    source = pathlib.Path(sys.argv[1]) / "medusa_lm_head.safetensors"
    if not source.is_file():
        sys.exit(f"{source} is missing; write heads in the layout original first")
    target = source.with_suffix(".pt")
    beside = target.with_suffix(".pt.tmp")
    torch.save(load_file(source), beside)
    os.replace(beside, target)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
