"""What `make run` and `make develop` install, by stand-ins for PyTorch's index and the ordinary one."""

import datetime
import io
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.builders.checkout import PROJECT

pytestmark = pytest.mark.processes

PYTORCH = "download.pytorch.org"
FALLBACK = (
    "PyTorch's index cannot be reached, or lacks this version: the ordinary index serves, for Linux with 5 GB of CUDA."
)
OF_PYTHON = {"pip", "setuptools"}  # what a new environment may have
UV = Path(sys.executable).with_name("uv")
HAS_GPU = Path("/sys/module/nvidia").exists() or shutil.which("nvidia-smi")


class Indexes(ThreadingHTTPServer):
    """Both indexes at one address: the ordinary one, and, to whom it is the proxy, PyTorch's at https://PYTORCH.

    Each has version 1.0 of whatever it is asked for, PyTorch's with the index's name (cpu, cu130) as local version.

    Args:
        certificate: file with PYTORCH's certificate and key.
    """

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.proxied: set[str] = set()  # the hosts that it was asked to connect to
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: uv asks for a wheel's length, and hangs up when it is told."""


class Handler(BaseHTTPRequestHandler):
    """Answers as an index with one page for each package."""

    protocol_version = "HTTP/1.1"
    server: Indexes

    def do_CONNECT(self) -> None:
        self.server.proxied.add(self.path.partition(":")[0])
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_GET(self) -> None:
        folder, name = unquote(self.path).rstrip("/").rsplit("/", 1)
        if name.endswith(".whl"):
            self.answer("application/zip", wheel(*name.split("-")[:2]))
        else:
            local = "" if folder == "/simple" else f"+{folder.rsplit('/', 1)[1]}"
            file = f"{name}-1.0{local}-py3-none-any.whl"
            self.answer("text/html", f'<a href="{quote(f"{folder}/{name}/{file}")}">{file}</a>'.encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # the server closes the one that it accepted, which TLS has taken over

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Stay silent."""


def wheel(name: str, version: str) -> bytes:
    """Return a wheel with nothing in it but its description."""
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file, content in files.items():
            archive.writestr(f"{name}-{version}.dist-info/{file}", content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for PYTORCH and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, PYTORCH)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(PYTORCH)]), critical=False)
    path = tmp_path_factory.mktemp("certificate") / "pytorch.pem"
    path.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def indexes(certificate: Path) -> Iterator[Indexes]:
    with Indexes(certificate) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def port_that_refuses() -> Iterator[int]:
    with socket.socket() as unheard:  # bound, so that it is nobody else's, and not listening
        unheard.bind(("127.0.0.1", 0))
        yield unheard.getsockname()[1]


@dataclass
class Checkout:
    """A folder with what installing needs of a checkout, requirements for the stand-ins, and a new environment."""

    folder: Path
    environment: dict[str, str]

    def make(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        variables = self.environment | environment
        command = ["make", "--silent", *arguments]
        return subprocess.run(command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)

    def installed(self, environment: str = ".venv") -> dict[str, str]:
        """Return the versions of what is installed in an environment."""
        (packages,) = (self.folder / environment).glob("lib/python*/site-packages")
        names = (folder.name.removesuffix(".dist-info") for folder in packages.glob("*.dist-info"))
        versions = dict(name.split("-") for name in names)
        return {name: version for name, version in versions.items() if name not in OF_PYTHON}


@pytest.fixture
def checkout(tmp_path: Path, indexes: Indexes, certificate: Path) -> Checkout:
    folder = tmp_path / "checkout"
    venv.create(folder / ".venv")
    (folder / ".venv/bin/uv").symlink_to(UV)
    (folder / "tools").mkdir()
    for name in ("Makefile", "tools/install.sh"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "requirements.txt").write_text("other==1.0\ntorch==1.0\n")
    (folder / "requirements-onnx.txt").write_text("other==1.0\n")
    (folder / "requirements-dev.txt").write_text("other==1.0\ntorch==1.0\ntorchvision==1.0\n")
    environment = {
        "PATH": os.environ["PATH"],
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": f"{indexes.address}/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{indexes.address}/simple",
        "HTTPS_PROXY": indexes.address,
        "SSL_CERT_FILE": str(certificate),
    }
    return Checkout(folder, environment)


def test_serving_takes_the_builds_for_cpus(checkout: Checkout, indexes: Indexes) -> None:
    done = checkout.make(".venv/serving", UV_CUDA_DRIVER_VERSION="580.65")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert checkout.installed() == {"torch": "1.0+cpu", "other": "1.0"}
    assert indexes.proxied == {PYTORCH}


@pytest.mark.skipif(bool(HAS_GPU), reason="there is a GPU")
def test_development_takes_the_builds_for_cpus_where_there_is_no_gpu(checkout: Checkout) -> None:
    done = checkout.make("develop")
    assert (done.returncode, done.stderr) == (0, "")
    assert checkout.installed() == {"torch": "1.0+cpu", "torchvision": "1.0+cpu", "other": "1.0"}


def test_development_takes_cuda_where_there_is_a_gpu_and_leaves_no_build_for_cpus(checkout: Checkout) -> None:
    gpu = {"UV_CUDA_DRIVER_VERSION": "580.65"}
    assert checkout.make(".venv/serving", **gpu).returncode == 0
    done = checkout.make("develop", **gpu)
    assert (done.returncode, done.stderr) == (0, "")
    installed = checkout.installed()
    assert installed["torch"].startswith("1.0+cu1")
    assert installed["torch"] == installed["torchvision"]


def test_serving_leaves_what_development_has_installed(checkout: Checkout) -> None:
    assert checkout.make("develop", UV_CUDA_DRIVER_VERSION="580.65").returncode == 0
    before = checkout.installed()
    done = checkout.make("run", MODEL_PATH="none.pth")
    assert done.stderr.startswith("MODEL_PATH names none.pth, which is no file")
    assert checkout.installed() == before


NO_FILE = {"MODEL_PATH": "none.pth"}  # so that nothing is served


def test_the_engine_onnx_has_an_environment_without_torch_that_leaves_the_other_alone(checkout: Checkout) -> None:
    assert checkout.make("run", **NO_FILE).returncode != 0
    with_torch = checkout.installed()
    done = checkout.make("run", "ENGINE=onnx", **NO_FILE)
    assert done.stderr.startswith("MODEL_PATH names none.onnx, which is no file")
    assert checkout.installed(".venv/onnx") == {"other": "1.0"}
    assert checkout.installed() == with_torch == {"other": "1.0", "torch": "1.0+cpu"}


def test_the_engine_onnx_needs_no_other_environment_and_keeps_no_package_of_earlier_requirements(
    checkout: Checkout,
) -> None:
    shutil.rmtree(checkout.folder / ".venv")
    requirements = checkout.folder / "requirements-onnx.txt"
    requirements.write_text("earlier==1.0\n")
    assert checkout.make(".venv/onnx/serving").returncode == 0
    requirements.write_text("other==1.0\n")
    os.utime(requirements, (time.time() + 1,) * 2)
    assert checkout.make(".venv/onnx/serving").returncode == 0
    assert checkout.installed(".venv/onnx") == {"other": "1.0"}
    assert [path.name for path in (checkout.folder / ".venv").iterdir()] == ["onnx"]


@pytest.mark.parametrize(("target", "names"), [(".venv/serving", {"torch"}), ("develop", {"torch", "torchvision"})])
def test_the_ordinary_index_serves_where_pytorchs_refuses(checkout: Checkout, target: str, names: set[str]) -> None:
    with port_that_refuses() as port:
        done = checkout.make(target, HTTPS_PROXY=f"http://127.0.0.1:{port}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{FALLBACK}\n")
    assert checkout.installed() == dict.fromkeys({*names, "other"}, "1.0")


def test_the_ordinary_index_serves_where_pytorchs_lacks_the_version(checkout: Checkout, indexes: Indexes) -> None:
    (checkout.folder / "requirements.txt").write_text("other==1.0\ntorch==1.0,!=1.0+cpu\n")
    done = checkout.make(".venv/serving")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{FALLBACK}\n")
    assert checkout.installed() == {"torch": "1.0", "other": "1.0"}
    assert indexes.proxied == {PYTORCH}


@pytest.mark.slow  # for as long as a network may take to answer
def test_the_ordinary_index_serves_where_pytorchs_is_silent(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = checkout.make(".venv/serving", HTTPS_PROXY=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{FALLBACK}\n")
    assert checkout.installed() == {"torch": "1.0", "other": "1.0"}


def test_an_index_that_is_named_is_taken(checkout: Checkout, indexes: Indexes) -> None:
    done = checkout.make("develop", TORCH_INDEX_URL=f"{indexes.address}/whl/cu126")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    installed = checkout.installed()
    assert (installed["torch"], installed["torchvision"]) == ("1.0+cu126", "1.0+cu126")
    assert indexes.proxied == set()


def test_without_any_index_nothing_counts_as_installed(checkout: Checkout) -> None:
    with port_that_refuses() as port:
        nowhere = f"http://127.0.0.1:{port}"
        done = checkout.make(".venv/serving", HTTPS_PROXY=nowhere, UV_DEFAULT_INDEX=nowhere, UV_HTTP_RETRIES="0")
    assert done.returncode != 0
    assert done.stderr.startswith(f"{FALLBACK}\nerror: Failed to fetch")
    assert not (checkout.folder / ".venv/serving").exists()


def test_the_script_has_no_finding_of_shellcheck() -> None:
    command = [Path(sys.executable).with_name("shellcheck"), PROJECT / "tools/install.sh"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")
