"""Which ways to train do well on other data, compared on a small scale: 128 pixels, few epochs, several seeds.

`python benchmarks/ways.py FOLDER ADULTS --weights PATH` trains each way once for each seed on the images of
FOLDER/{NORMAL,PNEUMONIA} without those called NORMAL2-…, which are another collection. Run i validates on fold i of the
patients, and tests on the pneumonias of the next fold and all of NORMAL2. With `--hold-out brightest` or `darkest`, a
fifth of the images is left out instead, by their mean gray, and tested on. The network is then judged, at 128 pixels
and calibrated on its validation as a release is, by

validation, test   AUROC; for the test also balanced accuracy and expected calibration error, as served
adults             AUROC and calibration error on ADULTS/{NORMAL,PNEUMONIA}, which nothing is trained or calibrated on
photographs        how many answers for 120 of the test's films, half of them NORMAL2, change when the film is
                   photographed (benchmarks/photographs.py), and how many normal films become pneumonias

The runs differ in seed and fold. But NORMAL2, the adults and 60 of the photographed films are the same in each, and the
other 60 films are of the few patients with the most films: the spread is that of networks, not of patients. With
`--hold-out brightest` or `darkest` the test and all photographed films are the same in each run, and patients may be
both in training and in the test. Some NORMAL2 files have the number of a file that is trained on; whether that is the
same child is not known.

DIR/ways.json, in the folder that --output names, gets the figures of each run; a run that is there is not done again.
Runs there of other images or weights (by digest), --hold-out, --epochs or precision are refused; the code is not
compared. The script prints a Markdown table of mean and standard deviation; `--help` lists the ways. A run takes a
tenth of a release's training: compare the ways with each other, not with a release.
"""

import argparse
import copy
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn
from torchvision.ops import roi_align
from torchvision.transforms.v2 import CutMix, MixUp, RandomResizedCrop
from torchvision.transforms.v2.functional import equalize as equalize_whole

sys.path.insert(0, str(Path(__file__).parent.parent))
from photographs import photograph
from recipe import resized
from runs import completed, folds_of, images_of, splits_of, table, weights_of
from thorax import place_of_thorax

from pneumonia.command import exit_status
from pneumonia.errors import DataError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import SIZE, resize
from pneumonia.network.contract import CLASSES
from pneumonia.network.resnet import normalize
from pneumonia.training import metrics
from pneumonia.training.augmentation import augment, places
from pneumonia.training.batches import RETAKEN_SHARE
from pneumonia.training.channels import scan_folder
from pneumonia.training.fitting import fit, log_odds, suspicions
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.images import Images, load_channel
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes
from pneumonia.training.run import AVERAGED_SHARE, Evaluation, Run, is_better, training_precision
from pneumonia.training.shown_otherwise import shown_otherwise
from pneumonia.training.split import labelled_files
from train_model import NORMALIZED_BY, REFINING_RATE, SHOWN_OTHERWISE, add
from train_model import SMALL_SIZE as SIDE

BORDER = SIZE // 10  # pixels at each edge of an image of SIZE pixels
FOLDS = 5
MARGIN = 0.15  # of half the thorax's width and height
ELSEWHERE = "NORMAL2-"  # how the names of the other collection's files begin
PHOTOGRAPHED = 60  # films of each class
RUNS = 3
FIGURES = {
    "val_auroc": "validation AUROC",
    "auroc": "test AUROC",
    "balanced_accuracy": "balanced accuracy",
    "ece": "test ECE",
    "adults_auroc": "adults AUROC",
    "adults_ece": "adults ECE",
    "changed": "photographs: changed",
    "alarms": "false alarms",
}
HELD_OUT = ("collection", "brightest", "darkest")
Intensity = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def as_they_are(pixels: Tensor) -> Tensor:
    """Return the pixels."""
    return pixels


