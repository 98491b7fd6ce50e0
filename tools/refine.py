"""Train a release a little further, and average what comes of it with what it started from.

`python tools/refine.py --runs N --weights FILE` takes train_model.py's arguments, too, except --checkpoint-dir. Each
run starts from --weights and sees all training images once, at 224 pixels, varied as in any training. With
`--shown-otherwise SHARE`, SHARE of them are also photographed, and as many, drawn apart, get other grays
(`pneumonia/training/shown_otherwise.py`). With `--teachers FILE...` half of what it learns is the labels, and the other
half is what the teachers answer, on average, to the same varied images (Hinton, Vinyals and Dean 2015,
https://arxiv.org/abs/1503.02531; Beyer et al. 2022, https://arxiv.org/abs/2106.05237).

The runs have the seeds --seed, --seed + 1, and so on. The weights of the start and of all runs are then averaged
(Wortsman et al. 2022, https://arxiv.org/abs/2203.05482): runs from one start stay close enough for that. No run is
chosen over another. No teacher may have been trained on the validation or test images.

The model directory gets what train_model.py leaves there, and promote_model.py makes a release of it, as of any
training. docs/model-card.md says what came of it.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.command import say
from pneumonia.errors import PneumoniaError, file_sentence
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.contract import CLASSES
from pneumonia.network.weights_file import load_weights
from pneumonia.training.batches import Split, network_input, shuffled_batches
from pneumonia.training.folders import Folders, claimed
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes, joined
from pneumonia.training.report import report
from pneumonia.training.run import Run, settings_of
from train_model import parse_arguments, prepare, save_best, validate

LEARNING_RATE = 2.5e-4  # at its peak; all layers have learned already, and get 0.4 of it
TAUGHT = 0.5  # part of what is learned that comes from the teachers
State = dict[str, Tensor]


def refine(
    teachers: Sequence[Path],
    runs: int,
    shown: float,
    folders: Folders,
    chosen: Hyperparameters,
    processes: Processes,
) -> None:
    """Make the runs, average them with their start, test the average and report on it.

    Args:
        teachers: weights files.
        runs: how many to make.
        shown: share of the images that is photographed, and share that gets other grays.
        folders: as for a training.
        chosen: hyperparameters of each run; its seed is that of the first.
        processes: one, with the device.

    Raises:
        PneumoniaError: bad input, or training that diverged.
        OSError: a file cannot be read or written.
    """
    networks = [load_weights(path).to(processes.device) for path in teachers]
    digests = [sha256(path) for path in teachers]
    model, pretrained, splits, data_check = prepare(folders, chosen, processes)
    run = Run.start(model, pretrained, chosen, splits["train"].count, processes)
    seeds = range(chosen.seed, chosen.seed + runs)
    results, losses = zip(
        *(refined(networks, splits["train"], seed, shown, chosen, processes) for seed in seeds), strict=True
    )
    run.averaged.load_state_dict(mean_of([model.state_dict(), *results]))
    torch.manual_seed(chosen.seed)
    run.history.append(validate(run, 1, math.fsum(losses) / runs, splits, chosen, processes))
    save_best(run, folders, processes)
    settings = settings_of(chosen, splits, processes) | {
        "runs": runs,
        "teachers": digests,
        "shown_otherwise": shown,
    }
    report(run, splits, data_check, settings, folders.weights, folders.output, processes)


def refined(
    teachers: Sequence[nn.Module], split: Split, seed: int, shown: float, chosen: Hyperparameters, processes: Processes
) -> tuple[State, float]:
    """Train once; return the moving average of the weights, and the mean loss per image in nats."""
    model, pretrained = build_network(chosen.weights)
    run = Run.start(model, pretrained, chosen, split.count, processes)
    torch.manual_seed(seed)
    run.model.train()
    losses = []
    for images, labels in shuffled_batches(split, chosen.batch_size, processes, f"seed {seed}"):
        parts = (torch.split(each, run.batch_size) for each in (network_input(images, SIZE, shown), labels))
        for inputs, answers in zip(*parts, strict=True):
            losses.append(run.step(inputs, targets(teachers, inputs, answers)) * len(answers))
            run.follow()
    loss = float(torch.stack(losses).sum()) / split.count
    say(f"seed={seed} train_loss={loss:.4f}")
    return run.averaged.state_dict(), loss


@torch.no_grad()
def targets(teachers: Sequence[nn.Module], inputs: Tensor, labels: Tensor) -> Tensor:
    """Return what to learn: the labels, and for the part TAUGHT the teachers' mean probabilities.

    Args:
        teachers: networks in evaluation mode.
        inputs: float32, shape (N, 3, height, width), as the network takes them.
        labels: int64, shape (N,), indices in CLASSES.

    Returns:
        Probabilities, float32, shape (N, 2), or without teachers the labels.
    """
    if not teachers:
        return labels
    taught = torch.stack([teacher(inputs).softmax(1) for teacher in teachers]).mean(0)
    return torch.lerp(functional.one_hot(labels, len(CLASSES)).float(), taught, TAUGHT)


def mean_of(states: Sequence[State]) -> State:
    """Return the mean of each tensor of state dicts, in its own type."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Refine; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="refine.py",
        description=(__doc__ or "").partition("\n")[0],
        epilog="--weights and the others: as `train_model.py --help` lists them",
    )
    parser.add_argument("--teachers", type=Path, nargs="+", default=[], metavar="FILE", help="weights files (none)")
    parser.add_argument(
        "--shown-otherwise",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the images to photograph, and of those to give other grays, 0 to 1 (%(default)s)",
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="(%(default)s)")
    args, others = parser.parse_known_args(argv)
    if not 0 <= args.shown_otherwise <= 1:
        parser.error(f"--shown-otherwise must be 0 to 1, not {args.shown_otherwise}")
    if args.runs < 1:
        parser.error(f"--runs must be 1 or more, not {args.runs}")
    try:
        folders, chosen = parse_arguments(["--epochs", "1", "--learning-rate", str(LEARNING_RATE), *others])
        if chosen.weights in {"imagenet", "none"}:
            parser.error(f"--weights must name a weights file, not be {chosen.weights}")
        if chosen.epochs != 1:
            parser.error(f"each run is one epoch, not {chosen.epochs}")
        if folders.checkpoints:
            parser.error("nothing is resumed: leave out --checkpoint-dir")
        load_weights(Path(chosen.weights))  # it must be whole: runs from layers that begin at random do not average
        with ExitStack() as stack:
            processes = stack.enter_context(joined())
            if processes.count > 1:
                parser.error("start it without torchrun: it trains in one process")
            stack.enter_context(claimed(folders, processes))
            refine(args.teachers, args.runs, args.shown_otherwise, folders, chosen, processes)
    except PneumoniaError as error:
        say(*error.files, str(error), file=sys.stderr)
        return 1
    except OSError as error:
        say(file_sentence(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
