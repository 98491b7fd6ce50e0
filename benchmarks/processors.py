"""Check whether an ONNX file gives the same outputs on processors without VNNI.

    apt-get install qemu-user
    python benchmarks/processors.py weights/pneumonia_classifier.onnx

VNNI adds products of 8-bit integers in 32 bits. Without it, ONNX Runtime first adds two of them in 16 bits, which
saturate. QEMU runs the same Python and ONNX Runtime as on a processor that has at most AVX2, or at most SSE4.2. It does
not know AVX-512, whose instruction for such a sum saturates as that of AVX2 does. This takes minutes.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.engines.onnx import engine_in
from pneumonia.network.outputs import Floats, probes

PROCESSORS = {"AVX2": "max", "SSE4.2": "Nehalem"}  # by instructions, QEMU's name of a processor that has no newer ones
PRINT = "--print"


def main(file: str, *options: str) -> None:
    """Print how far the logits on each processor are from those on this one; with PRINT, print the latter."""
    here = logits_of(Path(file))
    if PRINT in options:
        print(json.dumps(here.tolist()))
        return
    for instructions, processor in PROCESSORS.items():
        difference = np.abs(logits_on(processor, file) - here).max()
        print(f"{instructions}: logits differ by at most {difference:.2g} of {np.abs(here).max():.2g}", flush=True)


def logits_of(file: Path) -> Floats:
    """Return the logits of an ONNX file for the probes, float32, shape (4, 2)."""
    return engine_in(file.read_bytes(), str(file), is_checked=True)(probes()).logits


def logits_on(processor: str, file: str) -> Floats:
    """Return the logits that QEMU computes as another processor, float32, shape (4, 2)."""
    command = ["qemu-x86_64", "-cpu", processor, sys.executable, __file__, file, PRINT]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return np.array(json.loads(printed), np.float32)


if __name__ == "__main__":
    main(*sys.argv[1:])