def equalized(pixels: Tensor) -> Tensor:
    """Equalise histograms, counted without BORDER of the image at each edge, where frames and labels lie.

    A value becomes the mean rank of its pixels, scaled so that the darkest becomes 0 and the brightest 255. So it
    hardly matters how finely a file tells shades apart. (Gonzalez and Woods, *Digital Image Processing*, section 3.3,
    take the rank of its last pixel.) An image of one value stays as it is.
    """
    values, side = pixels.round().long(), pixels.shape[-1]
    border = side * BORDER // SIZE
    within = slice(border, side - border)
    inner = values[..., within, within].flatten(2)
    counts = histograms(inner)
    ranks = 2 * counts.cumsum(2) - counts  # twice the mean rank
    ranks -= ranks.gather(2, inner.amin(2, keepdim=True))
    most = ranks.gather(2, inner.amax(2, keepdim=True))
    table = torch.where(most > 0, (ranks / most.clamp(min=1) * 255).round().clamp(0, 255), torch.arange(256))
    return table.gather(2, values.flatten(2)).view(pixels.shape)


def histograms(values: Tensor) -> Tensor:
    """Count how often each of 0 to 255 stands in the last dimension of values, int64; int64, shape (..., 256)."""
    counts = torch.zeros(*values.shape[:-1], 256, dtype=torch.int64)
    return counts.scatter_add_(-1, values, counts.new_ones(()).expand(values.shape))


def equalized_half_way(pixels: Tensor) -> Tensor:
    """Return the mean of the pixels and the equalised ones."""
    return (pixels + equalized(pixels)) / 2


def equalized_by_a_quarter(pixels: Tensor) -> Tensor:
    """Return the pixels, moved a quarter of the way to the equalised ones."""
    return torch.lerp(pixels, equalized(pixels), 0.25)


def equalized_with_border(pixels: Tensor) -> Tensor:
    """Equalise histograms of whole images, as Pillow does."""
    whole: Tensor = equalize_whole(pixels.round().byte())
    return whole.float()


def between_quantiles(pixels: Tensor) -> Tensor:
    """Set each image's 1% quantile to black and its 99% quantile to white; an image of one value stays as it is."""
    low, high = torch.quantile(pixels.flatten(1), torch.tensor([0.01, 0.99]), dim=1).view(2, -1, 1, 1, 1)
    spread = ((pixels - low) / (high - low) * 255).clamp(0, 255)
    return torch.where(high > low, spread, pixels)


def without_border(pixels: Tensor) -> Tensor:
    """Return images without BORDER of the image at each edge, as large as before."""
    side = pixels.shape[-1]
    border = side * BORDER // SIZE
    within = pixels[..., border:-border, border:-border]
    return functional.interpolate(within, (side, side), mode="bilinear", align_corners=False)


def around_the_thorax(pixels: Tensor) -> Tensor:
    """Crop each image to the thorax (thorax.py) and MARGIN on each side; resize it to the size that it had."""
    grays = pixels.mean(1).round().byte().numpy()
    boxes = torch.tensor([box_around_thorax(image.tobytes()) for image in grays]) * pixels.shape[-1]
    around: Tensor = roi_align(pixels, list(boxes[:, None]), pixels.shape[-1], aligned=True)
    return around


@functools.cache  # finding a thorax takes as long as ten steps of training on the image
def box_around_thorax(grays: bytes) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom, 0 to 1, of what `around_the_thorax` keeps of a square image."""
    side = math.isqrt(len(grays))
    across, down, wide, high = place_of_thorax(Image.frombytes("L", (side, side), grays))
    wide, high = wide * (1 + MARGIN), high * (1 + MARGIN)
    return max(0.0, across - wide), max(0.0, down - high), min(1.0, across + wide), min(1.0, down + high)


def smoothed(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs as they are, and a tenth of each label for both classes alike, besides what the loss smooths."""
    return inputs, functional.one_hot(labels, len(CLASSES)) * 0.9 + 0.1 / len(CLASSES)


