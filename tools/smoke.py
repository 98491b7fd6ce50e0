"""Has a function behind Lambda's runtime interface emulator classify a drawn radiograph.

`python -m tools.smoke http://127.0.0.1:9000 weights/pneumonia_classifier.pth`; `.ci/smoke` starts the emulator.
"""

import io
import json
import math
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from pneumonia.command import exit_status
from pneumonia.errors import PneumoniaError
from pneumonia.releases.fetch import Weights
from pneumonia.serving.predictor import Predictor
from pneumonia.training.synthetic import draw_radiograph
from tools.stand_ins.events import function_url_event, multipart

INVOCATIONS = "/2015-03-31/functions/function/invocations"  # the emulator's one address
START_SECONDS = 60  # until the container listens
ANSWER_SECONDS = 120  # of the first invocation, which loads the model
TOLERANCE = 1e-4  # of a probability: the image's build of torch may be another than the checkout's


class SmokeError(PneumoniaError):
    """The function does not answer as it should."""


def smoke(emulator: str, weights: Path) -> dict[str, Any]:
    """Ask the function what a drawn radiograph shows, and compare with what this checkout says.

    Args:
        emulator: its address, such as "http://127.0.0.1:9000".
        weights: the file that the function has too.

    Returns:
        The function's answer.

    Raises:
        SmokeError: it does not answer, with another status than 200, or otherwise than the checkout.
    """
    file = io.BytesIO()
    draw_radiograph(Random(0), "PNEUMONIA").save(file, "JPEG")
    radiograph = file.getvalue()
    expected = asdict(Predictor(Weights(weights)).predict(radiograph))
    body, content_type = multipart("file", "xray.jpg", radiograph, "image/jpeg")
    response = invoke(emulator, function_url_event("POST", "/predict", body, {"Content-Type": content_type}))
    if response.get("statusCode") != 200:
        raise SmokeError(f"The function fails: instead of an answer with status 200 it gives {response}.")
    answer: dict[str, Any] = json.loads(response["body"])
    if not agree(answer, expected):
        raise SmokeError(f"The function answers {answer}, but the checkout {expected}: which weights has it?")
    return answer


def invoke(emulator: str, event: dict[str, Any]) -> dict[str, Any]:
    """Send an event, again and again until the emulator listens, and return what the handler returns.

    Raises:
        SmokeError: nothing listens.
    """
    request = urllib.request.Request(emulator + INVOCATIONS, json.dumps(event).encode())
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
                result: dict[str, Any] = json.load(response)
                return result
        except OSError as error:  # refused, or dropped by Docker's proxy, which listens before the container does
            if time.monotonic() > deadline:
                raise SmokeError(f"No function answers at {emulator} ({error}): read the container's log.") from error
            time.sleep(0.5)


def agree(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Tell whether two answers are the same, but for the last digits of their probabilities."""
    same = {"prediction", "model_version", "warnings"}
    ours, theirs = expected["probabilities"], answer.get("probabilities", {})
    return (
        answer.keys() == expected.keys()
        and all(answer[name] == expected[name] for name in same)
        and theirs.keys() == ours.keys()
        and all(math.isclose(theirs[name], ours[name], abs_tol=TOLERANCE) for name in ours)
    )


def main() -> None:
    """Run the smoke test and print the function's answer."""
    emulator, weights = sys.argv[1:]
    print(smoke(emulator, Path(weights)))


if __name__ == "__main__":
    sys.exit(exit_status(main))
