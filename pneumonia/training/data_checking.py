"""Count what makes figures untrue: what two channels share, mixed classes, too few patients. Does not import torch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TextIO

from pneumonia.command import say
from pneumonia.errors import FEW, DataError, few, with_files
from pneumonia.names import in_text
from pneumonia.network.contract import CLASSES
from pneumonia.network.data_check import DataCheck, in_words
from pneumonia.training.channels import Channel, misnamed
from pneumonia.training.patients import about_unnamed, certain_patient_of

# Of each class. With so many, the 95% interval of a sensitivity or specificity of 0.9 is 0.1 to either side, by the
# normal approximation: 0.9 * 0.1 * (1.96 / 0.1)². With fewer, nobody could tell whether a calibration is better.
PATIENTS_NEEDED = 35
Digested = tuple[Channel, Sequence[str]]  # a channel, and the SHA-256 of each of its files


@dataclass(frozen=True)
class Finding:
    """Something that makes figures untrue: a sentence, and the files that it is about, for the log."""

    sentence: str
    files: list[str] = field(default_factory=list)


def check_readable(broken: Sequence[str]) -> None:
    """Check that no image is broken.

    Args:
        broken: what `unreadable` says about each broken image.

    Raises:
        DataError: there is one; the sentence names a few, the error's `files` are all.
    """
    if broken:
        images = f"{len(broken):,} images" if len(broken) > FEW else "Images"
        raise with_files(DataError(f"{images} cannot be read, remove or replace them: {few(broken)}"), broken)


def unreadable(channel: Channel, path: Path, error: Exception) -> str:
    """Return which file of a channel cannot be used, and why."""
    reason = error.strerror or error if isinstance(error, OSError) else error
    return f"{in_text(f'{channel.name}/{path.relative_to(channel.root)}')} ({reason})"


def check_channels(channels: Sequence[Digested]) -> DataCheck:
    """Count what makes a training's figures untrue, and print a warning for each thing found.

    Args:
        channels: "train", "val" and "test".

    Raises:
        DataError: an image is in both classes, byte for byte.
    """
    check_labels(channels)
    shared: dict[str, dict[str, int]] = {}
    findings: list[Finding] = []
    for one, other in combinations(channels, 2):
        images, patients = _shared(one, other), _shared(_with_patients(one[0]), _with_patients(other[0]))
        if counts := {name: len(files) for name, files in (("images", images), ("patients", patients)) if files}:
            shared[f"{one[0].name} and {other[0].name}"] = counts
            findings.append(_leak(one[0].name, other[0].name, counts, [*dict.fromkeys(images + patients)]))
    names = {channel.name: channel for channel, _ in channels}
    findings += [*about_names(list(names.values())), *_about_validation(names["val"])]
    return DataCheck(shared, tell(findings))


def check_labels(channels: Iterable[Digested]) -> None:
    """Check that no image is in both classes, byte for byte.

    Raises:
        DataError: there are such images; it names them.
    """
    found: dict[str, dict[int, list[str]]] = {}
    for channel, digests in channels:
        for index, digest in enumerate(digests):
            found.setdefault(digest, {}).setdefault(channel.labels[index], []).append(_shown(channel, index))
    both = [" and ".join([*labels[0], *labels[1]]) for labels in found.values() if len(labels) > 1]
    if both:
        sentence = f"The same image is in {' and in '.join(CLASSES)}, byte for byte ({few(both)}): remove one of them."
        raise with_files(DataError(sentence), both)


def about_names(channels: Sequence[Channel]) -> list[Finding]:
    """Return what file names say against the figures: files of the other class, and names without a patient."""
    findings = [finding for channel in channels for finding in _about_classes(channel)]
    paths = [path for channel in channels for path in channel.paths]
    if unnamed := about_unnamed(paths, channels[0].pattern):
        findings.append(Finding(unnamed))
    return findings


def about_training(check: DataCheck | None) -> Iterator[Finding]:
    """Yield what training found in its own images, if it is known: it makes figures on those images untrue."""
    for warning in check.warnings if check else ():
        yield Finding(f"In the model's training: {warning}")


def tell(findings: Sequence[Finding], stream: TextIO | None = None) -> list[str]:
    """Print each finding as a warning, and its files one on a line; return the sentences.

    Args:
        findings: what is told.
        stream: where to; None for the standard output.
    """
    for finding in findings:
        say(f"Warning: {finding.sentence}", *(f"  {name}" for name in finding.files), file=stream)
    return [finding.sentence for finding in findings]


def _about_classes(channel: Channel) -> Iterator[Finding]:
    for label, other in (CLASSES, CLASSES[::-1]):
        names = channel.names(label)
        if wrong := [in_text(f"{channel.name}/{label}/{name}") for name in misnamed(label, names)]:
            yield Finding(
                f"{len(wrong):,} of {len(names):,} files of {channel.name}/{label} are named as {other} are, "
                f"{wrong[0]} among them: check that they are in the right folder.",
                wrong,
            )


def _leak(one: str, other: str, counts: dict[str, int], files: list[str]) -> Finding:
    return Finding(
        f"{one} and {other} share {in_words(counts)}: figures on {other} do not hold for new patients. Divide the "
        "images anew with `pneumonia split`.",
        files,
    )


def _about_validation(channel: Channel) -> Iterator[Finding]:
    patients = {*zip(channel.labels, channel.patients(), strict=True)}
    counts = [sum(label == index for label, _ in patients) for index in range(len(CLASSES))]
    if min(counts) < PATIENTS_NEEDED:
        found = " and ".join(f"{count:,} with {label}" for count, label in zip(counts, CLASSES, strict=True))
        yield Finding(
            f"{channel.name} has images of few patients, {found}, and {PATIENTS_NEEDED} of each are needed: the best "
            "epoch, the operating point and the calibration rest on a handful."
        )


def _with_patients(channel: Channel) -> tuple[Channel, list[str | None]]:
    return channel, [certain_patient_of(path, channel.pattern) for path in channel.paths]


def _shared(one: tuple[Channel, Sequence[str | None]], other: tuple[Channel, Sequence[str | None]]) -> list[str]:
    """Return for each thing that two channels have in common a file of the second that has it, and one of the first.

    Args:
        one: a channel, and what each of its files has; None for what cannot be compared.
        other: another.
    """
    first, second = ({key: index for index, key in enumerate(keys) if key is not None} for _, keys in (one, other))
    return [f"{_shown(other[0], second[key])} and {_shown(one[0], first[key])}" for key in second if key in first]


def _shown(channel: Channel, index: int) -> str:
    return in_text(f"{channel.name}/{CLASSES[channel.labels[index]]}/{channel.paths[index].name}")