@dataclass(frozen=True)
class Way:
    """What is done otherwise than by the recipe.

    Attributes:
        intensity: from pixels, float32 in [0, 255], to such; in training and whenever the network is run.
        served: as `intensity`, when the network is run, if that is done otherwise than in training.
        late: in training after the images are varied, not before.
        backgrounds: share of the images whose outer parts are another image's.
        crops: share of the images that are cropped to a tenth of their area or more before they are varied.
        retaken: share of the images that look as if taken otherwise.
        shown: share of the images that are photographed, and share that get other grays, after they are varied.
        mixed: from a batch's inputs and labels, to such with probabilities for labels.
        dropout: share of the features before `fc` that are left out at a step.
        weight_decay: of AdamW.
        averaged: how far back the moving average of the weights remembers, as a share of all steps.
        selected: the epoch of the best validation is taken, as training does, not the last one.
        refining_runs: each trains one more epoch from the same weights, with images shown otherwise; the weights at
            their ends are averaged, as train_model.py does.
        sharpness: the radius of sharpness-aware minimisation (`climb`); 0 turns it off.
        grays: share of the images that get another image's histogram (`with_grays_of_another`) before they are varied.
        styles: share of the steps that mix the images' styles in the network (`mixing_styles`).
        teachers: how many networks with other seeds are trained first, for `taught_by`.
    """

    intensity: Intensity = as_they_are
    served: Intensity | None = None
    late: bool = False
    backgrounds: float = 0.0
    crops: float = 0.0
    retaken: float = RETAKEN_SHARE
    shown: float = 0.0
    mixed: Mix | None = None
    dropout: float = 0.0
    weight_decay: float = Hyperparameters.weight_decay
    averaged: float = AVERAGED_SHARE
    selected: bool = False
    refining_runs: int = 0
    sharpness: float = 0.0
    grays: float = 0.0
    styles: float = 0.0
    teachers: int = 0


WAYS = {
    "recipe": Way(),
    "equalised half-way": Way(intensity=equalized_half_way),
    "equalised": Way(intensity=equalized),
    "equalised late": Way(intensity=equalized, late=True),
    "equalised late, with the border": Way(intensity=equalized_with_border, late=True),
    "equalised late, hard crops": Way(intensity=equalized, late=True, crops=0.5),
    "other backgrounds": Way(backgrounds=0.5),
    "hard crops": Way(crops=0.5),
    "all retaken": Way(retaken=1.0),
    "shown otherwise": Way(shown=0.5),
    "all retaken, shown otherwise": Way(retaken=1.0, shown=0.5),
    "mixup": Way(mixed=MixUp(alpha=0.3, num_classes=len(CLASSES))),
    "cutmix": Way(mixed=CutMix(alpha=1.0, num_classes=len(CLASSES))),
    "smoother labels": Way(mixed=smoothed),
    "dropout": Way(dropout=0.5),
    "more weight decay": Way(weight_decay=0.1),
    "averaged for longer": Way(averaged=0.4),
    "between quantiles": Way(intensity=between_quantiles),
    "without the border": Way(intensity=without_border),
    "around the thorax": Way(intensity=around_the_thorax),
    "sharpness-aware": Way(sharpness=0.05),
    "grays of another": Way(grays=0.5),
    "styles mixed": Way(styles=0.5),
    "taught by three": Way(teachers=3),
    "taught by three, refined in three runs": Way(teachers=3, refining_runs=3),
    "best epoch": Way(selected=True),
    "refined in three runs": Way(refining_runs=3),
    "averaged for longer, refined in three runs": Way(averaged=0.4, refining_runs=3),
    "shown otherwise, equalised by a quarter": Way(intensity=equalized_by_a_quarter, shown=0.5),
    "shown otherwise, equalised by a quarter when run": Way(served=equalized_by_a_quarter, shown=0.5),
    "equalised by a quarter when run": Way(served=equalized_by_a_quarter),
    "equalised half-way when run": Way(served=equalized_half_way),
}
EPILOG = "\n".join(
    [
        f"Without --ways and --runs, {RUNS * len(WAYS)} runs are made: {RUNS} of each of these {len(WAYS)} ways.",
        *(f'  "{name}"' for name in WAYS),
        'example: ways.py FOLDER ADULTS --weights PATH --runs 1 --ways recipe "shown otherwise"',
    ]
)


