"""What each part of the training recipe is worth, over patient-grouped folds and seeds.

`python benchmarks/recipe.py FOLDER --weights PATH --output DIR` divides FOLDER/{NORMAL,PNEUMONIA} into folds, no
patient in two of them. A run validates on one fold, tests on the next and trains on the others; run i of every variant
takes fold and seed i. Each run is train_model.py in a process of its own, with one part of the recipe taken away or
one added. The script writes DIR/recipe.json after every run, does not repeat runs that it finds there, and prints a
Markdown table of mean and standard deviation over the runs. It refuses runs there of other images, weights (by digest)
or settings; it does not compare the code. DIR/answers gets each run's answers to its validation and test images, for
benchmarks/operating_point.py.

With `--hold-out 'NORMAL2-*'` the files of such names are neither trained nor validated on, but are the test, together
with the test fold's images of the other class: how a model does on images of another collection. A held-out file
may have the patient number of a file that is trained on; whether that is the same child is not known.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent.parent))
from runs import completed, folds_of, images_of, splits_of, table, weights_of

import train_model
from pneumonia.command import exit_status
from pneumonia.network.contract import CLASSES, WEIGHTS_NAME
from pneumonia.releases.loading import load
from pneumonia.training import augmentation, batches, evaluate
from pneumonia.training import run as running
from pneumonia.training.augmentation import augment
from pneumonia.training.channels import SPLITS, scan_folder
from pneumonia.training.images import load_channel
from pneumonia.training.pretrained import build_network
from pneumonia.training.run import training_precision
from pneumonia.training.shown_otherwise import shown_otherwise
from pneumonia.training.split import labelled_files, place

FIGURES = (
    *("val_accuracy", "val_auroc", "test_accuracy", "test_auroc"),
    *("test_balanced_accuracy", "test_sensitivity", "test_specificity"),
)


def resized(images: Tensor, size: int, _: float) -> Tensor:
    """Stand in for `augment` without varying anything."""
    return functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)


def half_untouched(images: Tensor, size: int, _: float) -> Tensor:
    """Stand in for `augment`, leaving half of the images wholly as they are."""
    is_varied = torch.rand(len(images), 1, 1, 1).to(images.device) < 0.5
    return torch.where(is_varied, augment(images, size), resized(images, size, 0))


def mirrored(images: Tensor, size: int, retaken: float) -> Tensor:
    """Stand in for `augment`, mirroring half of the images besides."""
    is_mirrored = torch.rand(len(images), 1, 1, 1).to(images.device) < 0.5
    return augment(torch.where(is_mirrored, images.flip(-1), images), size, retaken)


def shown(images: Tensor, size: int, retaken: float) -> Tensor:
    """Stand in for `augment`; photograph half of the images as well, and give other grays to half, drawn apart."""
    return shown_otherwise(augment(images, size, retaken), 0.5)


def balanced_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Stand in for `training_loss`, a batch's classes weighing alike however many images of each there are."""
    counts = torch.bincount(labels, minlength=len(CLASSES)).clamp(min=1)
    weight = len(labels) / (len(CLASSES) * counts)
    return functional.cross_entropy(logits, labels, weight, label_smoothing=running.LABEL_SMOOTHING)


def set_name(module: ModuleType, name: str, value: object) -> Callable[[], None]:
    """Return what changes one of a module's names for this process."""
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name}")  # a variant that changes nothing would look like one
    return lambda: setattr(module, name, value)


def without(step: str) -> Callable[[], None]:
    """Return what leaves out one of the steps that vary images."""
    return set_name(augmentation, step, lambda images, _: images)


