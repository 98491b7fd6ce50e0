"""Decode an image and run the network, and nothing else: no invocation of this project can be faster.

A Lambda handler for benchmarks/serving.py, so that it takes turns with the others under the same conditions.
"""

import base64
import os
import time
from pathlib import Path
from typing import Any

from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import preprocess
from pneumonia.releases.loading import load

model = load(Path(os.environ["MODEL_PATH"]))


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Answer the event's `image`, base64; `seconds` in the answer is the time for decoding and the network."""
    data = base64.b64decode(event["image"])
    started = time.perf_counter()
    model.engine(preprocess(decode(data).image))
    return {"statusCode": 200, "seconds": time.perf_counter() - started}
