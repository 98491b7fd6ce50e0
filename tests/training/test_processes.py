import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pneumonia.network.weights_file import load_weights
from pneumonia.training import metrics
from pneumonia.training.batches import Split, all_logits, load_splits, shuffled_batches
from pneumonia.training.channels import Channel, scan_channels
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.images import Images
from pneumonia.training.pretrained import build_network
from pneumonia.training.processes import Processes, joined
from pneumonia.training.run import Evaluation, Run
from pneumonia.training.synthetic import draw_dataset
from tests.builders.checkout import PROJECT
from train_model import train_one_epoch

ONE, CPU = Processes(1, 0, torch.device("cpu")), torch.device("cpu")
ITEMS = list("abcdefg")


class Constant(nn.Module):
    """Answers every image alike, so that only the labels of a batch decide what it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([2.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        """Return the same two logits for each image."""
        return self.logits.expand(len(images), 2)


def train(network: nn.Module, split: Split, batch_size: int, processes: Processes) -> tuple[Run, list[float]]:
    """Train for three epochs, and return what moved and the losses."""
    chosen = Hyperparameters(epochs=3, batch_size=batch_size, learning_rate=0.1, weight_decay=0.0)
    run = Run.start(network, (), chosen, split.count, processes)
    losses = []
    for _ in range(chosen.epochs):
        batches = shuffled_batches(split, batch_size, processes)
        loss = train_one_epoch(run, batches, 64)
        losses.append(sum(processes.gather_objects(loss)) / processes.count)
        processes.average([*run.model.buffers(), *run.averaged.buffers()])
    return run, losses


def learn_labels(processes: Processes) -> dict[str, Any]:
    """Train on labels alone, all of them in every batch, and return what was learned."""
    labels = [0, 1, 1, 0, 1, 1, 1, 0]
    own = torch.tensor(processes.share(labels))
    images = Images(torch.zeros(len(own), 1, 64, 64, dtype=torch.uint8), own, [""] * len(own))
    run, losses = train(Constant(), Split(Channel("train", Path(), [Path()] * 8, labels), images), 8, processes)
    return {"losses": losses, "logits": run.model.state_dict()["logits"], "averaged": run.averaged.state_dict()}


def load(folder: Path, processes: Processes) -> Split:
    return load_splits(scan_channels({"val": folder}), 1, processes)["val"]


def tell(weights: Path, folder: Path, result: Path) -> None:
    """Do in each process what the processes do together; the first one writes down what they told it."""
    with joined() as processes:
        told = {"count": processes.count, "is_first": processes.gather_objects(processes.is_first)}
        share = processes.share(ITEMS)
        told["shares"], told["items"] = processes.gather_objects(share), processes.gather_list(share)
        told["rows"] = processes.gather(torch.tensor(processes.share(range(14))).view(-1, 1))

        means = {"mean": torch.tensor([1.0, 3.0]) * (1 + processes.rank), "count": torch.tensor(5 + processes.rank)}
        processes.average(means.values())
        told["means"] = processes.gather_objects(means)
        kernel = torch.full((2, 3, 4, 5), float(processes.rank)).to(memory_format=torch.channels_last)
        copies = {"kernel": kernel, "count": torch.tensor(5 + processes.rank)}
        processes.copy_from_first(copies.values())
        told["copies"] = processes.gather_objects(copies)

        split = load(folder, processes)
        told["labels"] = split.labels
        told["logits"] = all_logits(load_weights(weights), split, 2, processes)
        told["learned"] = learn_labels(processes)

        torch.manual_seed(processes.rank)
        run, _ = train(build_network("none")[0], split, 2, processes)
        told["trained"] = processes.gather_objects([run.model.state_dict(), run.averaged.state_dict()])
        told["steps"] = processes.gather_objects(run.schedule.last_epoch)
        if processes.is_first:
            torch.save(told, result)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel of seven images: four for one process, three for the other."""
    root = tmp_path_factory.mktemp("images")
    draw_dataset(root, {"val": 4}, size=64)
    min((root / "val" / "PNEUMONIA").iterdir()).unlink()
    return root / "val"