VARIANTS: dict[str, Callable[[], None]] = {
    "recipe": lambda: None,
    "from scratch": set_name(train_model, "build_network", lambda _: build_network("none")),
    "not varied": set_name(batches, "augment", resized),
    "half untouched": set_name(batches, "augment", half_untouched),
    "none retaken": set_name(batches, "RETAKEN_SHARE", 0.0),
    "all retaken": set_name(batches, "RETAKEN_SHARE", 1.0),
    "not moved": without("_move"),
    "not exposed": without("_expose"),
    "not sharpened": without("_sharpen"),
    "no noise": without("_add_noise"),
    "not compressed": without("_compress"),
    "not covered": without("_cover_border"),
    "mirrored": set_name(batches, "augment", mirrored),
    "shown otherwise": set_name(batches, "augment", shown),
    "not shown otherwise in refining": set_name(train_model, "SHOWN_OTHERWISE", 0.0),
    "class-balanced loss": set_name(running, "training_loss", balanced_loss),
    "batch norm not re-estimated": set_name(train_model, "reestimate_batch_norm", lambda *_: None),
    "labels not smoothed": set_name(running, "LABEL_SMOOTHING", 0.0),
    "weights not averaged": set_name(running, "AVERAGED_SHARE", 1e-9),
    "one learning rate": set_name(running, "PRETRAINED_RATE", 1.0),
    "full size throughout": set_name(train_model, "SMALL_SHARE", 0.0),
    "small size throughout": set_name(train_model, "SMALL_SHARE", 1.0),
}


def link_fold(number: int, args: argparse.Namespace, destination: Path) -> None:
    """Lay out the channels of one run as links."""
    files = labelled_files(scan_folder(args.folder))
    held_out = {index for index, (_, path) in enumerate(files) if fnmatch(path.name, args.hold_out)}
    place(files, splits_of(number, folds_of(files, args.folds), files, held_out), destination, link=True)


def run(variant: str, number: int, args: argparse.Namespace) -> dict[str, float]:
    """Train once; return the figures of the training report."""
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        link_fold(number, args, root / "data")
        channels = [argument for split in SPLITS for argument in (f"--{split}", str(root / "data" / split))]
        places = ["--model-dir", str(root / "model"), "--output-data-dir", str(root / "output")]
        settings = ["--weights", args.weights, "--epochs", str(args.epochs), "--seed", str(number)]
        settings += ["--refining-runs", str(args.refining_runs)]
        command = [sys.executable, __file__, "--variant", variant, *channels, *places, *settings]
        subprocess.run(command, check=True, stdout=sys.stderr)
        for split in ("val", "test"):
            file = answers_file(args.output, variant, number, split)
            write_answers(root / "model" / WEIGHTS_NAME, root / "data" / split, file)
        report = json.loads((root / "model" / "training.json").read_text())
    return {name: report["metrics"][name] for name in FIGURES}


def answers_file(output: Path, variant: str, number: int, split: str) -> Path:
    """Return where a run's answers to a split are kept."""
    return output / "answers" / f"{variant.replace(' ', '-')}-{number}-{split}.csv"


def write_answers(weights: Path, folder: Path, file: Path) -> None:
    """Write what a bare network answers to a folder's images, as `pneumonia evaluate` does."""
    model, channel = load(weights), scan_folder(folder)
    images = load_channel(channel, 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    evaluate.write_predictions(evaluate.answers_to(channel, images, model, 64), file)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("--weights", default="imagenet", help="as train_model.py takes it (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("recipe"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each variant (%(default)s)")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="3 or more (%(default)s)")
    parser.add_argument("--hold-out", default="", metavar="PATTERN", help="file names that are only tested on")
    parser.add_argument("--epochs", type=int, default=15, metavar="N", help="(%(default)s)")
    parser.add_argument("--refining-runs", type=int, default=0, metavar="N", help="after the epochs (%(default)s)")
    args = parser.parse_args(argv)
    if args.folds < 3:
        parser.error(f"--folds must be 3 or more, not {args.folds}")
    return args


def main() -> int:
    """Run what is missing, print what is there; with --variant, train once."""
    if sys.argv[1:2] == ["--variant"]:
        VARIANTS[sys.argv[2]]()
        return train_model.main(sys.argv[3:])
    args = parse_arguments(sys.argv[1:])
    settings: dict[str, Any] = {"folder": images_of(args.folder), "weights": weights_of(args.weights)}
    settings |= {name: getattr(args, name) for name in ("folds", "epochs", "hold_out")}
    settings |= {"refining_runs": args.refining_runs} if args.refining_runs else {}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings["precision"] = str(training_precision(device)).removeprefix("torch.")
    path = args.output / "recipe.json"
    results = completed(path, settings, args.variants, args.runs, lambda variant, number: run(variant, number, args))
    print(table("variant", results, {name: name for name in FIGURES}))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
