import contextlib
import copy
import json
import math
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import train_model
from pneumonia.command import HOW_TO_INSTALL
from pneumonia.engines.torch import engine_of
from pneumonia.errors import ConfigurationError, DataError
from pneumonia.files import sha256
from pneumonia.imaging.preprocessing import PREPROCESSING, SIZE, normalized
from pneumonia.network.activations import activations_in
from pneumonia.network.calibration import Calibration, is_pneumonia
from pneumonia.network.detector import Detector
from pneumonia.network.input_check import input_check_in
from pneumonia.network.resnet import ResNet18, logits_of, normalize
from pneumonia.network.usual_evidence import usual_evidence_in
from pneumonia.network.weights_file import load_weights, save_weights
from pneumonia.training.activations import activations_of
from pneumonia.training.batches import Split, all_logits, check_divisible, shuffled_batches
from pneumonia.training.channels import SPLITS, Channel, scan_channels
from pneumonia.training.checkpoint_file import one_before
from pneumonia.training.fitting import log_odds, suspicions
from pneumonia.training.folders import Folders, check_writable, claimed
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.images import Images, load_channel
from pneumonia.training.processes import Processes
from pneumonia.training.run import Evaluation, Run, is_better, training_precision
from pneumonia.training.stopping import what_is_kept, what_is_kept_meanwhile
from pneumonia.training.synthetic import draw_dataset
from pneumonia.training.usual_evidence import usual_evidence_of
from tests.builders.disk import full_after
from tests.builders.training import ALONE, TOGETHER, start, told_at_the_end
from train_model import image_size, reestimate_batch_norm, train_one_epoch

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCH_LINE = re.compile(
    r"^epoch=(\d+) train_loss=(\d+\.\d{4}) val_accuracy=([01]\.\d{4}) val_loss=(\d+\.\d{4}) val_auroc=([01]\.\d{4}) "
    r"images_per_second=\d+\.\d best=(yes|no)$",
    re.MULTILINE,
)
TEST_LINE = re.compile(
    r"^test_accuracy=([01]\.\d{4}) test_loss=(\d+\.\d{4}) test_auroc=([01]\.\d{4}) "
    r"test_balanced_accuracy=([01]\.\d{4}) test_sensitivity=([01]\.\d{4}) test_specificity=([01]\.\d{4})$",
    re.MULTILINE,
)
EPOCHS = 2  # the first sees small images, the second those that are served
IMAGES = {
    "train": {"NORMAL": 5, "PNEUMONIA": 4},
    "val": {"NORMAL": 4, "PNEUMONIA": 3},
    "test": {"NORMAL": 3, "PNEUMONIA": 2},
}
ONE = Processes(1, 0, torch.device("cpu"))
SMALL = (
    "val has images of few patients, 4 with NORMAL and 3 with PNEUMONIA, and 35 of each are needed: the best epoch, "
    "the operating point and the calibration rest on a handful."
)


@dataclass(frozen=True)
class Training:
    """A finished run of the command, and where it left what."""

    processes: int
    output: str
    model: Path
    reports: Path
    checkpoints: Path

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of the weights file."""
        state: dict[str, Tensor] = torch.load(self.model / "pneumonia_classifier.pth", weights_only=True)
        return state

    def history(self) -> list[dict[str, Any]]:
        """Return the epochs in full precision."""
        epochs: list[dict[str, Any]] = json.loads((self.reports / "history.json").read_text())
        return epochs

    def metrics(self) -> dict[str, Any]:
        """Return the calibration, and the figures of validation and test."""
        content: dict[str, Any] = json.loads((self.reports / "metrics.json").read_text())
        return content

    def report(self) -> dict[str, Any]:
        """Return what the release's manifest takes from the training."""
        content: dict[str, Any] = json.loads((self.model / "training.json").read_text())
        return content


def arguments(dataset: Path, output: Path, *options: str) -> list[str]:
    """Return the command's arguments; later options replace these."""
    channels = [argument for split in SPLITS for argument in (f"--{split}", str(dataset / split))]
    folders = [
        *("--model-dir", str(output / "model")),
        *("--output-data-dir", str(output / "reports")),
        *("--checkpoint-dir", str(output / "checkpoints")),
    ]
    settings = ["--weights", "none", "--epochs", str(EPOCHS), "--batch-size", "4", "--learning-rate", "1e-3"]
    return [*channels, *folders, *settings, *options]


