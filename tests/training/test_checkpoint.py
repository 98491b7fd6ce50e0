import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pneumonia.errors import CheckpointError, ConfigurationError
from pneumonia.network.weights_file import save_weights, save_whole
from pneumonia.training.checkpoint_file import one_before, read
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.processes import Processes
from pneumonia.training.report import best_weights
from pneumonia.training.run import Evaluation, Run
from tests.builders.disk import full_after

ONE = Processes(1, 0, torch.device("cpu"))
SETTINGS = {"epochs": 3, "seed": 0, "dataset": "f" * 64}
STEPS = 4  # of an epoch
EPOCHS = 2  # when the checkpoint is written
State = dict[str, Any]


def new_run() -> Run:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return Run.start(network, {"1.weight"}, Hyperparameters(epochs=3, batch_size=2), 2 * STEPS, ONE)


def train_an_epoch(run: Run) -> None:
    """Train for an epoch, of which only the first is the best."""
    epoch = len(run.history) + 1
    for _ in range(STEPS):
        run.step(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
        run.follow()
    figures = {"train_loss": 0.7, "val_accuracy": 0.5, "val_loss": 0.6 + epoch, "val_auroc": 0.5}
    run.history.append({"epoch": epoch, **figures, "best": epoch == 1})
    if epoch == 1:
        run.best, run.best_state = Evaluation(1, 2, 1.6), copy.deepcopy(run.averaged.state_dict())


def train(run: Run, path: Path, epochs: int) -> None:
    """Train until so many epochs have ended, and write a checkpoint after each."""
    while len(run.history) < epochs:
        train_an_epoch(run)
        run.save(path, SETTINGS, ONE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after two epochs, of which the first was the best."""
    path = tmp_path_factory.mktemp("written") / "checkpoint.pth"
    train(new_run(), path, EPOCHS)
    return path


def test_a_run_goes_on_from_what_it_wrote(written: Path, tmp_path: Path) -> None:
    run = new_run()
    assert run.resume(written, SETTINGS, ONE)
    run.save(tmp_path / "again.pth", SETTINGS, ONE)
    check_alike(written, tmp_path / "again.pth")


def check_alike(one: Path, other: Path) -> None:
    """Check that two checkpoints hold the same, to the last bit."""
    found, expected = (torch.load(path, weights_only=True) for path in (one, other))
    for name in ("model", "averaged", "optimizer", "best_state", "random"):
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
    for name in ("settings", "schedule", "scaler", "best", "history"):
        assert found[name] == expected[name]


def test_a_run_goes_on_whose_steps_were_all_left_out(written: Path, tmp_path: Path) -> None:
    """float16's scaler begins with a scale that may be too large for all steps of a short epoch."""
    state = torch.load(written, weights_only=True)
    state["optimizer"]["state"] = {}
    save_whole(state, tmp_path / "checkpoint.pth")
    assert new_run().resume(tmp_path / "checkpoint.pth", SETTINGS, ONE)


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert not new_run().resume(tmp_path / "checkpoint.pth", SETTINGS, ONE)


def spoil(*keys: Any, value: object) -> Callable[[State], None]:  # noqa: ANN401
    """Return what puts a value into a state, at the place that these keys lead to."""

    def change(state: State) -> None:
        place: Any = state
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def drop(*keys: Any) -> Callable[[State], None]:  # noqa: ANN401
    def change(state: State) -> None:
        place: Any = state
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def keep_settings_alone(state: State) -> None:
    for name in state.keys() - {"settings"}:
        del state[name]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (keep_settings_alone, "its content lacks model, averaged, optimizer and 6 more"),
        (spoil("settings", value=[]), "settings is not a dict"),
        (spoil("model", value={}), "model lacks 1.weight, 1.bias, 2.weight and 6 more"),
        (spoil("model", value=torch.zeros(2)), "model is not a dict"),
        (drop("averaged", "3.bias"), "averaged lacks 3.bias"),
        (spoil("averaged", "\x1b[1m", value=torch.zeros(1)), r"averaged has $'\x1b[1m' besides"),
        (spoil("model", "3.bias", value=torch.zeros(3)), "model.3.bias is of shape (3,) and torch.float32, not (2,)"),
        (spoil("model", "3.bias", value=torch.zeros(2).half()), "model.3.bias is of shape (2,) and torch.float16"),
        (spoil("model", "3.bias", value=torch.zeros(2, device="meta")), "model.3.bias is not a plain tensor"),
        (spoil("model", "3.bias", value=torch.tensor([0, math.nan])), "model.3.bias has NaN or infinite values"),
        (spoil("best_state", "3.bias", value=torch.tensor([0, math.inf])), "best_state.3.bias has NaN or infinite"),
        (spoil("best_state", value=None), "best_state is not a dict"),
        (drop("optimizer", "param_groups"), "optimizer lacks param_groups"),
        (drop("optimizer", "param_groups", 0), "optimizer.param_groups is not a list of 2"),
        (drop("optimizer", "param_groups", 0, "lr"), "optimizer.param_groups[0] lacks lr"),
        (spoil("optimizer", "param_groups", 0, "lr", value="x"), "optimizer.param_groups[0].lr is not a finite number"),
        (
            spoil("optimizer", "param_groups", 0, "params", value=[0, 1]),
            "optimizer.param_groups[0].params is not a list",
        ),
        (drop("optimizer", "state", 3), "optimizer.state lacks 3"),
        (drop("optimizer", "state", 3, "exp_avg"), "optimizer.state.3 lacks exp_avg"),
        (spoil("optimizer", "state", 0, "exp_avg", value=torch.zeros(1)), "optimizer.state.0.exp_avg is of shape (1,)"),
        (spoil("schedule", value={}), "schedule lacks "),
        (
            spoil("schedule", "last_epoch", value=3),
            "its history has 2 epochs of 4 steps, and its schedule is at step 3",
        ),
        (spoil("scaler", value={"scale": 1.0}), "scaler has scale besides"),
        (spoil("history", value=5), "history is not a list of"),
        (spoil("history", value=[]), "its history does not count the epochs from 1"),
        (drop("history", 0), "its history does not count the epochs from 1"),
        (drop("history", 1), "its history has 1 epochs of 4 steps, and its schedule is at step 8"),
        (drop("history", 1, "val_auroc"), "history[1] lacks val_auroc"),
        (spoil("history", 0, "val_loss", value=math.nan), "history[0].val_loss is not a finite number"),
        (spoil("history", 0, "best", value=1), "history[0].best is of another kind"),
        (spoil("history", 0, "best", value=False), "its best checkpoint is not that of its history"),
        (spoil("best", value=None), "best is not a dict"),
        (drop("best", "loss"), "best lacks loss"),
        (spoil("best", "loss", value=0.1), "its best checkpoint is not that of its history"),
        (spoil("best", "correct", value=3), "its best checkpoint is not that of its history"),
        (spoil("random", value=[]), "random is not a list of 1"),
        (spoil("random", 0, 0, value=torch.zeros(9, dtype=torch.uint8)), "random[0][0] is of shape (9,)"),
        (spoil("random", 0, 0, value=torch.zeros(5056, dtype=torch.uint8)), "it has no state of a random number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_with_other_content_is_refused_in_one_sentence(
    change: Callable[[State], None], fault: str, written: Path, tmp_path: Path
) -> None:
    state = torch.load(written, weights_only=True)
    change(state)
    save_whole(state, tmp_path / "checkpoint.pth")
    sentence = (
        rf"checkpoint\.pth is not a whole state of a run: {re.escape(fault)}.*\. To start anew, remove it or name"
    )
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        new_run().resume(tmp_path / "checkpoint.pth", SETTINGS, ONE)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"fc.bias": torch.zeros(2)}, "is not a whole state of a run: it holds weights alone"),
        ([1], "is not a whole state of a run: its content is not a dict"),
        (nn.Linear(2, 2), "is not a whole state of a run, but a whole pickled model (torch.nn.modules.linear.Linear)"),
    ],
)
def test_another_file_in_its_place_is_named_for_what_it_is(content: object, fault: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(ConfigurationError, match=re.escape(fault)):
        new_run().resume(tmp_path / "checkpoint.pth", SETTINGS, ONE)


def test_another_setting_is_named(written: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        new_run().resume(written, SETTINGS | {"seed": 1, "dataset": "other"}, ONE)
    assert str(caught.value) == (
        f"{written} is of a run that differs in --seed, the images: go on with what that run was given, or start "
        f"anew with {written.parent} emptied or another --checkpoint-dir."
    )


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pth").mkdir()
    with pytest.raises(ConfigurationError, match="it is not a plain file but a folder"):
        new_run().resume(tmp_path / "checkpoint.pth", SETTINGS, ONE)


# Damage

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": lambda data: flipped(data, len(data) // 2),
    "cut off": lambda data: data[: len(data) // 2],
    "its end cut off": lambda data: data[:-1],
    "empty": lambda _: b"",
    "another file": lambda _: b"another file",
    "zeros after a power cut": lambda data: bytes(len(data)),
}


def flipped(data: bytes, place: int) -> bytes:
    """Return bytes of which one bit is another."""
    changed = bytearray(data)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def test_a_flipped_bit_is_noticed_wherever_it_is(written: Path, tmp_path: Path) -> None:
    data, path = written.read_bytes(), tmp_path / "checkpoint.pth"
    for place in [*range(0, len(data), 61), *range(len(data) - 100, len(data))]:
        path.write_bytes(flipped(data, place))
        with pytest.raises(CheckpointError, match=r"checkpoint\.pth is "):
            read(path)


def test_a_cut_is_noticed_wherever_it_is(written: Path, tmp_path: Path) -> None:
    data, path = written.read_bytes(), tmp_path / "checkpoint.pth"
    for size in [*range(0, len(data), 211), *range(len(data) - 100, len(data))]:
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"checkpoint\.pth is "):
            read(path)


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
def test_a_run_goes_on_from_the_one_before_and_ends_alike(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "checkpoint.pth"
    torch.manual_seed(0)
    started = new_run()
    train(started, path, 2)
    uninterrupted = new_run()
    assert uninterrupted.resume(path, SETTINGS, ONE)
    train(uninterrupted, whole, 3)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    capsys.readouterr()
    run = new_run()
    assert run.resume(path, SETTINGS, ONE)
    fault, resumed = capsys.readouterr().out.splitlines()
    assert re.match(r".*checkpoint\.pth is (damaged|missing|not a whole state of a run)", fault)
    assert fault.endswith(f" This run goes on from the one before it, {one_before(path)}, which takes its place.")
    assert resumed == f"resumed after epoch 1 from {path}"
    train(run, path, 3)
    check_alike(path, whole)
    path.write_bytes(flipped(path.read_bytes(), 1000))
    assert new_run().resume(path, SETTINGS, ONE)
    assert f"resumed after epoch 2 from {path}" in capsys.readouterr().out


def test_where_both_are_damaged_the_sentence_names_both(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(flipped(written.read_bytes(), 1000))
    one_before(path).write_bytes(written.read_bytes()[:-1])
    with pytest.raises(ConfigurationError) as caught:
        new_run().resume(path, SETTINGS, ONE)
    damaged = "is damaged: its bytes are not those that were written."
    assert str(caught.value) == (
        f"{path} {damaged} Nor can the one before it be used: {one_before(path)} {damaged} "
        "To start anew, remove both or name another --checkpoint-dir."
    )


def test_one_without_a_digest_is_resumed_with_a_word(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_whole(torch.load(written, weights_only=True), tmp_path / "checkpoint.pth")
    assert new_run().resume(tmp_path / "checkpoint.pth", SETTINGS, ONE)
    assert "checkpoint.pth is of an earlier version, which wrote no digest" in capsys.readouterr().out


def test_a_full_disk_keeps_both_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    run = new_run()
    train(run, path, 2)
    kept = {one: one.read_bytes() for one in (path, one_before(path))}
    train_an_epoch(run)
    with full_after(1000), pytest.raises(OSError, match="too large") as caught:
        run.save(path, SETTINGS, ONE)
    assert caught.value.filename == str(path)
    assert {one: one.read_bytes() for one in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
def test_weights_damaged_before_the_test_are_written_again(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, weights = new_run(), tmp_path / "weights.pth"
    train_an_epoch(run)
    assert run.best_state
    save_weights(run.best_state, weights)
    data = weights.read_bytes()
    assert best_weights(run, weights) == data
    assert capsys.readouterr().out == ""
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(DAMAGES[damage](data))
    assert best_weights(run, weights) == data
    assert weights.read_bytes() == data
    assert "weights.pth has been damaged or removed since it was written" in capsys.readouterr().out