@dataclass(frozen=True)
class Fold:
    """The images of one run: indices in the data set."""

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True)
class Data:
    """The data set and the adults, decoded.

    Attributes:
        images: the data set.
        files: class and path of each image.
        folds: the indices of each fold's images.
        elsewhere: the indices of those that are held out.
        adults: images of adults.
    """

    images: Images
    files: list[tuple[str, Path]]
    folds: list[list[int]]
    elsewhere: set[int]
    adults: Images

    @classmethod
    def read(cls, folder: Path, adults: Path, held_out: str = "collection") -> "Data":
        """Decode all images, and divide those of the data set by patient.

        Raises:
            DataError: no images, or none of the other collection where it is held out.
            OSError: a file cannot be read.
        """
        channel = scan_folder(folder)
        if held_out == "collection" and not any(path.name.startswith(ELSEWHERE) for path in channel.paths):
            raise DataError(
                f"{folder} has no file called {ELSEWHERE}…, and these are held out by default: pass --hold-out "
                "brightest or --hold-out darkest."
            )
        images, files = load_channel(channel, 2), labelled_files(channel)
        elsewhere = indices_held_out(held_out, channel.paths, images.pixels)
        return cls(images, files, folds_of(files, FOLDS), elsewhere, load_channel(scan_folder(adults), 2))

    def fold(self, number: int) -> Fold:
        """Return the images of a run; its test has the pneumonias first."""
        splits = splits_of(number, self.folds, self.files, self.elsewhere)
        test = sorted(splits["test"], key=lambda index: -int(self.images.labels[index]))
        return Fold(*map(torch.tensor, (splits["train"], splits["val"], test)))


