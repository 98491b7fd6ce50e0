"""Answer image files with the code of one checkout, and print a digest of all answers.

`PYTHONPATH=CHECKOUT python tools/answers.py FILE...` posts each file to `/predict` of that checkout's app and prints a
line for each answer, and at the end a SHA-256 over all of them. Two checkouts with the same digest give the same
answers to the last digit; with `--classes`, the same classes, whatever their probabilities are.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Print the answers and their digest; return the exit status."""
    parser = argparse.ArgumentParser(prog="answers.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="images, answered in the order of names")
    parser.add_argument("--classes", action="store_true", help="print and compare only the classes")
    args = parser.parse_args(argv)
    os.environ["MODEL_BUCKET"] = ""
    os.environ["MODEL_PATH"] = "/nowhere/model.pth"  # so that the checkout's released model answers

    from fastapi.testclient import TestClient  # noqa: PLC0415  # after the environment is set

    import app  # noqa: PLC0415

    digest = hashlib.sha256()
    client = TestClient(app.app)
    for path in sorted(args.files, key=lambda path: path.name):
        response = client.post("/predict", files={"file": path.read_bytes()})
        answer = response.json()
        shown = answer.get("prediction") if args.classes else json.dumps(answer, sort_keys=True)
        line = f"{path.name} {response.status_code} {shown}"
        digest.update(line.encode() + b"\n")
        print(line)
    print(f"{len(args.files)} answers, SHA-256 {digest.hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
