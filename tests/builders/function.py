"""An instance of the function as Lambda runs it."""

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.builders.checkout import make_task_root
from tools.stand_ins.moto import REGION
from tools.stand_ins.runtime_api import RuntimeApi

BUCKET = "weights"
Response = dict[str, Any]


class Function:
    """One instance of the function: the real runtime client, with a folder of its own, and the API that feeds it.

    Args:
        folder: an empty folder for all that the instance has.
        environment: variables on top of those that Lambda sets: where S3 is.
        handler: what the runtime client calls.
        python: the interpreter, by default this process's.
    """

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        handler: str = "app.handler",
        python: str | Path = sys.executable,
    ) -> None:
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.task_root = make_task_root(folder / "task")
        self._log = folder / "log"
        self.api = RuntimeApi()
        variables = {
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048",
            "AWS_LAMBDA_FUNCTION_NAME": "pneumonia",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_RUNTIME_API": self.api.address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "LAMBDA_TASK_ROOT": str(self.task_root),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "PATH": os.defpath,
            "PYTHONDONTWRITEBYTECODE": "1",
            "MODEL_BUCKET": BUCKET,
            "MODEL_PATH": str(self.tmp / "model.pth"),
            "ENGINE": os.environ.get("ENGINE", ""),  # the fixture `engine`'s
        }
        self.process = subprocess.Popen(
            [python, "-m", "awslambdaric", handler],
            env=variables | environment,  # and none of ours: Lambda sets no HOME either
            cwd=self.task_root,
            stdout=subprocess.PIPE,  # not the file itself, as that counts among those which a limit keeps from growing
            stderr=subprocess.STDOUT,
        )
        self._log.touch()
        self._logging = threading.Thread(target=self._keep_log)

    def _keep_log(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines, self._log.open("ab", buffering=0) as log:
            for line in lines:
                log.write(line)

    def __enter__(self) -> Self:
        self._logging.start()
        self.api.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._logging.join()
        self.api.__exit__(kind, error, traceback)
        print(self._log.read_text())  # pytest shows it where a test fails

    def invoke(self, event: object, timeout: float = 60) -> Response:
        """Return the response to an event; not answered in time, it is no response, as on Lambda."""
        return self.api.invoke(event, timeout, self.process)

    def log(self) -> str:
        """Return what the function has logged."""
        return self._log.read_text()

    def log_of(self, request_id: str) -> str:
        """Return the lines of the log that name a request."""
        return "\n".join(line for line in self.log().splitlines() if request_id in line)

    def wait_for_log(self, request_id: str, words: str) -> None:
        """Wait until the log says something of a request: its lines come through a pipe, after the answer or before."""
        for _ in range(600):
            if words in self.log_of(request_id):
                return
            time.sleep(0.05)
        raise AssertionError(f"The log of {request_id} never says {words!r}: {self.log_of(request_id)}")

    @contextlib.contextmanager
    def limited(self, kind: int, limit: int) -> Iterator[None]:
        """Have the kernel hold the process to a limit."""
        soft, hard = resource.prlimit(self.process.pid, kind)
        resource.prlimit(self.process.pid, kind, (limit, hard))
        try:
            yield
        finally:
            resource.prlimit(self.process.pid, kind, (soft, hard))

    def address_space(self) -> int:
        """Return how many bytes of address space the process has taken."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[0]
        return int(pages) * resource.getpagesize()
