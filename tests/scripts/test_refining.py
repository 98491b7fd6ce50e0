"""The best checkpoint, refined: what is averaged, what is reported, and what can be refined."""

import copy
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import train_model
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.contract import WEIGHTS_NAME
from pneumonia.network.weights_file import at_rest, load_weights, save_weights
from pneumonia.training.batches import Split, load_splits, shuffled_batches
from pneumonia.training.channels import SPLITS, scan_channels
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes
from pneumonia.training.run import Evaluation, Run
from pneumonia.training.synthetic import draw_dataset
from tests.builders.networks import untrained
from tests.builders.training import TOGETHER, start, told_at_the_end
from train_model import add, refine_and_validate, refined, train_one_epoch

pytestmark = pytest.mark.usefixtures("one_thread")

ONE = Processes(1, 0, torch.device("cpu"))
RATE = 0.05  # so high that two steps are seen


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    draw_dataset(root, {"train": 3, "val": 2, "test": 2}, size=64)
    return root


@pytest.fixture(scope="module")
def start_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a weights file to refine."""
    path = tmp_path_factory.mktemp("start") / "start.pth"
    save_weights(untrained().state_dict(), path)
    return path


def arguments(dataset: Path, output: Path, *options: str) -> list[str]:
    channels = [argument for split in SPLITS for argument in (f"--{split}", str(dataset / split))]
    folders = ["--model-dir", str(output / "model"), "--output-data-dir", str(output / "reports")]
    settings = ["--batch-size", "4", "--learning-rate", str(RATE), "--num-workers", "1"]
    return [*channels, *folders, *settings, *options]


def split_of(dataset: Path) -> Split:
    """Return the training images."""
    channels = scan_channels({split: dataset / split for split in SPLITS})
    return load_splits(channels, 1, ONE)["train"]


def history_in(output: Path) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = json.loads((output / "reports" / "history.json").read_text())
    return history


def weights_in(output: Path) -> dict[str, Tensor]:
    return load_weights(output / "model" / WEIGHTS_NAME).state_dict()


def learned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what is no statistic of batch norm: those are measured anew."""
    return {name: value for name, value in state.items() if not name.endswith(("mean", "var", "tracked"))}


def check_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in learned(one).items():
        expected = learned(other)[name].double()
        torch.testing.assert_close(value.double(), expected, rtol=1e-3, atol=1e-6)  # half precision


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return not torch.allclose(one["conv1.weight"], other["conv1.weight"], rtol=1e-2, atol=1e-3)


def mean_of(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}


def test_ends_are_added_up_exactly_and_stay_as_they_are() -> None:
    one = {"weight": torch.tensor([1.0, 2**24]), "count": torch.tensor(3)}
    other = {"weight": torch.tensor([3.0, 1.0]), "count": torch.tensor(5)}
    sums: dict[str, Tensor] = {}
    add(sums, one)
    add(sums, other)
    assert sums["weight"].tolist() == [4, 2**24 + 1]  # the second is none of float32
    assert sums["count"].item() == 8
    assert one["weight"].tolist() == [1, 2**24]


def test_each_run_starts_from_the_same_network_and_has_random_numbers_of_its_own(
    dataset: Path, start_file: Path
) -> None:
    network, _ = build_network(str(start_file))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    split, chosen = split_of(dataset), Hyperparameters(batch_size=4, learning_rate=RATE, seed=4)
    first, loss = refined(network, 0, split, chosen, ONE)
    second, _ = refined(network, 1, split, chosen, ONE)
    again, _ = refined(network, 1, split, chosen, ONE)
    assert loss > 0
    assert differ(first, second)
    assert differ(first, before)
    assert all(torch.equal(second[name], again[name]) for name in second)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_run_is_an_epoch_at_half_the_rate_with_images_shown_otherwise(dataset: Path, start_file: Path) -> None:
    network, _ = build_network(str(start_file))
    split, chosen = split_of(dataset), Hyperparameters(epochs=7, batch_size=4, learning_rate=RATE, seed=4)
    end, _ = refined(network, 0, split, chosen, ONE)

    names = [name for name, _ in network.named_parameters()]
    torch.manual_seed(4)
    run = Run.start(network, names, Hyperparameters(epochs=1, batch_size=4, learning_rate=RATE / 2), split.count, ONE)
    train_one_epoch(run, shuffled_batches(split, 4, ONE), SIZE, shown=0.5)
    assert all(torch.equal(value, end[name]) for name, value in run.averaged.state_dict().items())


def test_the_best_checkpoint_is_refined_and_replaced_though_it_was_better(dataset: Path, start_file: Path) -> None:
    network, _ = build_network("none")
    best, _ = build_network(str(start_file))
    splits = load_splits(scan_channels({split: dataset / split for split in SPLITS}), 1, ONE)
    chosen = Hyperparameters(batch_size=4, learning_rate=RATE, refining_runs=1)
    run = Run.start(network, (), chosen, splits["train"].count, ONE)
    run.best, run.best_state = Evaluation(4, 4, 0.0), copy.deepcopy(best.state_dict())
    figures, _ = refine_and_validate(run, splits, chosen, ONE)
    assert figures["best"]
    assert (figures["val_accuracy"], figures["val_loss"]) != (1, 0)
    assert run.best == Evaluation(round(4 * figures["val_accuracy"]), 4, figures["val_loss"])
    assert run.best_state
    end, _ = refined(best, 0, splits["train"], chosen, ONE)
    assert all(torch.equal(value, learned(end)[name]) for name, value in learned(run.best_state).items())


