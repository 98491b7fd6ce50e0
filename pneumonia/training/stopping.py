"""What a training says when a signal ends it: that of Ctrl-C, of `kill`, or of SageMaker, which stops a job.

Whether SageMaker's signal gets here depends on the container. In jobs of its SDK 3 the shell that runs the scripts is
the container's first process, and passes it on to none: after 120 seconds all processes are killed.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from pneumonia.errors import printable
from pneumonia.training.checkpoint_file import one_before
from pneumonia.training.folders import Folders
from pneumonia.training.run import Run

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def telling_when_stopped(sentence: Callable[[], str]) -> Iterator[None]:
    """Write a sentence to the log when a signal ends the process within the block.

    Args:
        sentence: makes it, at that moment.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        bar = "\n" if sys.stderr.isatty() else ""  # which the terminal's cursor may be behind
        os.write(2, f"{bar}{printable(sentence())}\n".encode())  # print could have been interrupted in itself
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def what_is_kept_meanwhile(folders: Folders, checkpoint: Path | None) -> str:
    """Return what a training leaves if it is killed without a signal, for the beginning of a job's log."""
    state = f"and in {checkpoint} what the same command goes on from" if checkpoint else "but nothing to go on from"
    return f"kept after each epoch: the best checkpoint so far in {folders.weights}, {state}"


def what_a_full_disk_leaves(run: Run, folders: Folders, checkpoint: Path | None) -> str | None:
    """Return what a training leaves that cannot write a file, and how to go on; None if nothing."""
    if checkpoint and run.saved:
        return f"The checkpoint of epoch {run.saved} is kept in {checkpoint}: the same command goes on from it."
    if run.history:
        return f"The best checkpoint before is kept in {folders.weights}, and nothing to go on from."
    return None


def what_is_kept(
    history: Sequence[object], planned: int, folders: Folders, checkpoint: Path | None, refining_runs: int = 0
) -> str:
    """Return what a training that is stopped now leaves, and how to go on.

    Args:
        history: an entry for each epoch that has ended, and one for the refined network.
        planned: number of all epochs.
        folders: where it writes.
        checkpoint: what the same command goes on from, None for nothing.
        refining_runs: how many follow the epochs.
    """
    refining = refining_runs > 0 and len(history) == planned
    if refining and not history:
        return "Stopped while refining: there is nothing to go on from."
    if not history:
        return f"Stopped before the first of {planned} epochs had ended: there is nothing to go on from."
    done = "calibrated and tested" if folders.reports[0].exists() else "neither calibrated nor tested yet"
    if not checkpoint:
        further = "without --checkpoint-dir, no state is kept to go on from"
    elif checkpoint.exists() or one_before(checkpoint).exists():
        further = f"the same command goes on from {checkpoint}"
    else:
        further = "its state was not written yet, so the same command begins again"
    best = f"the best checkpoint so far is {folders.weights}, {done}"
    stage = ", while refining" if refining else ", refined" if len(history) > planned else ""
    when = f"after {min(len(history), planned)} of {planned} epochs{stage}" if planned else "after refining"
    return f"Stopped {when}: {best}; {further}."
