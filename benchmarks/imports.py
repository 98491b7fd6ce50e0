"""What a cold start imports, and what it would cost to import more.

`python benchmarks/imports.py` starts each way in turn, in a new process, and prints a Markdown table of medians of CPU
seconds (user and system, of the process alone), which other work on the machine changes less than wall time.
"""

import os
import platform
import resource
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).parent.parent
RUNS = 7
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}  # as on Lambda, where imports are lean
WAYS = {
    "torch": "import torch",
    "torch, leaner": "from pneumonia.serving.coldstart import lean_imports\nwith lean_imports(): import torch",
    "FastAPI": "import fastapi",
    "the app, as it is": "import app",
    "the app, not leaner": "from pneumonia.serving import coldstart\ncoldstart.UNUSED.clear()\nimport app",
    "the app and botocore's signing": "import app, botocore.auth, botocore.awsrequest, botocore.credentials",
    "the app and boto3's S3 client": "import app, boto3\nboto3.client('s3', region_name='eu-west-1')",
    "the app and torchvision": "import torchvision, app",
}


def cpu_seconds(program: str) -> float:
    """Run a program in a new process; return the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, env=os.environ | ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    for program in WAYS.values():  # once each for the file cache and the byte code
        cpu_seconds(program)
    rounds = [{name: cpu_seconds(program) for name, program in WAYS.items()} for _ in range(RUNS)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in WAYS}
    print(
        f"Python {platform.python_version()}, torch {version('torch')}, torchvision {version('torchvision')}, "
        f"{os.cpu_count()} cores ({platform.machine()}); medians of {RUNS}.\n"
    )
    print("| import | CPU seconds | of the app |")
    print("|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} | {seconds / medians['the app, as it is']:.2f} |")


if __name__ == "__main__":
    main()
