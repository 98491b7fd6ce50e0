"""Clients at once, in a process of their own, so that they do not keep whoever measures waiting.

`python benchmarks/clients.py PORT XRAY CLIENTS REQUESTS` shares the requests out among the clients and prints how many
seconds they took.
"""

import http.client
import itertools
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tools.stand_ins.events import multipart


def main(port: int, xray: Path, clients: int, requests: int) -> None:
    """Ask for so many predictions."""
    body, content_type = multipart("file", xray.name, xray.read_bytes(), "image/jpeg")
    turns = itertools.count()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        while next(turns) < requests:
            connection.request("POST", "/predict", body, {"Content-Type": content_type})
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise RuntimeError(f"answered {response.status}: {content[:200]!r}")

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(ask) for _ in range(clients)]:
            done.result()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