def run(dataset: Path, output: Path, command: Sequence[str] = ALONE) -> Training:
    """Run the command to its end."""
    process = start(command, arguments(dataset, output))
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    return Training(2 if command is TOGETHER else 1, out, output / "model", output / "reports", output / "checkpoints")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images to train on, seven to validate and five to test: two processes cannot share them evenly."""
    root = tmp_path_factory.mktemp("dataset")
    draw_dataset(root, {split: counts["NORMAL"] for split, counts in IMAGES.items()}, size=64)
    for split in SPLITS:
        first_image(root / split / "PNEUMONIA").unlink()
    return root


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return run(dataset, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def together(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """What two processes train."""
    return run(dataset, tmp_path_factory.mktemp("together"), TOGETHER)


@pytest.fixture(params=["trained", "together"])
def finished(request: pytest.FixtureRequest) -> Training:
    """Both in turn."""
    training: Training = request.getfixturevalue(request.param)
    return training


def first_image(folder: Path) -> Path:
    return min(folder.iterdir())


# The rule


@pytest.mark.parametrize(
    ("candidate", "best", "expected"),
    [
        (Evaluation(0, 10, 9.0), None, True),
        (Evaluation(8, 10, 0.9), Evaluation(7, 10, 0.1), True),
        (Evaluation(7, 10, 0.1), Evaluation(8, 10, 0.9), False),
        (Evaluation(8, 10, 0.4), Evaluation(8, 10, 0.5), True),
        (Evaluation(8, 10, 0.5), Evaluation(8, 10, 0.4), False),
        (Evaluation(8, 10, 0.5), Evaluation(8, 10, 0.5), False),
        (Evaluation(9, 10, math.nan), Evaluation(8, 10, 0.5), False),
        (Evaluation(8, 10, math.nan), Evaluation(8, 10, 0.5), False),
        (Evaluation(9, 10, math.nan), None, False),
        (Evaluation(9, 10, math.inf), Evaluation(8, 10, 0.5), True),
        (Evaluation(8, 10, math.inf), Evaluation(8, 10, 0.5), False),
    ],
)
def test_a_checkpoint_is_better_with_more_correct_or_as_many_and_less_loss(
    candidate: Evaluation, best: Evaluation | None, *, expected: bool
) -> None:
    assert is_better(candidate, best) is expected


# The recipe


class Onlooker(nn.Module):
    """Answers every image alike, NORMAL with odds of e squared, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([2.0, 0.0]))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return the same two logits for each image."""
        self.shown.append(images)
        return self.logits.expand(len(images), 2)


def recipe(epochs: int = 1, batch_size: int = 1) -> Hyperparameters:
    return Hyperparameters(epochs=epochs, batch_size=batch_size, learning_rate=0.1, weight_decay=0.0)


def gray(count: int) -> Tensor:
    """Return images with a bright spot, as they are kept: one channel."""
    images = torch.full((count, 1, SIZE, SIZE), 100, dtype=torch.uint8)
    images[:, :, 90:130, 40:80] = 220
    return images


def one_epoch(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int = 64) -> float:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    moved = Run(network, network, copy.deepcopy(network), 0.0, 16, torch.float32, optimizer, schedule, scaler)
    return train_one_epoch(moved, batches, size)


def test_the_training_loss_is_the_mean_over_images_not_over_batches() -> None:
    batches = [(gray(3), torch.tensor([0, 0, 0])), (gray(1), torch.tensor([1]))]
    # Labels smoothed by 0.05 leave 97.5% to the true class.
    normal, pneumonia = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    if_normal, if_pneumonia = 0.975 * normal + 0.025 * pneumonia, 0.975 * pneumonia + 0.025 * normal
    assert one_epoch(Onlooker(), batches) == pytest.approx((3 * if_normal + if_pneumonia) / 4)


def test_training_shows_varied_images_in_the_scale_of_inference() -> None:
    torch.manual_seed(0)
    network, images = Onlooker(), gray(16)
    one_epoch(network, [(images, torch.zeros(16, dtype=torch.int64))], SIZE)
    shown, plain = network.shown[0], normalize(images)
    assert shown.shape == plain.shape == (16, 3, SIZE, SIZE)
    assert not any(torch.equal(one, other) for one, other in zip(shown, plain, strict=True))
    assert shown.mean() == pytest.approx(plain.mean().item(), abs=0.5)
    assert shown.std() == pytest.approx(plain.std().item(), abs=0.5)


@pytest.mark.parametrize(
    ("epochs", "sizes"),
    [(1, [SIZE]), (2, [128, SIZE]), (3, [128, 128, SIZE]), (12, [128] * 8 + [SIZE] * 4)],
)
def test_the_last_third_of_the_epochs_sees_images_of_the_size_that_is_served(epochs: int, sizes: list[int]) -> None:
    assert [image_size(epoch, epochs) for epoch in range(1, epochs + 1)] == sizes
    network = Onlooker()
    one_epoch(network, [(gray(1), torch.tensor([0]))], sizes[0])
    assert network.shown[0].shape == (1, 3, sizes[0], sizes[0])


@pytest.mark.parametrize("size", [8, 64])
def test_batch_norm_is_reestimated_from_training_images_as_they_are(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 1, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    labels = torch.arange(8) % 2
    split = Split(Channel("train", Path(), [Path()] * 8, labels.tolist()), Images(pixels, labels, [""] * 8))
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    moved = Run.start(network, (), recipe(batch_size=8), 8, ONE)
    train_one_epoch(moved, [(pixels, labels)], size)
    norm = next(module for module in moved.averaged.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_mean is not None
    expected = normalize(pixels).mean((0, 2, 3))
    assert not torch.allclose(norm.running_mean, expected, atol=0.05)
    reestimate_batch_norm(moved.averaged, split, 4, ONE)
    assert torch.allclose(norm.running_mean, expected, atol=1e-4)
    assert norm.momentum == 0.1  # as before: training goes on with it


def test_layers_that_have_learned_move_more_slowly() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = Run.start(network, {"0.weight", "0.bias"}, recipe(), 100, ONE).optimizer
    slow, fast = optimizer.param_groups
    assert slow["params"] == list(network[0].parameters())
    assert fast["params"] == list(network[1].parameters())
    assert slow["max_lr"] == pytest.approx(0.4 * fast["max_lr"])
    assert fast["max_lr"] == 0.1


@pytest.mark.parametrize("pretrained", [(), {"logits"}])
def test_a_network_of_one_kind_moves_at_one_rate(pretrained: set[str]) -> None:
    (group,) = Run.start(Onlooker(), pretrained, recipe(), 100, ONE).optimizer.param_groups
    assert group["max_lr"] == pytest.approx(0.04 if pretrained else 0.1)


def test_the_moving_average_remembers_a_twentieth_of_the_steps() -> None:
    network = Onlooker()
    moved = Run.start(network, (), recipe(epochs=10), 10, ONE)  # 100 steps: it remembers 5
    weights = []
    for _ in range(3):
        train_one_epoch(moved, [(gray(1), torch.tensor([1]))], 64)
        weights.append(network.logits.detach().clone())
    assert not torch.allclose(weights[0], weights[2], atol=1e-3)
    expected = 0.8 * (0.8 * weights[0] + 0.2 * weights[1]) + 0.2 * weights[2]
    assert torch.allclose(moved.averaged.state_dict()["logits"], expected)


@pytest.mark.parametrize("epochs", [1, 2, 10, 11, 30])
def test_any_number_of_steps_can_be_trained(epochs: int) -> None:
    """OneCycleLR cannot be made for ten steps with a warm-up of a tenth."""
    moved = Run.start(Onlooker(), (), recipe(epochs), 1, ONE)
    for _ in range(epochs):
        train_one_epoch(moved, [(gray(1), torch.tensor([1]))], 64)
    assert moved.schedule.last_epoch == epochs
    assert moved.schedule.state_dict()["total_steps"] == max(epochs, 11)


def test_gradients_are_freed_when_a_step_ends() -> None:
    network = Onlooker()
    Run.start(network, (), recipe(), 1, ONE).step(torch.zeros(1, 3, 8, 8), torch.tensor([1]))
    assert all(weight.grad is None for weight in network.parameters())


def test_images_that_are_varied_at_once_make_several_steps() -> None:
    network = Onlooker()
    moved = Run.start(network, (), recipe(batch_size=2), 5, ONE)
    train_one_epoch(moved, [(gray(5), torch.zeros(5, dtype=torch.int64))], 64)
    assert [len(shown) for shown in network.shown] == [2, 2, 1]
    assert moved.schedule.last_epoch == 3


# Evaluation


def random_split(count: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)
    labels = [index % 2 for index in range(count)]
    return Split(Channel("val", Path(), [Path()] * count, labels), Images(pixels, torch.tensor(labels), [""] * count))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_every_image_counts_alike_however_uneven_the_last_batch(batch_size: int) -> None:
    torch.manual_seed(0)
    network, split = ResNet18(), random_split(5)
    result = Evaluation.of(all_logits(network, split, batch_size, ONE), split.labels)
    with torch.inference_mode():
        logits = network.eval()(normalize(split.images.pixels))
    assert result.count == 5
    assert result.correct == int((logits.argmax(1) == split.labels).sum())
    assert result.loss == pytest.approx(float(functional.cross_entropy(logits, split.labels)), rel=1e-5)
    assert result.accuracy == result.correct / 5


def test_evaluating_changes_nothing_in_the_network() -> None:
    network = ResNet18().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    all_logits(network, random_split(4), 2, ONE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# Shares


def batches_of(rank: int, processes: Processes) -> list[list[float]]:
    """Return which of five images, each of one gray, this process is shown in which batch."""
    pixels = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)[rank :: processes.count]
    labels = torch.arange(5)[rank :: processes.count]
    split = Split(Channel("train", Path(), [Path()] * 5, [0, 1, 2, 3, 4]), Images(pixels, labels, [""] * len(labels)))
    batches = list(shuffled_batches(split, 2, processes))
    assert all(images.flatten().tolist() == labels.tolist() for images, labels in batches)
    return [labels.tolist() for _, labels in batches]


def test_one_process_is_shown_every_image_once_in_random_order() -> None:
    torch.manual_seed(0)
    orders = [batches_of(0, ONE) for _ in range(10)]
    assert all([len(batch) for batch in order] == [2, 2, 1] for order in orders)
    assert all(sorted(chain(*order)) == [0, 1, 2, 3, 4] for order in orders)
    assert len({str(order) for order in orders}) > 5


def test_of_two_processes_the_one_with_fewer_images_repeats_one() -> None:
    first, second = (batches_of(rank, Processes(2, rank, torch.device("cpu"))) for rank in (0, 1))
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == [1, 1, 1]
    assert sorted(chain(*first)) == [0, 2, 4]
    assert set(chain(*second)) == {1, 3}


@pytest.mark.parametrize(
    ("count", "options", "error", "message"),
    [
        (3, (), ConfigurationError, "--batch-size 4 cannot be divided among 3 processes: make it a multiple"),
        (
            8,
            ("--batch-size", "8"),
            DataError,
            "Channel 'val' has 7 images for 8 processes: use fewer instances or GPUs",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(
    count: int, options: tuple[str, ...], error: type[Exception], message: str, dataset: Path, tmp_path: Path
) -> None:
    _, chosen = train_model.parse_arguments(arguments(dataset, tmp_path, *options))
    channels = scan_channels({split: dataset / split for split in SPLITS})
    with pytest.raises(error, match=message):
        check_divisible(chosen.batch_size, channels, Processes(count, 0, torch.device("cpu")))


# The whole command


@pytest.mark.processes
def test_the_log_has_one_line_per_epoch_and_one_for_the_test(finished: Training) -> None:
    assert [int(line[0]) for line in EPOCH_LINE.findall(finished.output)] == list(range(1, EPOCHS + 1))
    assert len(TEST_LINE.findall(finished.output)) == 1
    assert finished.output.count("=") == 4 + 7 * EPOCHS + 6  # the device's line, and no line of another form
    assert f" processes={finished.processes} " in finished.output
    assert [line for line in finished.output.splitlines() if line.startswith("Warning: ")] == [f"Warning: {SMALL}"]
    assert finished.output.count("\n") == 3 + EPOCHS + 1
    assert finished.output.endswith("\n")


@pytest.mark.processes
def test_it_leaves_these_files_and_no_other(finished: Training) -> None:
    assert {path.name for path in finished.model.iterdir()} == {"pneumonia_classifier.pth", "training.json"}
    tables, pictures = {"history.json", "metrics.json"}, {"learning_curves", "roc", "confusion", "reliability"}
    assert {path.name for path in finished.reports.iterdir()} == tables | {f"{name}.png" for name in pictures}
    assert {path.name for path in finished.checkpoints.iterdir()} == {"checkpoint.pth", "checkpoint-before.pth"}
    for name in pictures:
        with Image.open(finished.reports / f"{name}.png") as picture:
            assert len(picture.convert("L").getcolors() or ()) > 10  # something is drawn


@pytest.mark.processes
def test_the_best_checkpoint_follows_the_rule(finished: Training) -> None:
    best: tuple[float, float] | None = None
    for epoch in finished.history():
        scores = (epoch["val_accuracy"], -epoch["val_loss"])
        assert epoch["best"] == (best is None or scores > best)
        best = scores if epoch["best"] else best
    assert best
    state = torch.load(finished.checkpoints / "checkpoint.pth", weights_only=True)
    assert (state["best"]["correct"] / state["best"]["count"], -state["best"]["loss"]) == best
    # Here before the rounding to half precision, there after it.
    network = finished.metrics()["val"]["network"]
    assert network["loss"] == pytest.approx(-best[1], rel=1e-2)
    assert network["accuracy"] == pytest.approx(best[0], abs=1 / 7 + 1e-9)


@pytest.mark.processes
def test_the_log_tells_what_the_history_has(finished: Training) -> None:
    for line, epoch in zip(EPOCH_LINE.findall(finished.output), finished.history(), strict=True):
        numbers = [f"{epoch[name]:.4f}" for name in ("train_loss", "val_accuracy", "val_loss", "val_auroc")]
        assert line == (str(epoch["epoch"]), *numbers, "yes" if epoch["best"] else "no")


@pytest.mark.processes
def test_the_weights_file_is_the_tested_network(finished: Training, dataset: Path) -> None:
    network, metrics = load_weights(finished.model / "pneumonia_classifier.pth"), finished.metrics()
    calibration = Calibration(**metrics["calibration"])
    for split in ("val", "test"):
        channel = scan_channels({split: dataset / split})[split]
        images = load_channel(channel, 1)
        logits = logits_of(network, images.pixels, 3)
        result, told = Evaluation.of(logits, images.labels), metrics[split]
        assert result.loss == pytest.approx(told["network"]["loss"], rel=1e-4)
        assert result.accuracy == told["network"]["accuracy"]
        answers = [is_pneumonia(one) for one in suspicions(calibration, log_odds(logits)).tolist()]
        found = sum(answer and label == 1 for answer, label in zip(answers, channel.labels, strict=True))
        assert told["served"]["confusion"]["PNEUMONIA"]["PNEUMONIA"] == found
        assert told["served"]["sensitivity"] == found / IMAGES[split]["PNEUMONIA"]
        assert told["served"]["counts"] == IMAGES[split]
        assert told["served"]["patients"] == len(images)


@pytest.mark.processes
def test_the_report_has_the_ranges_of_all_processes_images(finished: Training, dataset: Path) -> None:
    ranges = activations_in(finished.report())
    images = load_channel(scan_channels({"train": dataset / "train"})["train"], 1)
    expected = activations_of(load_weights(finished.model / "pneumonia_classifier.pth"), images.pixels, 9)
    assert ranges
    assert ranges.keys() == expected.keys()
    for name, ends in expected.items():
        assert ranges[name] == pytest.approx(ends, rel=1e-3, abs=1e-4), name


@pytest.mark.processes
def test_the_report_has_the_usual_evidence_of_all_processes_images(finished: Training, dataset: Path) -> None:
    usual = usual_evidence_in(finished.report())
    images = load_channel(scan_channels({"val": dataset / "val"})["val"], 1)
    network = load_weights(finished.model / "pneumonia_classifier.pth")
    expected = usual_evidence_of(network, images.pixels, images.labels, len(images))
    assert np.array(usual) == pytest.approx(np.array(expected), abs=1.1e-3)


@pytest.mark.processes
def test_the_report_tells_how_the_model_was_made(finished: Training) -> None:
    report, metrics = finished.report(), finished.metrics()
    assert report["classes"] == ["NORMAL", "PNEUMONIA"]
    assert report["preprocessing"] == PREPROCESSING
    assert report["calibration"] == metrics["calibration"]
    check = input_check_in(report)
    assert check
    network = load_weights(finished.model / "pneumonia_classifier.pth")
    black = normalized(np.zeros((1, 3, SIZE, SIZE), np.uint8))
    assert np.isfinite(Detector(check).distances(engine_of(network)(black).means)).all()
    assert report["dataset"]["images"] == IMAGES
    assert re.fullmatch(r"[0-9a-f]{64}", report["dataset"]["fingerprint"])
    assert report["settings"] == {
        "epochs": EPOCHS,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "weights": "none",
        "seed": 0,
        "refining_runs": 0,
        "processes": finished.processes,
        "device": "cpu",
        "precision": str(training_precision(torch.device("cpu"))).removeprefix("torch."),
        "dataset": report["dataset"]["fingerprint"],
        "torch": torch.__version__,
    }
    assert report["training_job"] is None
    assert report["data_check"] == {"shared": {}, "warnings": [SMALL]}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["finished"])
    served = ("auroc", "balanced_accuracy", "sensitivity", "specificity")
    assert report["metrics"] == {
        f"{split}_{name}": value
        for split in ("val", "test")
        for name, value in (
            metrics[split]["network"] | {name: metrics[split]["served"][name] for name in served}
        ).items()
    }
    names = ("accuracy", "loss", *served)
    told = tuple(f"{report['metrics'][f'test_{name}']:.4f}" for name in names)
    assert TEST_LINE.findall(finished.output) == [told]


@pytest.mark.slow
@pytest.mark.processes
def test_another_seed_ends_elsewhere(trained: Training, dataset: Path, tmp_path: Path) -> None:
    """Else the tests of resuming, which compare figures of the same seed to the last digit, could not fail."""
    assert train_model.main(arguments(dataset, tmp_path, "--seed", "1")) == 0
    other = json.loads((tmp_path / "reports" / "history.json").read_text())
    assert other[0]["train_loss"] != pytest.approx(trained.history()[0]["train_loss"], rel=1e-3)


def test_the_defaults_are_sagemakers_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SM_CHANNEL_TRAIN", "SM_CHANNEL_VAL", "SM_CHANNEL_TEST", "SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    folders, chosen = train_model.parse_arguments([])
    assert folders.channels == {split: Path(f"/opt/ml/input/data/{split}") for split in SPLITS}
    assert [folders.model, folders.output] == [Path("/opt/ml/model"), Path("/opt/ml/output/data")]
    assert chosen.weights == "imagenet"


def test_sagemakers_variables_name_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {
        "SM_CHANNEL_TRAIN": "/a",
        "SM_CHANNEL_VAL": "/b",
        "SM_CHANNEL_TEST": "/c",
        "SM_MODEL_DIR": "/d",
        "SM_OUTPUT_DATA_DIR": "/e",
    }
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    folders, _ = train_model.parse_arguments(["--val", "/given"])
    found = [*folders.channels.values(), folders.model, folders.output]
    assert found == [Path(place) for place in ("/a", "/given", "/c", "/d", "/e")]


SAGEMAKERS_OWN = {
    "_tuning_objective_metric": "validation:auroc",
    "sagemaker_program": "train_model.py",
    "sagemaker_submit_directory": "s3://bucket/job/source/sourcedir.tar.gz",
    "sagemaker_region": "eu-west-1",
    "sagemaker_job_name": "pneumonia-training-1",
    "sagemaker_container_log_level": "20",
    "sagemaker_enable_cloudwatch_metrics": "false",
    "sagemaker_mpi_custom_mpi_options": "--NCCL_DEBUG INFO",
    "sagemaker_estimator_class_name": '"PyTorch"',
    "default_user_module_name": "train_model",
    "mp_parameters": "",
}


@pytest.mark.parametrize(("name", "value"), SAGEMAKERS_OWN.items())
@pytest.mark.parametrize("joined", [False, True])
def test_hyperparameters_that_sagemaker_adds_are_ignored(name: str, value: str, *, joined: bool) -> None:
    added = [f"--{name}={value}"] if joined else [f"--{name}", value]
    for argv in ([*added, "--epochs", "3"], ["--epochs", "3", *added]):
        assert train_model.parse_arguments(argv)[1].epochs == 3


@pytest.mark.parametrize(
    ("argv", "name", "expected"),
    [
        (["--batch_size", "64"], "batch_size", 64),
        (["--batch_size=64"], "batch_size", 64),
        (["--learning_rate", "1e-4"], "learning_rate", 1e-4),
        (["--learning-rate", '"0.001"'], "learning_rate", 1e-3),
        (["--batch-size", '"64"'], "batch_size", 64),
        (["--batch-size", "64.0"], "batch_size", 64),
        (["--batch-size", "6.4e1"], "batch_size", 64),
        (["--seed", str(2**64 - 1)], "seed", 2**64 - 1),
        (["--weights", '"none"'], "weights", "none"),
        (["--patients", r"-(\d+)-"], "patients", r"-(\d+)-"),
        (["--epochs", "3", "--patients", r"--(\d+)"], "patients", r"--(\d+)"),
        ([r"--patients=-(\d+)-"], "patients", r"-(\d+)-"),
    ],
)
def test_hyperparameters_are_read_as_tuners_write_them(argv: list[str], name: str, expected: object) -> None:
    assert getattr(train_model.parse_arguments(argv)[1], name) == expected


def test_folders_may_be_named_with_underscores(tmp_path: Path) -> None:
    folders, _ = train_model.parse_arguments(["--model_dir", f"{tmp_path}/a_b", f"--output_data_dir={tmp_path}/c_d"])
    assert (folders.model, folders.output) == (tmp_path / "a_b", tmp_path / "c_d")


# Interruption


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()


def terminate(process: "subprocess.Popen[str]") -> None:
    process.terminate()


def kill_the_second(torchrun: "subprocess.Popen[str]") -> None:
    """Kill one of the processes that torchrun started."""
    workers = psutil.Process(torchrun.pid).children()
    next(worker for worker in workers if worker.environ().get("RANK") == "1").kill()


def ended_at(
    moment: str, argv: list[str], end: Callable[["subprocess.Popen[str]"], None] = kill, command: Sequence[str] = ALONE
) -> int:
    """Start the command on a terminal, end it when the terminal shows `moment`, a pattern, and return its status."""
    terminal, other_end = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))  # tqdm draws nothing on a terminal without lines
    process = start(command, argv, output=other_end)
    os.close(other_end)
    shown = ""
    while not re.search(moment, shown):
        shown += os.read(terminal, 10_000).decode()
    end(process)
    with contextlib.suppress(OSError):  # so a terminal ends that nobody writes to any more
        while os.read(terminal, 10_000):
            pass
    os.close(terminal)
    return process.wait()


# The kernel ends a process that writes a file beyond its limit, in that very write, unless the process ignores the
# signal as Python does.
LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def ended_in_a_write(size: int, argv: list[str]) -> int:
    """Let the kernel end the command when it has written `size` bytes of a file, and return its status."""
    process = start([sys.executable, "-c", LIMITED, str(size), train_model.__file__], argv)
    process.communicate()
    return process.returncode


def left_over(folder: Path) -> list[str]:
    """Return what was being written, without the part of the name that differs each time."""
    return [re.sub(r"\.\w+\.part$", "", path.name) for path in folder.rglob(".*.part")]


def saved_epochs(folder: Path) -> int:
    return len(torch.load(folder / "checkpoints" / "checkpoint.pth", weights_only=True)["history"])


def check_alike(resumed: Training, uninterrupted: Training) -> None:
    assert resumed.history() == uninterrupted.history()
    assert resumed.metrics() == uninterrupted.metrics()
    weights, expected = resumed.weights(), uninterrupted.weights()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    test_it_leaves_these_files_and_no_other(resumed)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_an_uninterrupted_one(
    trained: Training, dataset: Path, tmp_path: Path
) -> None:
    argv, weights = arguments(dataset, tmp_path), tmp_path / "model" / "pneumonia_classifier.pth"
    assert ended_at(r"decoding train: .* 0/9 ", argv) == -signal.SIGKILL
    assert not weights.exists()
    assert ended_in_a_write(10_000_000, argv) == -signal.SIGXFSZ
    assert left_over(tmp_path) == [".pneumonia_classifier.pth"]
    assert not weights.exists()
    assert ended_at("epoch=1 ", argv) == -signal.SIGKILL
    load_weights(weights)
    assert ended_at(r"epoch 2: .* 1/3 ", argv, terminate) == -signal.SIGTERM
    assert saved_epochs(tmp_path) == 1
    assert ended_in_a_write(50_000_000, argv) == -signal.SIGXFSZ
    assert left_over(tmp_path) == [".checkpoint.pth"]
    assert saved_epochs(tmp_path) == 1
    load_weights(weights)
    assert not (tmp_path / "model" / "training.json").exists()
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "new" / "checkpoints")  # a new instance has nothing else
    resumed = run(dataset, tmp_path / "new")
    assert f"resumed after epoch 1 from {tmp_path}/new/checkpoints/checkpoint.pth\n" in resumed.output
    assert [line[0] for line in EPOCH_LINE.findall(resumed.output)] == ["2"]
    check_alike(resumed, trained)


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_says_what_it_leaves_and_how_to_go_on(number: int, dataset: Path, tmp_path: Path) -> None:
    argv = arguments(dataset, tmp_path, "--epochs", "20")
    told, status = told_at_the_end("epoch=2 ", argv, number)
    weights, checkpoint = tmp_path / "model" / "pneumonia_classifier.pth", tmp_path / "checkpoints" / "checkpoint.pth"
    epochs = re.match(r"Stopped after (\d+) of 20 epochs: ", told)
    assert epochs, told
    kept = f"the best checkpoint so far is {weights}, neither calibrated nor tested yet"
    assert told == f"{epochs[0]}{kept}; the same command goes on from {checkpoint}.\n"
    assert int(epochs[1]) in {2, 3}
    assert status == -number
    assert not (tmp_path / "model" / "training.json").exists()
    load_weights(weights)
    assert saved_epochs(tmp_path) in {int(epochs[1]), int(epochs[1]) - 1}


@pytest.mark.processes
def test_a_run_stopped_before_its_first_epoch_has_ended_says_so(dataset: Path, tmp_path: Path) -> None:
    told, status = told_at_the_end("^device=", arguments(dataset, tmp_path), signal.SIGTERM)
    assert told in ("", f"Stopped before the first of {EPOCHS} epochs had ended: there is nothing to go on from.\n")
    assert status == -signal.SIGTERM


def test_what_a_stopped_run_says_depends_on_what_is_there(tmp_path: Path) -> None:
    folders = Folders({}, tmp_path, tmp_path, None)
    assert what_is_kept([1, 2], 3, folders, None).startswith("Stopped after 2 of 3 epochs: ")
    assert what_is_kept([1, 2, 3], 3, folders, None, 2).startswith("Stopped after 3 of 3 epochs, while refining: ")
    assert what_is_kept([1, 2, 3, 4], 3, folders, None, 2).startswith("Stopped after 3 of 3 epochs, refined: ")
    assert what_is_kept([1, 2], 3, folders, None, 2).startswith("Stopped after 2 of 3 epochs: ")
    assert what_is_kept([1], 0, folders, None, 2).startswith("Stopped after refining: ")
    assert what_is_kept([], 0, folders, None, 2) == "Stopped while refining: there is nothing to go on from."
    assert what_is_kept([1, 2], 3, folders, None).endswith(
        "; without --checkpoint-dir, no state is kept to go on from."
    )
    checkpoint = tmp_path / "checkpoint.pth"
    not_yet = "; its state was not written yet, so the same command begins again."
    assert what_is_kept([1], 3, folders, checkpoint).endswith(not_yet)
    checkpoint.touch()
    assert what_is_kept([1], 3, folders, checkpoint).endswith(f"; the same command goes on from {checkpoint}.")
    checkpoint.replace(one_before(checkpoint))  # the moment in which the next one takes its place
    assert what_is_kept([1, 2], 3, folders, checkpoint).endswith(f"; the same command goes on from {checkpoint}.")
    folders.reports[0].touch()
    assert "pneumonia_classifier.pth, calibrated and tested; " in what_is_kept([1, 2, 3], 3, folders, checkpoint)


def test_a_jobs_log_says_from_the_beginning_what_is_kept(tmp_path: Path) -> None:
    folders = Folders({}, tmp_path, tmp_path, tmp_path)
    kept = f"kept after each epoch: the best checkpoint so far in {tmp_path}/pneumonia_classifier.pth, "
    assert what_is_kept_meanwhile(folders, None) == f"{kept}but nothing to go on from"
    assert what_is_kept_meanwhile(folders, tmp_path / "checkpoint.pth") == (
        f"{kept}and in {tmp_path}/checkpoint.pth what the same command goes on from"
    )


# One run in a folder


def left_by_an_older_run(tmp_path: Path, trained: Training) -> dict[Path, bytes]:
    """Put another run's files into a run's folders, and return them."""
    shutil.copytree(trained.model, tmp_path / "model")
    shutil.copytree(trained.reports, tmp_path / "reports")
    return {path: path.read_bytes() for name in ("model", "reports") for path in (tmp_path / name).iterdir()}


@pytest.mark.processes
def test_an_older_runs_reports_are_gone_when_the_first_weights_are_there(
    trained: Training, dataset: Path, tmp_path: Path
) -> None:
    left_by_an_older_run(tmp_path, trained)
    _, status = told_at_the_end(
        "epoch=1 ", arguments(dataset, tmp_path, "--seed", "5", "--epochs", "20"), signal.SIGKILL
    )
    assert status == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["pneumonia_classifier.pth"]
    assert not list((tmp_path / "reports").iterdir())
    fresh = torch.load(tmp_path / "model" / "pneumonia_classifier.pth", weights_only=True)
    assert not torch.equal(fresh["fc.bias"], trained.weights()["fc.bias"])


@pytest.mark.processes
def test_an_older_runs_files_stay_if_the_training_fails_before_its_first_weights(
    trained: Training, dataset: Path, tmp_path: Path
) -> None:
    before = left_by_an_older_run(tmp_path, trained)
    shutil.copytree(dataset, tmp_path / "data")
    truncate(first_image(tmp_path / "data" / "test" / "NORMAL"))
    assert train_model.main(arguments(tmp_path / "data", tmp_path)) == 1
    assert train_model.main(arguments(dataset, tmp_path, "--learning-rate", "1e30")) == 1
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.processes
def test_a_run_resumed_in_an_older_runs_folders_leaves_its_own_files_only(
    trained: Training, dataset: Path, tmp_path: Path
) -> None:
    other = {path.name: content for path, content in left_by_an_older_run(tmp_path, trained).items()}
    (tmp_path / "model" / "training.json").write_text(json.dumps({"weights_sha256": "0" * 64}))
    shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
    assert train_model.main(arguments(dataset, tmp_path)) == 0
    report = json.loads((tmp_path / "model" / "training.json").read_text())
    assert report["weights_sha256"] == sha256(tmp_path / "model" / "pneumonia_classifier.pth")
    assert {path.name for name in ("model", "reports") for path in (tmp_path / name).iterdir()} == other.keys()


def test_other_files_in_the_model_folder_stay_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "\x1b[1mnotes").touch()
    folders = Folders({}, tmp_path / "model", tmp_path / "model", None)
    with claimed(folders, ONE):
        pass
    assert capsys.readouterr().out == (
        f"{tmp_path}/model has $'\\x1b[1mnotes' as well, which this training leaves as it is\n"
    )


def test_a_release_is_not_trained_over(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    sentence = sentence_of(arguments(dataset, tmp_path), failure, capsys)
    assert "model has a release, with a manifest.json: name another folder with --model-dir" in sentence


@pytest.mark.parametrize("shared", ["--model-dir", "--output-data-dir", "--checkpoint-dir"])
def test_two_trainings_do_not_share_a_folder(
    shared: str, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with claimed(Folders({}, tmp_path / "shared", tmp_path / "other", None), ONE):
        sentence = sentence_of(arguments(dataset, tmp_path, shared, f"{tmp_path}/shared"), failure, capsys)
    assert sentence.startswith(f"Another training writes into {tmp_path}/shared: wait until it ends, or name another")
    with claimed(Folders({}, tmp_path / "shared", tmp_path / "other", None), ONE):
        pass


@pytest.mark.slow
def test_two_processes_of_which_one_was_killed_end_as_uninterrupted_ones(
    together: Training, dataset: Path, tmp_path: Path
) -> None:
    assert ended_at(r"epoch 2: .* 1/3 ", arguments(dataset, tmp_path), kill_the_second, TOGETHER) == 1
    assert saved_epochs(tmp_path) == 1
    resumed = run(dataset, tmp_path, TOGETHER)
    assert resumed.output.count("resumed after epoch 1 from ") == 1
    assert [line[0] for line in EPOCH_LINE.findall(resumed.output)] == ["2"]
    check_alike(resumed, together)


def test_what_killed_runs_left_half_written_is_removed(tmp_path: Path) -> None:
    left = {".pneumonia_classifier.pth.a1b2c3d4.part", ".checkpoint.pth.a1b2c3d4.part", ".checkpoint.pth._1_2_3_4.part"}
    left |= {".training.json.a1b2c3d4.part", ".metrics.json.a1b2c3d4.part", ".roc.png.a1b2c3d4.part"}
    others = {"checkpoint.pth", "checkpoint.pth.part", ".model.pth.a1b2c3d4.part"}
    for name in left | others:
        (tmp_path / name).touch()
    check_writable(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == others


@pytest.mark.processes
def test_resuming_a_finished_run_only_tests_it_again(
    trained: Training, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
    assert train_model.main(arguments(dataset, tmp_path)) == 0
    output = capsys.readouterr().out
    assert f"resumed after epoch {EPOCHS}" in output
    assert not EPOCH_LINE.search(output)
    assert TEST_LINE.search(output)
    check_alike(Training(1, output, *(tmp_path / name for name in ("model", "reports", "checkpoints"))), trained)


# Two processes


@pytest.mark.processes
def test_two_processes_learn_from_the_same_images_in_as_many_steps(trained: Training, together: Training) -> None:
    settings = together.report()["settings"]
    assert settings == trained.report()["settings"] | {"processes": 2}
    states = [torch.load(run.checkpoints / "checkpoint.pth", weights_only=True) for run in (trained, together)]
    assert states[0]["schedule"]["last_epoch"] == states[1]["schedule"]["last_epoch"] == 3 * EPOCHS


@pytest.mark.slow
@pytest.mark.processes
def test_a_bad_image_in_the_second_processs_share_ends_both_in_one_sentence(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    second = sorted((tmp_path / "data" / "train" / "NORMAL").iterdir())[1]
    truncate(second)
    argv = arguments(tmp_path / "data", tmp_path)
    process = start(TOGETHER, argv, SM_OUTPUT_DIR=str(tmp_path))
    out, err = process.communicate()
    sentence = (tmp_path / "failure").read_text()
    assert f"train/NORMAL/{second.name} (The image is broken" in sentence
    assert err.count(f"{sentence}\n") == 1
    assert process.returncode == 1
    assert "epoch=" not in out
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.slow
@pytest.mark.processes
def test_an_image_in_both_classes_of_two_shares_ends_both_in_one_sentence(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    shutil.copyfile(first_image(tmp_path / "data/train/NORMAL"), tmp_path / "data/test/PNEUMONIA/copy.jpeg")
    process = start(TOGETHER, arguments(tmp_path / "data", tmp_path), SM_OUTPUT_DIR=str(tmp_path))
    out, err = process.communicate()
    sentence = (tmp_path / "failure").read_text()
    assert sentence.startswith("The same image is in NORMAL and in PNEUMONIA, byte for byte (train/NORMAL/")
    assert (process.returncode, err.count(f"{sentence}\n")) == (1, 1)
    assert "epoch=" not in out


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    "command",
    [pytest.param(ALONE, id="alone"), pytest.param(TOGETHER, id="together", marks=pytest.mark.slow)],
)
def test_what_channels_share_is_in_the_log_once_and_in_the_report(
    command: Sequence[str], dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    image = first_image(tmp_path / "data" / "train" / "NORMAL")
    shutil.copy(image, tmp_path / "data" / "test" / "NORMAL")
    training = run(tmp_path / "data", tmp_path, command)
    warning = "train and test share 1 image and 1 patient: figures on test do not hold for new patients."
    before = training.output.partition("epoch=")[0]
    assert before.count(f"Warning: {warning}") == training.output.count("share 1 image") == 1
    assert f"  test/NORMAL/{image.name} and train/NORMAL/{image.name}\n" in before
    found = training.report()["data_check"]
    assert found["shared"] == {"train and test": {"images": 1, "patients": 1}}
    assert found["warnings"][0].startswith(warning)
    assert found["warnings"][1:] == [SMALL]


@pytest.mark.slow
@pytest.mark.processes
def test_every_broken_image_of_every_channel_and_process_is_in_the_log(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    broken = sorted((tmp_path / "data").glob("*/NORMAL/*"))
    for path in broken:
        path.write_bytes(b"")
    process = start(TOGETHER, arguments(tmp_path / "data", tmp_path), SM_OUTPUT_DIR=str(tmp_path))
    _, err = process.communicate()
    sentence = (tmp_path / "failure").read_text()
    names = [str(path.relative_to(tmp_path / "data")) for path in broken]
    assert sentence.startswith(f"{len(names)} images cannot be read, remove or replace them: {names[0]} (")
    assert sentence.endswith(f" and {len(names) - 3} more")
    assert len(sentence) <= 1024
    lines = err.splitlines()
    assert lines.count(sentence) == 1
    assert [line.partition(" (")[0] for line in lines if line.startswith(("train/", "val/", "test/"))] == names


# Bad input


@pytest.fixture
def failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SageMaker's failure file."""
    monkeypatch.setenv("SM_OUTPUT_DIR", str(tmp_path))
    return tmp_path / "failure"


