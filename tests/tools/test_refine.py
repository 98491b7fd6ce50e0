"""A release that is trained further: what it learns from its teachers, and that the average is what is released."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from pneumonia.files import sha256
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.resnet import ResNet18
from pneumonia.network.training_report import REPORT_NAME
from pneumonia.network.weights_file import load_weights, save_weights
from pneumonia.training.batches import Split, load_splits
from pneumonia.training.channels import SPLITS, scan_channels
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes
from pneumonia.training.synthetic import draw_dataset
from tests.builders.networks import untrained
from tools.refine import main, mean_of, refined, targets

ONE = Processes(1, 0, torch.device("cpu"))
IMAGES = {"train": 3, "val": 2, "test": 2}
RATE = 0.05  # so high that two steps are seen


def teacher(seed: int) -> ResNet18:
    """Return a network in evaluation mode, of random weights that depend on the seed."""
    torch.manual_seed(seed)
    network = ResNet18()
    for value in network.parameters():
        torch.nn.init.normal_(value, 0, 0.05)
    return network.eval()


def split_of(dataset: Path) -> Split:
    """Return the training images of a data set."""
    channels = scan_channels({split: dataset / split for split in SPLITS})
    return load_splits(channels, 1, ONE)["train"]


def command(dataset: Path, output: Path, start: Path, *options: str) -> list[str]:
    """Return the tool's arguments."""
    channels = [argument for split in SPLITS for argument in (f"--{split}", str(dataset / split))]
    folders = ["--model-dir", str(output / "model"), "--output-data-dir", str(output / "reports")]
    return ["--weights", str(start), "--batch-size", "4", *channels, *folders, *options]


def test_half_of_what_is_learned_is_the_labels_and_half_the_teachers_mean() -> None:
    teachers, inputs, labels = [teacher(1), teacher(2)], torch.randn(3, 3, 64, 64), torch.tensor([1, 0, 1])
    with torch.no_grad():
        answers = (teachers[0](inputs).softmax(1) + teachers[1](inputs).softmax(1)) / 2
    expected = (functional.one_hot(labels, 2) + answers) / 2
    torch.testing.assert_close(targets(teachers, inputs, labels), expected)
    assert not torch.allclose(expected, functional.one_hot(labels, 2).float(), atol=0.01)


def test_without_teachers_the_labels_are_learned() -> None:
    labels = torch.tensor([1, 0, 1])
    assert torch.equal(targets([], torch.randn(3, 3, 64, 64), labels), labels)


def test_the_mean_keeps_types() -> None:
    one = {"weight": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)}
    other = {"weight": torch.tensor([3.0, 8.0]), "count": torch.tensor(5)}
    mean = mean_of([one, other])
    assert mean["weight"].tolist() == [2, 5]
    assert (mean["count"].item(), mean["count"].dtype) == (4, torch.int64)


def test_the_average_of_the_start_and_all_runs_is_left_with_its_report(tmp_path: Path) -> None:
    draw_dataset(tmp_path, IMAGES, size=64)
    start, other = tmp_path / "start.pth", tmp_path / "other.pth"
    save_weights(untrained().state_dict(), start)
    save_weights(teacher(1).state_dict(), other)
    options = ["--learning-rate", str(RATE), "--runs", "2", "--seed", "4", "--shown-otherwise", "0.5"]
    options += ["--teachers", str(start), str(other)]
    assert main(command(tmp_path, tmp_path, start, *options)) == 0

    teachers, split = [load_weights(path) for path in (start, other)], split_of(tmp_path)
    chosen = Hyperparameters(epochs=1, batch_size=4, learning_rate=RATE, weights=str(start))
    runs = [refined(teachers, split, seed, 0.5, chosen, ONE)[0] for seed in (4, 5)]
    states = [build_network(str(start))[0].state_dict(), *runs]
    left = load_weights(tmp_path / "model" / WEIGHTS_NAME).state_dict()
    for name, value in mean_of(states).items():
        if not name.endswith(("mean", "var", "tracked")):  # those are measured anew
            torch.testing.assert_close(left[name], value, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(left["conv1.weight"], states[0]["conv1.weight"], rtol=1e-2, atol=1e-3)

    report = json.loads((tmp_path / "model" / REPORT_NAME).read_text())
    assert [report["settings"][name] for name in ("runs", "teachers", "shown_otherwise")] == [
        2,
        [sha256(start), sha256(other)],
        0.5,
    ]
    (epoch,) = json.loads((tmp_path / "reports" / "history.json").read_text())
    assert epoch["best"]
    assert report["metrics"]["val_accuracy"] == pytest.approx(epoch["val_accuracy"])


def test_a_teacher_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_dataset(tmp_path, IMAGES, size=64)
    start, missing = tmp_path / "start.pth", tmp_path / "missing.pth"
    save_weights(untrained().state_dict(), start)
    assert main(command(tmp_path, tmp_path, start, "--teachers", str(missing))) == 1
    assert capsys.readouterr().err == f"{missing} does not exist: check the name.\n"
    assert not (tmp_path / "model" / WEIGHTS_NAME).exists()


def test_a_start_without_all_layers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_dataset(tmp_path, IMAGES, size=64)
    start = tmp_path / "start.pth"
    torch.save({name: value for name, value in untrained().state_dict().items() if "layer4" not in name}, start)
    assert main(command(tmp_path, tmp_path, start)) == 1
    assert str(start) in capsys.readouterr().err
    assert not (tmp_path / "model" / WEIGHTS_NAME).exists()


def test_all_broken_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_dataset(tmp_path, IMAGES | {"train": 6}, size=64)
    start = tmp_path / "start.pth"
    save_weights(untrained().state_dict(), start)
    broken = sorted((tmp_path / "train" / "NORMAL").iterdir())
    for path in broken:
        path.write_bytes(b"no image")
    assert main(command(tmp_path, tmp_path, start)) == 1
    told = capsys.readouterr().err
    assert all(path.name in told for path in broken)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--runs", "0"], "--runs must be 1 or more, not 0"),
        (["--shown-otherwise", "1.5"], "--shown-otherwise must be 0 to 1, not 1.5"),
        (["--weights", "start.pth", "--epochs", "2"], "each run is one epoch, not 2"),
        (["--weights", "start.pth", "--checkpoint-dir", "x"], "nothing is resumed: leave out --checkpoint-dir"),
        ([], "--weights must name a weights file, not be imagenet"),
    ],
)
def test_what_it_cannot_do_is_refused(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(options)
    assert sentence in capsys.readouterr().err