@pytest.fixture(scope="module")
def told(folder: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes, started by torchrun, told the first of them."""
    result = tmp_path_factory.mktemp("two") / "told"
    torchrun: list[str | Path] = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    subprocess.run(
        [*torchrun, "-m", "tests.training.test_processes", weights, folder, result], env=environment, check=True
    )
    content: dict[str, Any] = torch.load(result, weights_only=True)
    return content


# One process


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined() as processes:
        assert (processes.count, processes.rank, processes.is_first) == (1, 0, True)
        assert not torch.distributed.is_initialized()


def test_one_process_has_everything_and_agrees_with_itself() -> None:
    alone, network, tensor = ONE, nn.Linear(2, 1), torch.tensor([1.0, 2.0])
    assert alone.share(ITEMS) == ITEMS
    assert alone.gather_list(ITEMS) == ITEMS
    assert alone.gather_objects("own") == ["own"]
    assert torch.equal(alone.gather(torch.arange(6).view(3, 2)), torch.arange(6).view(3, 2))
    alone.average([tensor])
    alone.copy_from_first([tensor])
    assert tensor.tolist() == [1, 2]
    assert alone.parallel(network) is network


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_item_is_in_one_share_and_the_shares_are_even(count: int) -> None:
    shares = [Processes(count, rank, CPU).share(ITEMS) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == ITEMS
    assert {len(share) for share in shares} <= {7 // count, 7 // count + 1}


# Two processes


@pytest.mark.processes
def test_torchrun_makes_two_of_which_one_is_the_first(told: dict[str, Any]) -> None:
    assert told["count"] == 2
    assert told["is_first"] == [True, False]


@pytest.mark.processes
def test_uneven_shares_come_together_in_the_order_of_all_items(told: dict[str, Any]) -> None:
    assert told["shares"] == [["a", "c", "e", "g"], ["b", "d", "f"]]
    assert told["items"] == ITEMS
    assert told["rows"].flatten().tolist() == list(range(14))


@pytest.mark.processes
def test_means_are_taken_of_floating_point_tensors_alone(told: dict[str, Any]) -> None:
    assert [own["mean"].tolist() for own in told["means"]] == [[1.5, 4.5]] * 2
    assert [int(own["count"]) for own in told["means"]] == [5, 6]


@pytest.mark.processes
def test_the_first_ones_tensors_are_copied_whatever_their_type_and_layout(told: dict[str, Any]) -> None:
    for own in told["copies"]:
        assert torch.equal(own["kernel"], torch.zeros(2, 3, 4, 5))
        assert int(own["count"]) == 5


@pytest.mark.processes
def test_two_processes_learn_from_labels_what_one_does(told: dict[str, Any]) -> None:
    learned, alone = told["learned"], learn_labels(ONE)
    assert learned["losses"] == pytest.approx(alone["losses"], abs=1e-6)
    assert len(set(alone["losses"])) == 3
    assert torch.allclose(learned["logits"], alone["logits"], atol=1e-5)
    assert torch.allclose(learned["averaged"]["logits"], alone["averaged"]["logits"], atol=1e-5)


@pytest.mark.processes
def test_two_processes_evaluate_a_network_as_one_does(told: dict[str, Any], folder: Path, weights: Path) -> None:
    split = load(folder, ONE)
    logits = all_logits(load_weights(weights), split, 3, ONE)
    assert torch.equal(told["labels"], split.labels)
    assert torch.allclose(told["logits"], logits, atol=1e-5)
    one, two = Evaluation.of(logits, split.labels), Evaluation.of(told["logits"], split.labels)
    assert (two.correct, two.count) == (one.correct, one.count)
    assert two.loss == pytest.approx(one.loss, abs=1e-6)
    auroc = [metrics.auroc(scores[:, 1] - scores[:, 0], split.labels) for scores in (logits, told["logits"])]
    assert auroc[1] == pytest.approx(auroc[0], abs=1e-6)


@pytest.mark.processes
def test_processes_that_train_together_hold_the_same_network(told: dict[str, Any]) -> None:
    assert told["steps"] == [12, 12]
    (model, averaged), others = told["trained"]
    assert model.keys() == averaged.keys()
    for own, other in zip((model, averaged), others, strict=True):
        for name, tensor in own.items():
            assert torch.equal(tensor, other[name]), name


if __name__ == "__main__":
    tell(*map(Path, sys.argv[1:]))