def test_the_first_failure_is_the_one_that_sagemaker_is_told(failure: Path) -> None:
    train_model.report_failure("An image is broken.")
    train_model.report_failure("Another process has left.")
    assert failure.read_text() == "An image is broken."


def sentence_of(argv: list[str], failure: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, check that it fails before any epoch and tells why, and return the sentence."""
    assert train_model.main(argv) == 1
    captured = capsys.readouterr()
    assert "epoch=" not in captured.out
    assert captured.err.count("\n") == 1
    assert failure.read_text() == captured.err.rstrip("\n")
    return captured.err


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


BAD_DATA = [
    pytest.param(lambda root: shutil.rmtree(root / "val"), "Channel 'val' is missing", id="missing channel"),
    pytest.param(lambda root: shutil.rmtree(root / "train" / "NORMAL"), "train lacks NORMAL", id="missing class"),
    pytest.param(
        lambda root: [
            (root / "test" / "NORMAL").rename(root / "test" / "aside"),
            (root / "test" / "PNEUMONIA").rename(root / "test" / "NORMAL"),
            (root / "test" / "aside").rename(root / "test" / "PNEUMONIA"),
        ],
        "look swapped: every file of test/NORMAL is named as PNEUMONIA are",
        id="swapped classes",
    ),
    pytest.param(lambda root: (root / "test" / "COVID").mkdir(), "remove COVID", id="extra class"),
    pytest.param(
        lambda root: [path.unlink() for path in root.glob("*/*/*")],
        "no images in train/NORMAL, train/PNEUMONIA, val/NORMAL",
        id="no images",
    ),
    pytest.param(
        lambda root: [path.unlink() for split in ("val", "test") for path in root.glob(f"{split}/PNEUMONIA/*")],
        "no images in val/PNEUMONIA, test/PNEUMONIA",
        id="class in one split only",
    ),
    pytest.param(
        lambda root: truncate(first_image(root / "test" / "NORMAL")),
        "test/NORMAL/IM-0010-0001.jpeg (The image is broken",
        id="truncated image",
    ),
    pytest.param(
        lambda root: shutil.copyfile(first_image(root / "val" / "NORMAL"), root / "test" / "PNEUMONIA" / "copy.jpeg"),
        "The same image is in NORMAL and in PNEUMONIA, byte for byte (val/NORMAL/IM-0006-0001.jpeg and "
        "test/PNEUMONIA/copy.jpeg): remove one of them.",
        id="image in both classes",
    ),
    pytest.param(
        lambda root: (root / "val" / "PNEUMONIA" / "notes.txt").write_text("no image"),
        "val/PNEUMONIA/notes.txt (The file is not an image",
        id="text among the images",
    ),
]


@pytest.mark.parametrize(("spoil", "fragment"), BAD_DATA)
def test_bad_data_ends_in_one_sentence(
    spoil: Callable[[Path], object],
    fragment: str,
    dataset: Path,
    tmp_path: Path,
    failure: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    spoil(tmp_path / "data")
    assert fragment in sentence_of(arguments(tmp_path / "data", tmp_path), failure, capsys)
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (["--epochs", "0"], "--epochs must be above 0, not 0"),
        (["--epochs", "many"], "Argument --epochs: invalid int value: 'many', a whole number is expected"),
        (["--epochs", "2.5"], "Argument --epochs: invalid int value: '2.5', a whole number is expected"),
        (["--epochs", "inf"], "Argument --epochs: invalid int value: 'inf'"),
        (["--learning-rate", "fast"], "Argument --learning-rate: invalid float value: 'fast', a number is expected"),
        (["--batch-size", "-4"], "--batch-size must be above 0, not -4"),
        (["--num-workers", "0"], "--num-workers must be above 0, not 0"),
        (["--learning-rate", "0"], "--learning-rate must be above 0, not 0.0"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0, not nan"),
        (["--weight-decay", "-1"], "--weight-decay must not be below 0, and is -1.0"),
        (["--weight-decay", "nan"], "--weight-decay must not be below 0, and is nan"),
        (["--learning-rate", "inf"], "--learning-rate must be finite, not inf"),
        (["--weight-decay", "1e999"], "--weight-decay must be finite, not inf"),
        (["--seed", "-1"], "--seed must be from 0 to 18446744073709551615, not -1"),
        (["--seed", str(2**64)], "--seed must be from 0 to 18446744073709551615"),
        (
            ["--lerning-rate", "1"],
            "Unrecognized arguments: --lerning-rate 1 (did you mean --learning-rate?). `train_model.py --help` lists",
        ),
        (["--momentum", "0.9"], "Unrecognized arguments: --momentum 0.9. `train_model.py --help` lists the arguments."),
        (["--patients", "("], "--patients '(' is not a regular expression (missing )"),
        (["--patients", "child([0-9]+)"], "--patients 'child([0-9]+)' finds no patient in any of 21 file names"),
        (["--patients", "a{99999999999999}"], "is not a regular expression (the repetition number is too large)"),
        (["--patients", "(" * 20_000], "is not a regular expression ("),
        (["--batch-size", "100000000000000000000"], "--batch-size must be at most 1,000,000, not 1000000000000000"),
        (["--weights", "nowhere.pth"], "--weights nowhere.pth: there is no such file"),
        (["--model-dir", "s3://bucket/model"], "Argument --model-dir: s3://bucket/model is an address: name a"),
        (["--checkpoint-dir", "s3://bucket/run"], "Argument --checkpoint-dir: s3://bucket/run is an address"),
    ],
)
def test_a_bad_argument_ends_in_one_sentence(
    options: list[str],
    fragment: str,
    dataset: Path,
    tmp_path: Path,
    failure: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fragment in sentence_of(arguments(dataset, tmp_path, *options), failure, capsys)


@pytest.mark.parametrize("option", ["--model-dir", "--output-data-dir", "--checkpoint-dir"])
def test_a_folder_that_cannot_be_written_ends_in_one_sentence(
    option: str, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()  # root, too, can make no folder below a file
    sentence = sentence_of(arguments(dataset, tmp_path, option, str(tmp_path / "file" / "x")), failure, capsys)
    assert "file/x cannot be written (Not a directory)" in sentence


def test_imagenet_weights_that_cannot_be_downloaded_end_in_one_sentence(
    dataset: Path, tmp_path: Path, failure: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    sentence = sentence_of(arguments(dataset, tmp_path, "--weights", "imagenet"), failure, capsys)
    assert "ImageNet weights cannot be downloaded from https://download.pytorch.org/" in sentence
    assert "--weights none, or, outside SageMaker jobs, pass a file with --weights PATH." in sentence


@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (
            ["--learning-rate", "1e-4"],
            "is of a run that differs in --learning-rate: go on with what that run was given, or start anew with ",
        ),
        (["--epochs", "4", "--seed", "3"], "is of a run that differs in --epochs, --seed: "),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(
    options: list[str],
    fragment: str,
    trained: Training,
    dataset: Path,
    tmp_path: Path,
    failure: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*options, "--checkpoint-dir", str(trained.checkpoints)]
    assert fragment in sentence_of(arguments(dataset, tmp_path, *options), failure, capsys)


@pytest.mark.processes
def test_a_run_on_other_images_is_not_resumed(
    trained: Training, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    first_image(tmp_path / "data" / "val" / "NORMAL").unlink()
    options = ["--checkpoint-dir", str(trained.checkpoints)]
    sentence = sentence_of(arguments(tmp_path / "data", tmp_path, *options), failure, capsys)
    assert "is of a run that differs in the images: " in sentence


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_broken_checkpoint_ends_in_one_sentence(
    content: bytes, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint.pth").write_bytes(content)
    assert "checkpoint.pth is not a whole state of a run" in sentence_of(arguments(dataset, tmp_path), failure, capsys)


def test_another_file_in_the_checkpoints_place_ends_in_one_sentence(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    save_weights(ResNet18().state_dict(), tmp_path / "checkpoints" / "checkpoint.pth")
    assert "is not a whole state of a run: it holds weights alone" in sentence_of(
        arguments(dataset, tmp_path), failure, capsys
    )


def test_a_full_disk_ends_in_one_sentence_that_names_the_file(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_after(1_000_000):
        sentence = sentence_of(arguments(dataset, tmp_path), failure, capsys)
    assert f"{tmp_path}/model/pneumonia_classifier.pth cannot be read or written: File too large." in sentence
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.processes
def test_a_disk_that_fills_up_keeps_the_checkpoint_and_says_so(
    trained: Training, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    with full_after(1_000_000):
        sentence = sentence_of(arguments(dataset, tmp_path), failure, capsys).strip()
    assert sentence.endswith(
        f"{tmp_path}/model/pneumonia_classifier.pth cannot be read or written: File too large. The checkpoint of epoch "
        f"{EPOCHS} is kept in {tmp_path}/checkpoints/checkpoint.pth: the same command goes on from it."
    )
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before


def test_a_full_disk_without_a_checkpoint_keeps_the_weights(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_after(50_000_000):
        assert train_model.main(arguments(dataset, tmp_path)) == 1
    sentence = failure.read_text()
    assert capsys.readouterr().err == f"{sentence}\n"
    weights = tmp_path / "model" / "pneumonia_classifier.pth"
    assert f"{tmp_path}/checkpoints/checkpoint.pth cannot be read or written: File too large. " in sentence
    assert sentence.endswith(f"The best checkpoint before is kept in {weights}, and nothing to go on from.")
    load_weights(weights)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LOCAL_WORLD_SIZE", "x", "LOCAL_WORLD_SIZE is 'x', but torchrun sets it to a whole number from 1 on"),
        ("LOCAL_WORLD_SIZE", "0", "LOCAL_WORLD_SIZE is '0', but torchrun sets it to a whole number from 1 on"),
        ("WORLD_SIZE", "-1", "WORLD_SIZE is '-1', but torchrun sets it to a whole number from 1 on"),
        ("WORLD_SIZE", "9" * 5000, "WORLD_SIZE is '9999"),
        ("WORLD_SIZE", "\u0662", "WORLD_SIZE is '\u0662', but torchrun sets it to a whole number"),
        ("RANK", "1.5", "RANK is '1.5', but torchrun sets it to a whole number from 0 on"),
        ("RANK", "1", "RANK is 1, but there are 1 processes, counted from 0: start the processes with torchrun"),
        ("LOCAL_RANK", "cuda:0", "LOCAL_RANK is 'cuda:0', but torchrun sets it to a whole number"),
        ("WORLD_SIZE", "2", "The processes cannot be joined ("),
    ],
)
def test_torchruns_variables_that_are_wrong_end_in_one_sentence(
    name: str,
    value: str,
    told: str,
    dataset: Path,
    tmp_path: Path,
    failure: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for other in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    assert train_model.main(arguments(dataset, tmp_path)) == 1
    assert told in failure.read_text()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("port", ["x", "99999", ""])
def test_a_port_that_is_none_ends_in_one_sentence(
    port: str, dataset: Path, tmp_path: Path, failure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    assert train_model.main(arguments(dataset, tmp_path)) == 1
    assert failure.read_text().startswith("The processes cannot be joined (")


@pytest.mark.processes
def test_a_loss_that_is_no_number_ends_in_one_sentence_and_touches_no_file(
    trained: Training, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.model, tmp_path / "model")
    sentence = sentence_of(arguments(dataset, tmp_path, "--learning-rate", "1e30"), failure, capsys)
    assert "Training diverged in epoch 1" in sentence
    assert "Lower --learning-rate, now 1e+30" in sentence
    for path in trained.model.iterdir():
        assert (tmp_path / "model" / path.name).read_bytes() == path.read_bytes()


def test_weights_too_large_for_the_file_end_training_and_keep_the_best_checkpoint_before(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One step an epoch: the first with a 25th of the rate, which float16 survives, the second with nearly all of it.
    assert train_model.main(arguments(dataset, tmp_path, "--learning-rate", "1e6", "--batch-size", "12")) == 1
    captured = capsys.readouterr()
    assert [line[0] for line in EPOCH_LINE.findall(captured.out)] == ["1"]
    assert "Training diverged in epoch 2" in captured.err
    assert failure.read_text() == captured.err.rstrip("\n")
    load_weights(tmp_path / "model" / "pneumonia_classifier.pth")
    state = torch.load(tmp_path / "checkpoints" / "checkpoint.pth", weights_only=True)
    assert [epoch["epoch"] for epoch in state["history"]] == [1]


@pytest.mark.processes
def test_the_process_fails_with_status_1_and_no_traceback(dataset: Path, tmp_path: Path) -> None:
    process = start(ALONE, arguments(dataset, tmp_path, "--val", str(tmp_path / "nowhere")))
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == (f"Channel 'val' is missing: {tmp_path}/nowhere is not a folder. Pass --val or set SM_CHANNEL_VAL.\n")


@pytest.mark.processes
def test_it_is_stopped_before_training_without_a_traceback(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("no_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy:  # it takes the download's connection, and never answers
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        process = start(ALONE, arguments(dataset, tmp_path, "--weights", "imagenet"))
        connection, _ = proxy.accept()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        connection.close()
    assert (process.returncode, err) == (130, "Stopped.\n")


@pytest.mark.processes
@pytest.mark.parametrize("closed", ["", " 2>&-"], ids=["open", "without standard error"])
def test_names_that_the_terminal_lacks_letters_for_end_no_training(
    closed: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    (tmp_path / "data" / "train" / "NORMAL" / "\u60a3\u8005.jpeg").write_bytes(b"no image")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    argv = arguments(tmp_path / "data", tmp_path)
    process = start(("sh", "-c", f'exec "$@"{closed}', "sh", *ALONE), argv)
    _, err = process.communicate()
    assert process.returncode == 1
    if not closed:
        assert "NORMAL/??.jpeg" in err
    assert "Traceback" not in err


# What it imports


@pytest.mark.processes
def test_what_draws_the_pictures_is_not_imported_before_the_end() -> None:
    """It would take 160 MB all the while."""
    program = "import sys, train_model; print(sorted({'matplotlib', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)))"
    out, err = start((sys.executable, "-c", program), []).communicate()
    assert (out, err) == ("[]\n", "")


@pytest.mark.processes
@pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
def test_a_missing_package_is_told_before_training(package: str, dataset: Path, tmp_path: Path) -> None:
    program = f"import sys; sys.modules['{package}'] = None; import train_model; sys.exit(train_model.main())"
    process = start((sys.executable, "-c", program), arguments(dataset, tmp_path))
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == f"`train_model.py` needs {package}, which is not installed: {HOW_TO_INSTALL}.\n"
