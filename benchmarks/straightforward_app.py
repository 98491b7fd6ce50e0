"""The app that the field's tutorials show, as the peer of ours in benchmarks/serving.py.

torchvision's model and transforms, boto3's `download_file`, everything imported at the top, one `async def` route that
computes on the event loop. Weights are float32, as `torch.save(model.state_dict())` leaves them.
"""

import io
import os
from pathlib import Path
from typing import Any

import boto3
import torch
from fastapi import FastAPI, File, UploadFile
from mangum import Mangum
from PIL import Image
from torchvision import models, transforms

MODEL_BUCKET = os.environ["MODEL_BUCKET"]
MODEL_KEY = os.environ["MODEL_KEY"]
MODEL_PATH = Path(os.environ["MODEL_PATH"])
CLASSES = ["NORMAL", "PNEUMONIA"]

app = FastAPI()
model: torch.nn.Module | None = None
transform = transforms.Compose(
    [
        transforms.Resize((224, 224)),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


def load_file() -> torch.nn.Module:
    """Return the model, downloaded and loaded at the first call."""
    global model  # noqa: PLW0603  # what tutorials do
    if model is None:
        if not MODEL_PATH.exists():
            boto3.client("s3").download_file(MODEL_BUCKET, MODEL_KEY, str(MODEL_PATH))
        model = models.resnet18(weights=None)
        model.fc = torch.nn.Linear(512, len(CLASSES))
        model.load_state_dict(torch.load(MODEL_PATH, map_location="cpu"))
        model.eval()
    return model


@app.get("/health")
def health() -> dict[str, str]:
    """Tell that the process answers."""
    return {"status": "ok"}


@app.post("/predict")
async def predict(file: UploadFile = File(...)) -> dict[str, Any]:  # noqa: B008  # what tutorials do
    """Classify one X-ray."""
    image = Image.open(io.BytesIO(await file.read())).convert("RGB")
    with torch.no_grad():
        probabilities = torch.softmax(load_file()(transform(image).unsqueeze(0)), dim=1)[0]
    index = int(probabilities.argmax())
    return {"prediction": CLASSES[index], "confidence": float(probabilities[index])}


handler = Mangum(app)
