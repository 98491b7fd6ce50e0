"""Compare cold starts, warm invocations, memory and concurrency of five apps.

`python benchmarks/serving.py XRAY` runs all parts, or those named by --parts, prints Markdown tables and writes
DIR/serving.json. The apps (benchmarks/serving_apps.py) are this project with torch, and with ONNX Runtime and two ONNX
files, the straightforward app that tutorials show, and a plain app with ONNX Runtime. They run under the real runtime
client, `awslambdaric`, or under uvicorn, with weights from a local S3 server (moto's), and take turns within a round.

import torch      `python -c "import torch"`, all of it; this project leaves a part out
bare              benchmarks/bare.py, decoding and the network alone, with either engine

cold       from starting the process to the first answer, by the clock and the processor; and the bytes fetched
warm       an invocation from the event to the response, with memory that pays for one core, and for two
memory     largest resident memory (VmHWM) after 100 invocations
uvicorn    requests per second by the number of clients, the 99th percentile of /health meanwhile, and threads
soak       resident memory over 10,000 requests, and what is left in the temporary folder
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from serving_apps import Bench
from serving_bucket import fill_buckets
from serving_parts import PARTS, Results
from serving_tables import tables

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.files import write_json
from tools.stand_ins.moto import running_moto

PACKAGES = ("torch", "torchvision", "fastapi", "boto3", "onnxruntime")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON after each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("xray", type=Path, metavar="XRAY", help="full-size JPEG, about 2 megapixels")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("serving"), metavar="DIR", help="(%(default)s)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    report: Results = {
        "machine": f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()})",
        "packages": {name: version(name) for name in PACKAGES},
    }
    with tempfile.TemporaryDirectory() as temporary, running_moto(Path(temporary)) as moto:
        bench = Bench(args.xray, moto, Path(temporary), args.rounds)
        fill_buckets(bench)
        for part in args.parts:
            report[part] = PARTS[part](bench)
            write_json(args.output / "serving.json", report)
    print(tables(report))


if __name__ == "__main__":
    main()