def test_what_is_kept_is_the_average_with_its_report(
    dataset: Path, start_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--weights", str(start_file), "--epochs", "0", "--refining-runs", "2", "--seed", "4"]
    assert train_model.main(arguments(dataset, tmp_path, *options)) == 0

    network: nn.Module = build_network(str(start_file))[0]
    chosen = Hyperparameters(batch_size=4, learning_rate=RATE, seed=4)
    ends = [refined(network, number, split_of(dataset), chosen, ONE) for number in range(2)]
    check_close(weights_in(tmp_path), mean_of([end for end, _ in ends]))

    (entry,) = history_in(tmp_path)
    assert (entry["epoch"], entry["best"]) == (1, True)
    assert entry["train_loss"] == pytest.approx(sum(loss for _, loss in ends) / 2)
    report = json.loads((tmp_path / "model" / "training.json").read_text())
    assert (report["settings"]["epochs"], report["settings"]["refining_runs"]) == (0, 2)
    assert report["metrics"]["val_loss"] == pytest.approx(entry["val_loss"], rel=0.05)  # after rounding to half
    log = capsys.readouterr().out
    assert all(f"refining_run={number} loss={loss:.4f}\n" in log for number, (_, loss) in enumerate(ends, 1))
    assert f"epoch=1 train_loss={entry['train_loss']:.4f} " in log


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training of one epoch leaves that is refined in two runs."""
    output = tmp_path_factory.mktemp("trained")
    assert train_model.main(arguments(dataset, output, *trained_and_refined(output))) == 0
    return output


def trained_and_refined(output: Path) -> list[str]:
    checkpoints = ["--checkpoint-dir", str(output / "checkpoints")]
    return ["--weights", "none", "--epochs", "1", "--refining-runs", "2", "--learning-rate", "1e-3", *checkpoints]


def test_the_best_checkpoint_is_what_is_refined(trained: Path, dataset: Path) -> None:
    state = torch.load(trained / "checkpoints" / "checkpoint.pth", weights_only=True)
    assert [entry["epoch"] for entry in state["history"]] == [1]
    network, _ = build_network("none")
    network.load_state_dict(state["best_state"])
    chosen = Hyperparameters(batch_size=4, learning_rate=1e-3)
    ends = [refined(network, number, split_of(dataset), chosen, ONE)[0] for number in range(2)]
    check_close(weights_in(trained), mean_of(ends))
    assert [(entry["epoch"], entry["best"]) for entry in history_in(trained)] == [(1, True), (2, True)]


def test_a_run_that_was_interrupted_while_refining_ends_as_an_uninterrupted_one(
    trained: Path, dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")  # as the last epoch left them
    assert train_model.main(arguments(dataset, tmp_path, *trained_and_refined(tmp_path))) == 0
    assert history_in(tmp_path) == history_in(trained)
    assert all(torch.equal(value, weights_in(trained)[name]) for name, value in weights_in(tmp_path).items())


@pytest.mark.processes
def test_a_run_stopped_while_refining_says_what_it_leaves(dataset: Path, tmp_path: Path) -> None:
    options = [*trained_and_refined(tmp_path), "--refining-runs", "100"]
    told, status = told_at_the_end("^refining_run=1 ", arguments(dataset, tmp_path, *options), signal.SIGTERM)
    weights, checkpoint = tmp_path / "model" / WEIGHTS_NAME, tmp_path / "checkpoints" / "checkpoint.pth"
    kept = f"the best checkpoint so far is {weights}, neither calibrated nor tested yet"
    assert told == f"Stopped after 1 of 1 epochs, while refining: {kept}; the same command goes on from {checkpoint}.\n"
    assert status == -signal.SIGTERM


@pytest.mark.slow
def test_two_processes_refine_together(dataset: Path, tmp_path: Path) -> None:
    process = start(TOGETHER, arguments(dataset, tmp_path, *trained_and_refined(tmp_path)))
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    state = torch.load(tmp_path / "checkpoints" / "checkpoint.pth", weights_only=True)
    assert [(entry["epoch"], entry["best"]) for entry in history_in(tmp_path)] == [(1, True), (2, True)]
    name = "layer1.0.conv1.weight"
    assert not torch.equal(weights_in(tmp_path)[name], at_rest(state["best_state"])[name].float())


def test_a_run_that_diverges_ends_the_training(
    dataset: Path, start_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--weights", str(start_file), "--epochs", "0", "--refining-runs", "9", "--learning-rate", "1e30"]
    assert train_model.main(arguments(dataset, tmp_path, *options)) == 1
    told = capsys.readouterr()
    assert told.err == (
        "Refining run 1 diverged: its loss is nan. Lower --learning-rate, now 1e+30, of which refining takes 0.2.\n"
    )
    assert "refining_run=2" not in told.out
    assert not (tmp_path / "model" / WEIGHTS_NAME).exists()


def test_a_start_without_all_layers_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "partial.pth"
    torch.save({name: value for name, value in untrained().state_dict().items() if "fc" not in name}, partial)
    options = ["--weights", str(partial), "--epochs", "0", "--refining-runs", "1"]
    assert train_model.main(arguments(dataset, tmp_path, *options)) == 1
    assert capsys.readouterr().err == (
        f"--epochs 0 refines a trained network, and {partial} lacks fc.weight, fc.bias: name a file that has all "
        "layers, or train for some epochs.\n"
    )
    assert not (tmp_path / "model" / WEIGHTS_NAME).exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--refining-runs", "-1"], "--refining-runs must not be below 0, and is -1"),
        (["--epochs", "0"], "--epochs must be above 0, not 0"),
        (["--epochs", "-1", "--refining-runs", "1"], "--epochs must not be below 0, and is -1"),
        (
            ["--epochs", "0", "--refining-runs", "1"],
            "--epochs 0 refines a trained network: --weights must name its file, not imagenet",
        ),
    ],
)
def test_what_cannot_be_refined_is_refused(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_model.main(options) == 1
    assert sentence in capsys.readouterr().err
