"""The signed call of docs/deployment.md, run by bash and curl against a server that checks signatures as AWS does."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from fastapi.testclient import TestClient
from PIL import Image

from pneumonia.releases.fetch import Weights
from pneumonia.serving.api import create_app
from pneumonia.serving.predictor import Predictor
from tests.builders.checkout import PROJECT
from tests.builders.images import encoded
from tools.stand_ins.moto import REGION

pytestmark = pytest.mark.processes

KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

# In the place of the AWS CLI and of the stack's output.
PRELUDE = """
aws() { echo "export AWS_ACCESS_KEY_ID=$KEY_ID AWS_SECRET_ACCESS_KEY=$SECRET $TOKEN"; }
output() { echo "$FUNCTION_URL"; }
"""


class Url(HTTPServer):
    """A Function URL that keeps the last request."""

    headers: dict[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    server: Url

    def do_POST(self) -> None:
        self.server.headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  # the name is the standard library's
        """Stay silent."""


@pytest.fixture
def url() -> Iterator[Url]:
    with Url(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def signed_call() -> str:
    """Return the commands of docs/deployment.md that sign a request."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (PROJECT / "docs/deployment.md").read_text(), re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "--aws-sigv4" in block)
    return str(block)


def expected_signature(url: Url, signed: list[str]) -> str:
    """Return the signature that a request should have, over its body and the headers that it names."""
    request = AWSRequest(
        "POST",
        f"http://{url.headers['host']}/predict",
        headers={name: url.headers[name] for name in signed},
        data=url.body,
    )
    request.context["timestamp"] = url.headers["x-amz-date"]
    auth = SigV4Auth(Credentials(KEY_ID, SECRET), "lambda", REGION)
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


@pytest.mark.parametrize("token", ["", "AWS_SESSION_TOKEN=AQoDYXdzEPT//example+token=="])
def test_documented_call_is_signed_over_a_form_that_the_app_reads(
    url: Url, token: str, tmp_path: Path, weights: Path
) -> None:
    if not shutil.which("curl"):
        pytest.skip("the documented call takes curl: apt-get install curl")
    image = encoded(Image.linear_gradient("L"), "JPEG")
    (tmp_path / "xray.jpg").write_bytes(image)
    settings = {
        "AWS_REGION": REGION,
        "FUNCTION_URL": f"http://127.0.0.1:{url.server_port}/",
        "KEY_ID": KEY_ID,
        "SECRET": SECRET,
        "TOKEN": token,
        "PATH": "/usr/bin:/bin",
    }
    subprocess.run(["bash", "-euc", PRELUDE + signed_call()], cwd=tmp_path, env=settings, check=True)

    authorization = url.headers["authorization"]
    names, signature = re.findall(r"SignedHeaders=([^,]+), Signature=(\w+)", authorization)[0]
    assert signature == expected_signature(url, names.split(";"))
    assert url.headers.get("x-amz-security-token", "") == token.partition("=")[2]
    with TestClient(create_app(Predictor(Weights(weights)))) as client:
        answer = client.post("/predict", content=url.body, headers={"Content-Type": url.headers["content-type"]})
        usual = client.post("/predict", files={"file": ("xray.jpg", image, "image/jpeg")})
    assert answer.status_code == 200, answer.text
    assert answer.json() == usual.json()
