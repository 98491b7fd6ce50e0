"""Serve the network with ONNX Runtime, in an app that is as simple as one in a tutorial.

Pillow and NumPy preprocess; boto3 downloads, and is imported when it is needed. What this project does would make the
app leaner, too: signed GETs, a download in the background, fewer imports, half precision. benchmarks/serving.py exports
the network, in float32, and puts it into the bucket.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, UploadFile
from mangum import Mangum
from PIL import Image

MODEL_BUCKET = os.environ["MODEL_BUCKET"]
MODEL_KEY = os.environ["MODEL_KEY"]
MODEL_PATH = Path(os.environ["MODEL_PATH"])
CLASSES = ["NORMAL", "PNEUMONIA"]
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

app = FastAPI()
session: onnxruntime.InferenceSession | None = None


def load_session() -> onnxruntime.InferenceSession:
    """Return the session, downloaded and made at the first call."""
    global session  # noqa: PLW0603  # as in the peer
    if session is None:
        if not MODEL_PATH.exists():
            import boto3  # noqa: PLC0415

            boto3.client("s3").download_file(MODEL_BUCKET, MODEL_KEY, str(MODEL_PATH))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
        session = onnxruntime.InferenceSession(MODEL_PATH, options, providers=["CPUExecutionProvider"])
    return session


def network_input(image: Image.Image) -> np.ndarray:
    """Return an RGB image's pixels as the network takes them."""
    small = image.resize((224, 224), Image.Resampling.BILINEAR)
    return ((np.asarray(small, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]


@app.get("/health")
async def health() -> dict[str, str]:
    """Tell that the process answers."""
    return {"status": "ok"}


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    """Classify one X-ray."""
    image = Image.open(io.BytesIO(file.file.read())).convert("RGB")
    logits = load_session().run(None, {"pixels": network_input(image)})[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    index = int(probabilities.argmax())
    return {"prediction": CLASSES[index], "confidence": float(probabilities[index])}


handler = Mangum(app, lifespan="off")
