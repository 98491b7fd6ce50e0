"""List what is installed, how large it is, and which of the image's functions imports it.

`python benchmarks/packages.py < EVENT.json` has app.py's handler answer the event, one of a Function URL, and prints a
Markdown table of the installed distributions, with the megabytes of those of their files that exist. Promotion and S3
Batch Operations also import a client of S3. DICOM files need what `imaging.dicom` imports, progressive JPEGs need
simplejpeg, and markdown-it shows the model card. This needs nothing but what serving needs, so it runs in the image
too:
`docker run --rm -i --entrypoint python IMAGE -c "$(cat benchmarks/packages.py)" < EVENT.json`.
"""

import json
import sys
from importlib.metadata import distributions, packages_distributions
from importlib.util import find_spec
from types import SimpleNamespace

sys.path.insert(0, ".")
import app

CUDA = ("nvidia", "cuda", "triton")  # what torch of pip's default index needs on Linux, unlike a CPU wheel


def answer(event: dict[str, object]) -> None:
    """Have the handler answer an event.

    Raises:
        RuntimeError: it answers that something is wrong.
    """
    context = SimpleNamespace(aws_request_id="none", get_remaining_time_in_millis=lambda: 60_000)
    response = app.handler(event, context)
    if response["statusCode"] != 200:
        raise RuntimeError(f"answered {response}")


def imported() -> set[str]:
    """Return the names of the distributions that this process has imported anything of."""
    owners = packages_distributions()
    # The .pth file of setuptools imports its `_distutils_hack` in every process: that alone is no use of it.
    modules = {name.partition(".")[0] for name, module in sys.modules.items() if module} - {"_distutils_hack"}
    return {owner for module in modules for owner in owners.get(module, [])}


def main() -> None:
    """Print the table."""
    if text := sys.stdin.read():
        answer(json.loads(text))
    by_prediction = imported()
    import boto3  # noqa: PLC0415  # not before this: a prediction does without
    import markdown_it  # noqa: F401, PLC0415
    import simplejpeg  # noqa: F401, PLC0415

    import pneumonia.imaging.dicom  # noqa: PLC0415

    if find_spec("promote_model"):  # only the image with torch has it
        import pneumonia.engines.onnx  # noqa: PLC0415
        import pneumonia.engines.onnx_file  # noqa: F401, PLC0415
        import promote_model  # noqa: F401, PLC0415

    boto3.client("s3", region_name="eu-central-1")
    by_others = imported()
    print("| package | MB | imported by |", "|---|---|---|", sep="\n")
    sizes: dict[str, float] = {}
    for distribution in sorted(distributions(), key=lambda one: one.name.lower()):
        files = [file.locate() for file in distribution.files or []]
        size = sum(file.stat().st_size for file in files if file.is_file())  # type: ignore[attr-defined]
        sizes[distribution.name] = size / 1e6
        user = "others" if distribution.name in by_others else "none"
        user = "prediction" if distribution.name in by_prediction else user
        print(f"| {distribution.name} | {size / 1e6:.2f} | {user} |")
    cuda = sum(size for name, size in sizes.items() if name.startswith(CUDA))
    print(f"\nAll: {sum(sizes.values()):.0f} MB, {cuda:.0f} of them CUDA's, which a CPU wheel of torch does not need.")


if __name__ == "__main__":
    main()