def indices_held_out(held_out: str, paths: list[Path], pixels: Tensor) -> set[int]:
    """Return the indices of the images that one of HELD_OUT names."""
    if held_out == "collection":
        return {index for index, path in enumerate(paths) if path.name.startswith(ELSEWHERE)}
    by_gray = torch.stack([image.float().mean() for image in pixels]).argsort(descending=held_out == "brightest")
    return set(by_gray[: len(paths) // FOLDS].tolist())


def check_photographed(data: Data, runs: int) -> None:
    """Check that the test of each run has the films of each class that are photographed.

    Raises:
        DataError: it has fewer.
    """
    for number in range(runs):
        counts = torch.bincount(data.images.labels[data.fold(number).test], minlength=len(CLASSES)).tolist()
        if min(counts) < PHOTOGRAPHED:
            found = " and ".join(f"{count} {label}" for count, label in zip(counts, CLASSES, strict=True))
            raise DataError(
                f"The test of run {number} has {found} images, and {PHOTOGRAPHED} of each are photographed: name a "
                "larger FOLDER, or another --hold-out."
            )


def cropped(images: Tensor) -> Tensor:
    """Crop each image in its own way, and resize it to SIDE pixels."""
    crop = RandomResizedCrop(SIDE, scale=(0.1, 1))
    return torch.stack([crop(image) for image in images.float()])


def varied(images: Tensor, way: Way) -> Tensor:
    """Vary a batch, uint8 (N, 1, SIZE, SIZE), in a way; float32 (N, 3, SIDE, SIDE), as the network takes it."""
    images = images.float() if way.late else way.intensity(images.float())
    if way.crops:
        images = torch.where(chance(images, way.crops), cropped(images), small(images))
    if way.grays:
        images = torch.where(chance(images, way.grays), with_grays_of_another(images), images)
    images = shown_otherwise(augment(images, SIDE, way.retaken), way.shown)
    if way.backgrounds:
        images = torch.where(chance(images, way.backgrounds), before_another(images), images)
    return normalize(way.intensity(images) if way.late else images)


def with_grays_of_another(images: Tensor) -> Tensor:
    """Match each image's histogram to that of the one before it in the batch, which may be of the other class.

    A value becomes the one that has the same rank in the other image; the mean rank, where several pixels have it.
    (Gonzalez and Woods, *Digital Image Processing*, section 3.3, histogram specification.) So the network cannot tell
    the classes by how bright or rich in contrast their films are.
    """
    values, others = images.round().long().flatten(1), images.flatten(1).sort(1).values.roll(1, 0)
    counts = histograms(values)
    ranks = (counts.cumsum(1) - (counts + 1) // 2).clamp(0, values.shape[1] - 1)
    return others.gather(1, ranks).gather(1, values).view(images.shape)


def mixing_styles(share: float) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor | None]:
    """Return a hook of a layer which, at this share of the steps, gives features the style of mixtures of two images.

    The style is the mean and standard deviation of each channel of an image, and the weights of the two images are
    drawn from Beta(0.1, 0.1) (Zhou et al. 2021, *Domain Generalization with MixStyle*, https://arxiv.org/abs/2104.02008).
    """
    weight = torch.distributions.Beta(0.1, 0.1)

    def mix(_: nn.Module, __: tuple[Tensor], features: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled() or torch.rand(()) >= share:  # no gradient: not a step
            return None
        spread, mean = torch.std_mean(features.detach().float(), (2, 3), keepdim=True)
        spread = spread + 1e-6
        others, kept = torch.randperm(len(features)), weight.sample((len(features), 1, 1, 1))
        scale, shift = torch.lerp(spread[others], spread, kept) / spread, torch.lerp(mean[others], mean, kept)
        return (features - mean) * scale + shift

    return mix


def chance(images: Tensor, share: float) -> Tensor:
    """Return True for about this share of the images, shape (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1) < share


def before_another(images: Tensor) -> Tensor:
    """Replace what lies outside an ellipse by the next image, which may be of the other class, with a soft seam."""
    place = places(images)
    across, down = 0.75 + 0.25 * torch.rand(2, len(images), 1, 1, 1)
    distance = (place / across) ** 2 + (place.view(-1, 1) / down) ** 2
    return torch.lerp(images.roll(1, 0), images, ((1.15 - distance) / 0.3).clamp(0, 1))


def small(images: Tensor) -> Tensor:
    """Return images of SIDE pixels, float32."""
    return resized(images, SIDE, 0)


def network_input(images: Tensor, way: Way, intensity: Intensity) -> Tensor:
    """Return the network's input for images that are not varied, uint8 (N, 1 or 3, SIZE, SIZE)."""
    if way.late:  # as it was tried, at the size that the network sees
        return normalize(intensity(small(images)))
    return normalize(small(intensity(images.float())))


def trained(way: Way, fold: Fold, data: Data, seed: int, weights: str, epochs: int) -> nn.Module:
    """Train by train_model.py's steps in a way; return the averaged network."""
    if way.teachers:
        way = with_teachers(way, fold, data, seed, weights, epochs)
    torch.manual_seed(seed)
    network, pretrained = build_network(weights)
    add_hooks(network, way)
    chosen = Hyperparameters(epochs=epochs, weight_decay=way.weight_decay, seed=seed)
    averaged = epochs_of(way, fold, data, network, pretrained, chosen)
    if way.refining_runs:
        averaged.load_state_dict(refined(averaged, way, fold, data, chosen))
    return with_statistics(averaged, way, fold, data)


def with_teachers(way: Way, fold: Fold, data: Data, seed: int, weights: str, epochs: int) -> Way:
    """Train a way's teachers, and return the way in which they teach."""
    alone = dataclasses.replace(way, teachers=0)
    unrefined = dataclasses.replace(alone, refining_runs=0)
    seeds = range(seed + FOLDS, seed + FOLDS * (1 + way.teachers), FOLDS)  # those of no other run
    teachers = [trained(unrefined, fold, data, one, weights, epochs) for one in seeds]
    return dataclasses.replace(alone, mixed=taught_by(teachers))


def taught_by(teachers: Sequence[nn.Module]) -> Mix:
    """Return what replaces half of each label by the teachers' mean answer to the same inputs.

    So one network learns from several (Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network*,
    https://arxiv.org/abs/1503.02531, at temperature 1).
    """
    precision = training_precision(torch.device("cpu"))

    def mix(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision is not torch.float32):
            answers = torch.stack([teacher(inputs).float().softmax(1) for teacher in teachers]).mean(0)
        return inputs, (functional.one_hot(labels, len(CLASSES)) + answers) / 2

    return mix


def add_hooks(network: nn.Module, way: Way) -> None:
    """Add what a way does within the network."""
    if way.dropout:
        network.get_submodule("fc").register_forward_pre_hook(
            lambda fc, given: functional.dropout(given[0], way.dropout, fc.training)
        )
    if way.styles:
        for name in ("layer1", "layer2"):
            network.get_submodule(name).register_forward_hook(mixing_styles(way.styles))


def refined(start: nn.Module, way: Way, fold: Fold, data: Data, chosen: Hyperparameters) -> dict[str, Tensor]:
    """Return the mean of the weights at the ends of a way's refining runs."""
    shown = dataclasses.replace(way, shown=SHOWN_OTHERWISE)
    names = [name for name, _ in start.named_parameters()]
    once = dataclasses.replace(chosen, epochs=1, learning_rate=chosen.learning_rate * REFINING_RATE)
    runs = [dataclasses.replace(once, seed=chosen.seed + number) for number in range(way.refining_runs)]
    return mean_of([epochs_of(shown, fold, data, copy.deepcopy(start), names, one).state_dict() for one in runs])


def mean_of(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each tensor of state dicts, float64."""
    sums: dict[str, Tensor] = {}
    for state in states:
        add(sums, state)
    return {name: total / len(states) for name, total in sums.items()}


def with_statistics(network: nn.Module, way: Way, fold: Fold, data: Data) -> nn.Module:
    """Estimate the statistics of a network's batch norm, as training does; return it in evaluation mode."""
    some = torch.split(fold.train[torch.randperm(len(fold.train))[:NORMALIZED_BY]], Hyperparameters.batch_size)
    update_bn((network_input(data.images.pixels[index], way, way.intensity) for index in some), network)
    return network.eval()


def validated(network: nn.Module, way: Way, fold: Fold, data: Data) -> Evaluation:
    """Validate a network whose batch norm has no statistics of its own; random numbers stay as they are."""
    with torch.random.fork_rng():
        logits = logits_of(with_statistics(network, way, fold, data), data.images.pixels[fold.validation], way)
    return Evaluation.of(logits, data.images.labels[fold.validation])


def epochs_of(
    way: Way, fold: Fold, data: Data, network: nn.Module, pretrained: Collection[str], chosen: Hyperparameters
) -> nn.Module:
    """Train a network; return the moving average after the last or the best epoch."""
    run = Run.start(network, pretrained, chosen, len(fold.train), Processes(1, 0, torch.device("cpu")))
    run.decay = max(0.0, 1 - 1 / (way.averaged * chosen.epochs * run.epoch_steps))
    torch.manual_seed(chosen.seed)
    best, kept = None, run.averaged
    for _ in range(chosen.epochs):
        run.model.train()
        for index in torch.split(fold.train[torch.randperm(len(fold.train))], run.batch_size):
            inputs, labels = varied(data.images.pixels[index], way), data.images.labels[index]
            inputs, labels = way.mixed(inputs, labels) if way.mixed else (inputs, labels)
            climbed = climb(run, inputs, labels, way.sharpness) if way.sharpness else []
            run.step(inputs, labels)
            for weight, moved in climbed:
                weight.data -= moved
            run.follow()
        if way.selected and is_better(evaluation := validated(run.averaged, way, fold, data), best):
            best, kept = evaluation, copy.deepcopy(run.averaged)
    return kept


def climb(run: Run, inputs: Tensor, labels: Tensor, distance: float) -> list[tuple[nn.Parameter, Tensor]]:
    """Move the weights by a distance in the direction in which a batch's loss rises most; return each and its move.

    A step from there, taken back by as much, is one of sharpness-aware minimisation (Foret et al. 2021, equation 2,
    https://arxiv.org/abs/2010.01412).
    """
    weights = list(run.model.parameters())
    gradients = torch.autograd.grad(run.loss(inputs, labels), weights)
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients]))
    moves = [gradient * (distance / (length + 1e-12)) for gradient in gradients]
    for weight, move in zip(weights, moves, strict=True):
        weight.data += move
    return list(zip(weights, moves, strict=True))


@torch.inference_mode()
def logits_of(network: nn.Module, images: Tensor, way: Way) -> Tensor:
    """Return the logits for images, uint8 (N, 1 or 3, SIZE, SIZE)."""
    inputs = (network_input(part, way, way.served or way.intensity) for part in torch.split(images, 64))
    return torch.cat([network(part) for part in inputs])


def judged(network: nn.Module, way: Way, fold: Fold, data: Data) -> dict[str, float]:
    """Return FIGURES of a network."""
    images, labels = data.images.pixels, data.images.labels
    validation = logits_of(network, images[fold.validation], way)
    calibration = fit(validation, labels[fold.validation])

    def answers(some: Tensor) -> Tensor:
        return suspicions(calibration, log_odds(logits_of(network, some, way)))

    test, adults = answers(images[fold.test]), answers(data.adults.pixels)
    films, photographs = photographed(fold, data)
    before, after = answers(films) >= 0.5, answers(photographs) >= 0.5
    return {
        "val_auroc": metrics.auroc(log_odds(validation), labels[fold.validation]),
        "auroc": metrics.auroc(test, labels[fold.test]),
        "balanced_accuracy": balanced_accuracy(test >= 0.5, labels[fold.test] == 1),
        "ece": metrics.ece(metrics.reliability(test, labels[fold.test])),
        "adults_auroc": metrics.auroc(adults, data.adults.labels),
        "adults_ece": metrics.ece(metrics.reliability(adults, data.adults.labels)),
        "changed": int((before != after).sum()),
        "alarms": int((~before & after)[PHOTOGRAPHED:].sum()),
    }


def photographed(fold: Fold, data: Data) -> tuple[Tensor, Tensor]:
    """Return PHOTOGRAPHED pneumonias and as many normal films of the test, and a photograph of each."""
    some = torch.cat([fold.test[:PHOTOGRAPHED], fold.test[-PHOTOGRAPHED:]])
    films = [Image.fromarray(pixels[0].numpy()) for pixels in data.images.pixels[some]]
    files = [photograph(film, np.random.default_rng(index)) for film, index in zip(films, some.tolist(), strict=True)]
    photographs = np.stack([resize(decode(file).image) for file in files])
    return data.images.pixels[some], torch.from_numpy(photographs)


def balanced_accuracy(answers: Tensor, truth: Tensor) -> float:
    """Return the mean of sensitivity and specificity."""
    return float(answers[truth].float().mean() + (~answers[~truth]).float().mean()) / 2


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("adults", type=Path, metavar="ADULTS", help="the same of adults")
    parser.add_argument("--weights", default="imagenet", help="as train_model.py takes it (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("ways"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--hold-out", choices=HELD_OUT, default="collection", help="what to test on (%(default)s)")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME", help="after FOLDER and ADULTS (all)"
    )
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="of each way, at most 5 (%(default)s)")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="(%(default)s)")
    args = parser.parse_args(argv)
    if not 1 <= args.runs <= FOLDS:
        parser.error(f"--runs must be 1 to {FOLDS}, not {args.runs}")
    if args.epochs < 1:
        parser.error(f"--epochs must be 1 or more, not {args.epochs}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train and judge what is missing, print what is there.

    Raises:
        PneumoniaError, OSError: images or weights that cannot be used.
        SystemExit: the runs that are there had other settings.
    """
    args = parse_arguments(argv)

    @functools.cache  # decoded once, and not before the settings of the runs that are there have been compared
    def data() -> Data:
        decoded = Data.read(args.folder, args.adults, args.hold_out)
        check_photographed(decoded, args.runs)
        return decoded

    path = args.output / "ways.json"
    results = completed(
        path, settings_of(args), args.ways, args.runs, lambda way, run: result(WAYS[way], run, data(), args)
    )
    print(table("way", results, FIGURES))
    return 0


def settings_of(args: argparse.Namespace) -> dict[str, str | int]:
    """Return what all runs in a file have in common."""
    return {
        "folder": images_of(args.folder),
        "adults": images_of(args.adults),
        "weights": weights_of(args.weights),
        "hold_out": args.hold_out,
        "epochs": args.epochs,
        "precision": str(training_precision(torch.device("cpu"))).removeprefix("torch."),
    }


def result(way: Way, number: int, data: Data, args: argparse.Namespace) -> dict[str, float]:
    """Train and judge once."""
    fold = data.fold(number)
    return judged(trained(way, fold, data, number, args.weights, args.epochs), way, fold, data)


if __name__ == "__main__":
    sys.exit(exit_status(main))
