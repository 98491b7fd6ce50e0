"""How this checkout's cold start compares with another checkout's, taking turns in one run.

`python benchmarks/against.py CHECKOUT XRAY.jpeg` prints a Markdown table of medians: CPU seconds of importing the app,
and CPU and wall-clock seconds from starting the process under Lambda's runtime client to its first answer, the weights
coming from moto's S3. The last column is this checkout against the other one: the median of the ratios within rounds.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from imports import ENVIRONMENT

from pneumonia.releases.fetch import RELEASED_WEIGHTS
from tools.stand_ins.events import function_url_event, multipart
from tools.stand_ins.moto import Moto, running_moto
from tools.stand_ins.runtime_api import RuntimeApi

PROJECT = Path(__file__).parent.parent
MEASURES = ("importing the app, CPU s", "first answer, CPU s", "first answer, s")


def children_seconds() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def imported(checkout: Path) -> float:
    """Return the CPU seconds of a new process that imports a checkout's app."""
    before = children_seconds()
    subprocess.run([sys.executable, "-c", "import app"], cwd=checkout, check=True, env=os.environ | ENVIRONMENT)
    return children_seconds() - before


def answered(checkout: Path, moto: Moto, bucket: str, xray: Path) -> tuple[float, float]:
    """Return the CPU and the wall-clock seconds to the first answer of a new function."""
    body, content_type = multipart("file", xray.name, xray.read_bytes(), "image/jpeg")
    event = function_url_event("POST", "/predict", body, {"Content-Type": content_type})
    with tempfile.TemporaryDirectory() as folder, RuntimeApi() as api:
        settings = {"MODEL_BUCKET": bucket, "MODEL_PATH": f"{folder}/model.pth", "PYTHONPATH": str(checkout)}
        environment = os.environ | moto.environment | settings | {"AWS_LAMBDA_RUNTIME_API": api.address}
        before, started = children_seconds(), time.perf_counter()
        command = [sys.executable, "-m", "awslambdaric", "app.handler"]
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
        try:
            response = api.invoke(event, process=process)
        finally:
            process.kill()
            process.wait()
        if response["statusCode"] != 200:
            raise RuntimeError(f"{checkout} answered {response}")
        return children_seconds() - before, time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT", help="folder of the other checkout")
    parser.add_argument("xray", type=Path, metavar="XRAY", help="full-size JPEG")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="(%(default)s)")
    args = parser.parse_args()
    checkouts = {"other": args.checkout.resolve(), "this": PROJECT.resolve()}
    rounds: list[dict[str, tuple[float, ...]]] = []
    with tempfile.TemporaryDirectory() as folder, running_moto(Path(folder)) as moto:
        bucket = moto.make_bucket("weights")
        moto.s3().upload_file(str(RELEASED_WEIGHTS), bucket, RELEASED_WEIGHTS.name)
        for number in range(args.rounds + 1):
            turns = checkouts if number % 2 else dict(reversed(checkouts.items()))
            rounds.append(
                {name: (imported(one), *answered(one, moto, bucket, args.xray)) for name, one in turns.items()}
            )
    print("| | other | this | this / other |\n|---|---|---|---|")
    for index, measure in enumerate(MEASURES):
        of = {name: [one[name][index] for one in rounds[1:]] for name in checkouts}  # the first fills the file cache
        ratio = statistics.median(this / other for this, other in zip(of["this"], of["other"], strict=True))
        other, this = (statistics.median(of[name]) for name in ("other", "this"))
        print(f"| {measure} | {other:.3f} | {this:.3f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
