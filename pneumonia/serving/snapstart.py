"""Lambda SnapStart: make a process ready to answer before its snapshot, and bring each restored one up to date.

Lambda imports the handler when a version is published, takes a snapshot of the process, and starts new instances from
it. So the model is loaded and has answered once before that. What all instances would share for days is renewed after
the restore. https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html
"""

import contextlib
import gc
import io
import json
import logging
import random
import sys
from base64 import b64encode
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import imagecodecs
import simplejpeg  # noqa: F401  # for progressive JPEGs
from PIL import Image
from snapshot_restore_py import register_after_restore, register_before_snapshot

from pneumonia.deadline import Deadline
from pneumonia.imaging import deep_files, dicom  # noqa: F401  # for the files that they name
from pneumonia.network.outputs import check_outputs
from pneumonia.serving.predictor import Predictor

LOAD_SECONDS = 60.0  # of the 130 or more that Lambda gives the initialisation
RESTORE_SECONDS = 5.0  # of the 10 that Lambda gives the hooks after a restore
CODECS = ("jpeg2k_decode", "jpeg8_decode", "jpegls_decode", "png_decode", "tiff_decode")  # imported when they are named
BOUNDARY = "snapshot"
logger = logging.getLogger(__name__)

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


def prepare(handler: Handler, predictor: Predictor) -> None:
    """Load and try the model, and tell the runtime client what to do before the snapshot and after each restore.

    Args:
        handler: of the function.
        predictor: its predictor.

    Raises:
        WeightsError, WeightsUnavailableError, RuntimeError: the model cannot be loaded or does not answer. Lambda logs
            the sentence, and publishing the version fails.
    """
    model = predictor.load(Deadline.after(LOAD_SECONDS))
    check_outputs(model.engine, f"release {model.version}")
    _import_the_rest()
    _try_out(handler)
    register_before_snapshot(_settle, predictor)
    register_after_restore(_renew, predictor)
    logger.info("Model %s is loaded and tried: the snapshot can be taken.", model.version)


def _import_the_rest() -> None:
    """Import what a cold start leaves to the files that need it; the top of this module does that too."""
    Image.init()  # imports Pillow's plugins
    for name in CODECS:
        getattr(imagecodecs, name)


def _settle(predictor: Predictor) -> None:
    """Leave no refresh under way in the snapshot, no credentials of boto3's, and no garbage."""
    predictor.finish_refresh(Deadline.after(LOAD_SECONDS))
    if boto3 := sys.modules.get("boto3"):  # read the weights, as it does where signed requests of our own cannot
        vars(boto3).update(DEFAULT_SESSION=None)
    gc.collect()
    gc.freeze()  # a collection would read all of a snapshot that is fetched as it is read


def _renew(predictor: Predictor) -> None:
    """Draw other random numbers than all other instances, and look for another release."""
    random.seed()
    for name in ("torch", "numpy.random"):  # those that the engine has imported
        if module := sys.modules.get(name):
            module.seed()
    predictor.refresh(Deadline.after(RESTORE_SECONDS))
    logger.info("Restored from a snapshot: model %s serves.", predictor.model_version)


def _try_out(handler: Handler) -> None:
    """Have the handler answer with a heatmap and show the page: what first requests set up is set up then.

    Raises:
        RuntimeError: an answer's status is not 200.
    """
    context = SimpleNamespace(aws_request_id=BOUNDARY, get_remaining_time_in_millis=lambda: int(LOAD_SECONDS * 1000))
    for event in (_event("POST", "/predict", "explain=1&preview=1", _form(_picture())), _event("GET", "/")):
        with contextlib.redirect_stdout(io.StringIO()):  # no patient's image: it must not count in the metrics
            response = handler(event, context)
        if response["statusCode"] != 200:
            raise RuntimeError(f"Before the snapshot, {event['rawPath']} is answered with {json.dumps(response)}.")


def _picture() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "JPEG")
    return file.getvalue()


def _form(image: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{BOUNDARY}"\r\n\r\n'
    return b"%s%s\r\n--%s--\r\n" % (head.encode(), image, BOUNDARY.encode())


def _event(method: str, path: str, query: str = "", body: bytes = b"") -> dict[str, Any]:
    """Return the event of a request to a Function URL."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"content-type": f"multipart/form-data; boundary={BOUNDARY}", "host": "127.0.0.1"},
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "127.0.0.1"}, "stage": "$default"},
        "body": b64encode(body).decode(),
        "isBase64Encoded": True,
    }
