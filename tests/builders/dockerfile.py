"""The Dockerfile as text: its instructions, and what it copies into the image of each engine."""

from pathlib import Path

from tests.builders.checkout import PROJECT

ENGINES = ("onnx", "torch")  # the smaller first
Instruction = list[str]  # in words


def instructions() -> list[Instruction]:
    """Return the Dockerfile's instructions."""
    lines = [line for line in (PROJECT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    return [line.split() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def stages() -> dict[str, list[Instruction]]:
    """Return the instructions of each stage, its FROM included, by the stage's name; the last one's is ""."""
    found: dict[str, list[Instruction]] = {}
    for words in instructions():
        if words[0] == "FROM":
            stage = found.setdefault(words[3] if "AS" in words else "", [])
        if found:
            stage.append(words)
    return found


def copied(engine: str) -> list[str]:
    """Return what the COPY instructions of an engine's image name, in their order."""
    named = stages()
    order = [*named["base"], *named[engine], *named[""]]
    return [source for keyword, *words in order if keyword == "COPY" for source in words[:-1]]


def files_copied(engine: str) -> set[Path]:
    """Return the files that the COPY instructions of an engine's image name, one by one or by their folder."""
    named = {path for pattern in copied(engine) for path in PROJECT.glob(pattern)}
    within = {path for folder in named for path in folder.rglob("*") if "__pycache__" not in path.parts}
    return {path for path in named | within if path.is_file()}
