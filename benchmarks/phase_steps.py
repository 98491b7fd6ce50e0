# ruff: noqa: PLC0415  # imports are measured, so they come when an app needs them
"""Time the phases of one app in one process, from its import to its answers; for benchmarks/phases.py.

`python benchmarks/phase_steps.py APP XRAY ROUNDS` prints JSON: for each phase the milliseconds, in the order of time.
"""

import importlib
import io
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from serving_apps import APPS, App


class Clock:
    """Times phases; `taken` has the milliseconds by phase."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a block."""
        started = time.perf_counter()
        yield
        self.taken[phase].append((time.perf_counter() - started) * 1000)


def imported(app: App, clock: Clock) -> Any:  # noqa: ANN401  # a module
    """Import an app as on Lambda, but without the download that this project's app starts meanwhile."""
    variables = dict(os.environ)
    os.environ["AWS_LAMBDA_RUNTIME_API"] = "127.0.0.1:9"
    if app.engine:
        os.environ["MODEL_BUCKET"] = ""
    with clock("imports"):
        module = importlib.import_module(app.module)
    os.environ.update(variables)
    return module


def ours(module: Any, clock: Clock) -> Callable[[bytes], None]:  # noqa: ANN401
    """Fetch and load the model of this project's app; return a function that takes an X-ray through the phases."""
    from pneumonia.deadline import Deadline
    from pneumonia.imaging.decoding import decode
    from pneumonia.imaging.preprocessing import preprocess
    from pneumonia.network.heatmap import heatmap_png
    from pneumonia.releases.fetch import Weights
    from pneumonia.releases.loading import classifier_of

    with clock("download"):
        release = Weights.from_environment().find(Deadline.after(60))
    with clock("load"):
        model = classifier_of(release)

    def answer(xray: bytes) -> None:
        with clock("decode"):
            image = decode(xray).image
        with clock("preprocess"):
            pixels = preprocess(image)
        with clock("network"):
            outputs = model.engine(pixels)
        with clock("heatmap"):
            heatmap_png(outputs.evidence[0], image.size)
        with clock("whole answer"):
            module.predictor.predict(xray)

    return answer


def straightforward(module: Any, clock: Clock) -> Callable[[bytes], None]:  # noqa: ANN401
    """Fetch and load the model of the straightforward app; return a function that takes an X-ray through the phases."""
    with clock("download"):
        module.boto3.client("s3").download_file(module.MODEL_BUCKET, module.MODEL_KEY, str(module.MODEL_PATH))
    with clock("load"):
        network = module.load_file()

    def answer(xray: bytes) -> None:
        with clock("decode"):
            image = module.Image.open(io.BytesIO(xray)).convert("RGB")
        with clock("preprocess"):
            pixels = module.transform(image).unsqueeze(0)
        with clock("network"), module.torch.no_grad():
            network(pixels)

    return answer


def plain_onnx(module: Any, clock: Clock) -> Callable[[bytes], None]:  # noqa: ANN401
    """Fetch and load the model of the plain ONNX app; return a function that takes an X-ray through the phases."""
    with clock("download"):
        import boto3

        boto3.client("s3").download_file(module.MODEL_BUCKET, module.MODEL_KEY, str(module.MODEL_PATH))
    with clock("load"):
        session = module.load_session()

    def answer(xray: bytes) -> None:
        with clock("decode"):
            image = module.Image.open(io.BytesIO(xray)).convert("RGB")
        with clock("preprocess"):
            pixels = module.network_input(image)
        with clock("network"):
            session.run(None, {"pixels": pixels})

    return answer


WAYS = {"straightforward": straightforward, "plain onnx": plain_onnx}


def main(name: str, xray: Path, rounds: int) -> None:
    """Measure and print."""
    clock, data = Clock(), xray.read_bytes()
    module = imported(APPS[name], clock)
    answer = WAYS.get(name, ours)(module, clock)
    for _ in range(rounds + 1):
        answer(data)
    print(json.dumps(clock.taken))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
