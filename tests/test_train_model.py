import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import train_model
from pneumonia.data import SPLITS, Images, load_channel, scan_channels
from pneumonia.errors import ConfigurationError
from pneumonia.image import PREPROCESSING, SIZE, normalize
from pneumonia.model import ResNet18, load_weights, save_weights
from tests.disk import full_after
from tests.synthetic import draw_dataset
from train_model import Evaluation, Run, augment, build_network, evaluate, is_better, train_one_epoch

EPOCH_LINE = re.compile(
    r"^epoch=(\d+) train_loss=(\d+\.\d{4}) val_accuracy=([01]\.\d{4}) val_loss=(\d+\.\d{4}) best=(yes|no)$",
    re.MULTILINE,
)
TEST_LINE = re.compile(r"^test_accuracy=([01]\.\d{4}) test_loss=(\d+\.\d{4})$", re.MULTILINE)
EPOCHS = 3


@dataclass(frozen=True)
class Training:
    """A finished run of the command, and where it left what."""

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


def arguments(dataset: Path, output: Path, *options: str) -> list[str]:
    """Return the command's arguments; later options replace these."""
    channels = [argument for split in SPLITS for argument in (f"--{split}", str(dataset / split))]
    folders = [
        *("--model-dir", str(output / "model")),
        *("--output-data-dir", str(output / "reports")),
        *("--checkpoint-dir", str(output / "checkpoints")),
    ]
    settings = ["--weights", "none", "--epochs", str(EPOCHS), "--batch-size", "8", "--learning-rate", "1e-3"]
    return [*channels, *folders, *settings, *options]


def start(argv: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, train_model.__file__, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # the order of additions, and so the last digit, depends on it
    )


def run(dataset: Path, output: Path, *options: str) -> Training:
    process = start(arguments(dataset, output, *options))
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    return Training(out, output / "model", output / "reports", output / "checkpoints")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks and images this small gain nothing from more, and lose much where something else runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    draw_dataset(root, {"train": 6, "val": 5, "test": 4}, size=64)
    return root


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    return run(dataset, tmp_path_factory.mktemp("trained"))


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


# Augmentation


def radiographs(count: int) -> Tensor:
    """Return `count` times the same image: a bright spot on its left, on gray."""
    images = torch.full((count, 3, SIZE, SIZE), 100, dtype=torch.uint8)
    images[:, :, 90:130, 40:80] = 220
    return images


def test_augmented_images_have_the_same_shape_and_range() -> None:
    images = torch.randint(0, 256, (16, 3, SIZE, SIZE), dtype=torch.uint8)
    before = images.clone()
    varied = augment(images)
    assert varied.shape == images.shape
    assert varied.dtype == torch.float32
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert varied.max() > 200  # a range of [0, 1] would pass the bounds above
    assert torch.equal(images, before)


def test_each_image_of_a_batch_is_varied_in_its_own_way() -> None:
    varied = augment(radiographs(4))
    assert len({tuple(image.flatten().tolist()) for image in varied[:, 0, ::16, ::16]}) == 4


def test_the_channels_of_a_gray_image_stay_alike() -> None:
    varied = augment(radiographs(4))
    assert torch.equal(varied[:, 0], varied[:, 1])
    assert torch.equal(varied[:, 0], varied[:, 2])


def test_the_seed_decides_the_variation() -> None:
    torch.manual_seed(5)
    first, second = augment(radiographs(2)), augment(radiographs(2))
    torch.manual_seed(5)
    assert torch.equal(augment(radiographs(2)), first)
    assert not torch.equal(first, second)


def test_left_stays_left() -> None:
    varied = augment(radiographs(64))
    left, right = varied[..., : SIZE // 2].amax((1, 2, 3)), varied[..., SIZE // 2 :].amax((1, 2, 3))
    assert (left > right).all()


# One epoch


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


def one_epoch(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return train_one_epoch(Run(network, optimizer, schedule, scaler), batches, torch.float32)


def test_the_training_loss_is_the_mean_over_images_not_over_batches() -> None:
    batches = [(radiographs(3), torch.tensor([0, 0, 0])), (radiographs(1), torch.tensor([1]))]
    if_normal, if_pneumonia = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert one_epoch(Onlooker(), batches) == pytest.approx((3 * if_normal + if_pneumonia) / 4)


def test_training_shows_varied_images_in_the_scale_of_inference() -> None:
    network, images = Onlooker(), radiographs(8)
    one_epoch(network, [(images, torch.zeros(8, dtype=torch.int64))])
    shown, plain = network.shown[0], normalize(images)
    assert not any(torch.equal(one, other) for one, other in zip(shown, plain, strict=True))
    assert shown.mean() == pytest.approx(plain.mean().item(), abs=0.5)
    assert shown.std() == pytest.approx(plain.std().item(), abs=0.5)


# Evaluation


def random_images(count: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 2, [""] * count)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_every_image_counts_alike_however_uneven_the_last_batch(batch_size: int) -> None:
    torch.manual_seed(0)
    network, images = ResNet18(), random_images(5)
    result = evaluate(network, images, batch_size, torch.device("cpu"))
    with torch.inference_mode():
        logits = network.eval()(normalize(images.pixels))
    assert result.count == 5
    assert result.correct == int((logits.argmax(1) == images.labels).sum())
    assert result.loss == pytest.approx(float(functional.cross_entropy(logits, images.labels)), rel=1e-5)
    assert result.accuracy == result.correct / 5


def test_evaluating_changes_nothing_in_the_network() -> None:
    network = ResNet18().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate(network, random_images(4), 2, torch.device("cpu"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# The network's first weights


@pytest.fixture(scope="module")
def imagenet_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as torchvision's: the same network with 1,000 outputs."""
    path = tmp_path_factory.mktemp("imagenet") / "resnet18-f37072fd.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def test_a_partial_state_dict_fills_what_it_can_and_reports_the_rest(
    imagenet_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = torch.load(imagenet_like, weights_only=True)
    del given["layer4.1.conv2.weight"]
    given["head.bias"] = torch.zeros(3)
    torch.save(given, tmp_path / "partial.pth")
    own = build_network(str(tmp_path / "partial.pth")).state_dict()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"weights: 119 of 122 tensors taken from {tmp_path / 'partial.pth'}"
    assert lines[1].endswith("there: fc.bias, fc.weight, layer4.1.conv2.weight")
    assert lines[2].endswith("not used from there: fc.bias, fc.weight, head.bias")
    taken = own.keys() - {"fc.weight", "fc.bias", "layer4.1.conv2.weight"}
    assert all(torch.equal(own[name], given[name]) for name in taken)
    assert own["fc.weight"].shape == (2, 512)


def test_a_released_model_can_be_trained_further(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(ResNet18().state_dict(), tmp_path / "weights.pth")
    own = build_network(str(tmp_path / "weights.pth")).state_dict()
    assert capsys.readouterr().out.count("none\n") == 2  # nothing random, nothing unused
    released = load_weights(tmp_path / "weights.pth").state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in released.items())


def test_random_weights_follow_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    kernels = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        kernels.append(build_network("none").state_dict()["conv1.weight"])
    assert torch.equal(kernels[0], kernels[1])
    assert not torch.equal(kernels[0], kernels[2])
    assert "random values" in capsys.readouterr().out


def test_imagenet_weights_come_from_torch_hubs_cache_where_they_are(
    imagenet_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    shutil.copyfile(imagenet_like, cache / imagenet_like.name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    own = build_network("imagenet").state_dict()
    assert "120 of 122 tensors taken from imagenet" in capsys.readouterr().out
    assert torch.equal(own["conv1.weight"], torch.load(imagenet_like, weights_only=True)["conv1.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"text", r"is no state dict that can be read", id="text"),
        pytest.param(b"", r"is no state dict that can be read", id="empty"),
        pytest.param([torch.zeros(1)], r"is no plain state dict", id="list"),
        pytest.param({0: torch.zeros(1)}, r"is no plain state dict", id="names that are numbers"),
        pytest.param({"model": {"fc.bias": torch.zeros(2)}}, r"is no plain state dict", id="checkpoint"),
        pytest.param({"head.bias": torch.zeros(2)}, r"has no tensor that fits ResNet-18", id="another network"),
        pytest.param({}, r"has no tensor that fits ResNet-18", id="nothing"),
        pytest.param(ResNet18(), r"is no state dict that can be read", id="a model itself"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "given.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigurationError, match=rf"given\.pth {message}"):
        build_network(str(path))


# The whole command


def test_the_log_has_one_line_per_epoch_and_one_for_the_test(trained: Training) -> None:
    assert [int(line[0]) for line in EPOCH_LINE.findall(trained.output)] == [1, 2, 3]
    assert len(TEST_LINE.findall(trained.output)) == 1
    assert trained.output.count("=") == 3 + 5 * EPOCHS + 2  # the device's line, and no line of another form
    assert trained.output.endswith("\n")


def test_it_leaves_these_files_and_no_other(trained: Training) -> None:
    assert {path.name for path in trained.model.iterdir()} == {"pneumonia_classifier.pth", "training.json"}
    assert {path.name for path in trained.reports.iterdir()} == {"history.json"}
    assert {path.name for path in trained.checkpoints.iterdir()} == {"checkpoint.pth"}


def test_the_best_checkpoint_follows_the_rule(trained: Training) -> None:
    best: tuple[float, float] | None = None
    for epoch in trained.history():
        scores = (epoch["val_accuracy"], -epoch["val_loss"])
        assert epoch["best"] == (best is None or scores > best)
        best = scores if epoch["best"] else best
    metrics = json.loads((trained.model / "training.json").read_text())["metrics"]
    assert (metrics["val_accuracy"], -metrics["val_loss"]) == best


def test_the_log_tells_what_the_history_has(trained: Training) -> None:
    for line, epoch in zip(EPOCH_LINE.findall(trained.output), trained.history(), strict=True):
        numbers = [f"{epoch[name]:.4f}" for name in ("train_loss", "val_accuracy", "val_loss")]
        assert line == (str(epoch["epoch"]), *numbers, "yes" if epoch["best"] else "no")


def test_the_weights_file_is_the_tested_network(trained: Training, dataset: Path) -> None:
    network = load_weights(trained.model / "pneumonia_classifier.pth")
    metrics = json.loads((trained.model / "training.json").read_text())["metrics"]
    for split in ("val", "test"):
        channel = scan_channels({split: dataset / split})[split]
        images = load_channel(channel, 1, lambda items, _: items)
        result = evaluate(network, images, 3, torch.device("cpu"))
        # Validation was measured before the rounding to half precision, the test after it.
        assert result.loss == pytest.approx(metrics[f"{split}_loss"], rel=1e-2 if split == "val" else 1e-4)
        assert result.accuracy == pytest.approx(metrics[f"{split}_accuracy"], abs=0.11 if split == "val" else 0)


def test_the_report_tells_how_the_model_was_made(trained: Training) -> None:
    report = json.loads((trained.model / "training.json").read_text())
    assert report["classes"] == ["NORMAL", "PNEUMONIA"]
    assert report["preprocessing"] == PREPROCESSING
    assert report["dataset"]["images"] == {
        "train": {"NORMAL": 6, "PNEUMONIA": 6},
        "val": {"NORMAL": 5, "PNEUMONIA": 5},
        "test": {"NORMAL": 4, "PNEUMONIA": 4},
    }
    assert re.fullmatch(r"[0-9a-f]{64}", report["dataset"]["fingerprint"])
    assert report["settings"] == {
        "epochs": EPOCHS,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "weights": "none",
        "seed": 0,
        "dataset": report["dataset"]["fingerprint"],
        "torch": torch.__version__,
    }
    assert report["training_job"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", report["finished"])
    test_accuracy, test_loss = TEST_LINE.findall(trained.output)[0]
    assert f"{report['metrics']['test_accuracy']:.4f}" == test_accuracy
    assert f"{report['metrics']['test_loss']:.4f}" == test_loss


def test_ten_steps_in_all_can_be_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OneCycleLR cannot be made for ten steps with a warm-up of a tenth."""
    draw_dataset(tmp_path, {"train": 2, "val": 1, "test": 1}, size=64)
    assert train_model.main(arguments(tmp_path, tmp_path, "--epochs", "5", "--batch-size", "2")) == 0
    assert len(EPOCH_LINE.findall(capsys.readouterr().out)) == 5


def test_the_defaults_are_sagemakers_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SM_CHANNEL_TRAIN", "SM_CHANNEL_VAL", "SM_CHANNEL_TEST", "SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    args = train_model.parse_arguments([])
    assert [args.train, args.val, args.test] == [Path(f"/opt/ml/input/data/{split}") for split in SPLITS]
    assert [args.model_dir, args.output_data_dir] == [Path("/opt/ml/model"), Path("/opt/ml/output/data")]
    assert args.weights == "imagenet"


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
    args = train_model.parse_arguments(["--val", "/given"])
    found = [args.train, args.val, args.test, args.model_dir, args.output_data_dir]
    assert found == [Path(place) for place in ("/a", "/given", "/c", "/d", "/e")]


# Interruption


@pytest.fixture(scope="module")
def interrupted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that is killed after its second epoch's line, when the first epoch is surely saved."""
    output = tmp_path_factory.mktemp("interrupted")
    process = start(arguments(dataset, output))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch=2 "):
            break
    process.kill()
    process.communicate()
    assert process.returncode < 0
    return output


def test_a_killed_run_leaves_whole_weights(interrupted: Path) -> None:
    load_weights(interrupted / "model" / "pneumonia_classifier.pth")
    assert not (interrupted / "model" / "training.json").exists()


def test_a_killed_run_resumes_and_ends_as_an_uninterrupted_one(
    interrupted: Path, trained: Training, dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(interrupted / "checkpoints", tmp_path / "checkpoints")  # a new instance has nothing else
    resumed = run(dataset, tmp_path)
    done = re.search(r"^resumed after epoch (\d) from .*checkpoint\.pth$", resumed.output, re.MULTILINE)
    assert done
    assert done[1] in {"1", "2"}
    assert [int(line[0]) for line in EPOCH_LINE.findall(resumed.output)] == list(range(int(done[1]) + 1, EPOCHS + 1))
    assert resumed.history() == trained.history()
    weights, expected = resumed.weights(), trained.weights()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_another_seed_ends_elsewhere(trained: Training, dataset: Path, tmp_path: Path) -> None:
    """Else the test above could not fail."""
    assert train_model.main(arguments(dataset, tmp_path, "--seed", "1", "--epochs", "1")) == 0
    other = json.loads((tmp_path / "reports" / "history.json").read_text())
    assert other[0]["train_loss"] != pytest.approx(trained.history()[0]["train_loss"], rel=1e-3)


def test_resuming_a_finished_run_only_tests_it_again(
    trained: Training, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
    assert train_model.main(arguments(dataset, tmp_path)) == 0
    output = capsys.readouterr().out
    assert "resumed after epoch 3" in output
    assert not EPOCH_LINE.search(output)
    assert TEST_LINE.search(output)
    again = torch.load(tmp_path / "model" / "pneumonia_classifier.pth", weights_only=True)
    assert all(torch.equal(again[name], tensor) for name, tensor in trained.weights().items())


# Bad input


@pytest.fixture
def failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SageMaker's failure file."""
    monkeypatch.setenv("SM_OUTPUT_DIR", str(tmp_path))
    return tmp_path / "failure"


def sentence_of(argv: list[str], failure: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, check that it fails before any epoch and tells why, and return the sentence."""
    assert train_model.main(argv) == 1
    captured = capsys.readouterr()
    assert "epoch=" not in captured.out
    assert captured.err.count("\n") == 1
    assert failure.read_text() == captured.err.rstrip("\n")
    return captured.err


def first_image(folder: Path) -> Path:
    return min(folder.iterdir())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


BAD_DATA = [
    pytest.param(lambda root: shutil.rmtree(root / "val"), "Channel 'val' is missing", id="missing channel"),
    pytest.param(
        lambda root: shutil.rmtree(root / "train" / "NORMAL"), "Channel 'train' lacks NORMAL", id="missing class"
    ),
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
        "test/NORMAL/IM-0012-0001.jpeg (The image is broken",
        id="truncated image",
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
        (["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["--batch-size", "-4"], "--batch-size must be above 0, not -4"),
        (["--num-workers", "0"], "--num-workers must be above 0, not 0"),
        (["--learning-rate", "0"], "--learning-rate must be above 0, not 0.0"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0, not nan"),
        (["--weight-decay", "-1"], "--weight-decay must not be below 0, and is -1.0"),
        (["--weight-decay", "nan"], "--weight-decay must not be below 0, and is nan"),
        (["--seed", "-1"], "--seed must be from 0 to 18446744073709551615, not -1"),
        (["--seed", str(2**64)], "--seed must be from 0 to 18446744073709551615"),
        (["--rate", "1"], "unrecognized arguments: --rate 1. `python train_model.py --help` lists the arguments."),
        (["--weights", "nowhere.pth"], "--weights nowhere.pth: there is no such file"),
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
    assert "pass a file with --weights PATH, or --weights none" in sentence


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (
            ["--learning-rate", "1e-4"],
            "is of a run with another learning_rate: start with an empty checkpoint directory",
        ),
        (["--epochs", "4", "--seed", "3"], "is of a run with another epochs, seed"),
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


def test_a_run_on_other_images_is_not_resumed(
    trained: Training, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    first_image(tmp_path / "data" / "val" / "NORMAL").unlink()
    options = ["--checkpoint-dir", str(trained.checkpoints)]
    sentence = sentence_of(arguments(tmp_path / "data", tmp_path, *options), failure, capsys)
    assert "is of a run with another dataset" in sentence


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_broken_checkpoint_ends_in_one_sentence(
    content: bytes, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint.pth").write_bytes(content)
    assert "checkpoint.pth is no whole state of a run" in sentence_of(arguments(dataset, tmp_path), failure, capsys)


def test_another_file_in_the_checkpoints_place_ends_in_one_sentence(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    save_weights(ResNet18().state_dict(), tmp_path / "checkpoints" / "checkpoint.pth")
    assert "is no whole state of a run ('settings')" in sentence_of(arguments(dataset, tmp_path), failure, capsys)


def test_a_full_disk_ends_in_one_sentence_that_names_the_file(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_after(1_000_000):
        sentence = sentence_of(arguments(dataset, tmp_path), failure, capsys)
    assert f"{tmp_path}/model/pneumonia_classifier.pth cannot be read or written: File too large." in sentence
    assert not list((tmp_path / "model").iterdir())


def test_a_loss_that_is_no_number_ends_in_one_sentence_and_touches_no_file(
    trained: Training, dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.model, tmp_path / "model")
    sentence = sentence_of(arguments(dataset, tmp_path, "--learning-rate", "1e30"), failure, capsys)
    assert "The loss is no longer a number after epoch 1" in sentence
    assert "lower --learning-rate, now 1e+30" in sentence
    for path in trained.model.iterdir():
        assert (tmp_path / "model" / path.name).read_bytes() == path.read_bytes()


def test_a_loss_that_turns_to_no_number_keeps_the_best_checkpoint_before(
    dataset: Path, tmp_path: Path, failure: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One step an epoch: the first with a 25th of the rate, which float32 survives, the second with nearly all of it.
    assert train_model.main(arguments(dataset, tmp_path, "--learning-rate", "5", "--batch-size", "12")) == 1
    captured = capsys.readouterr()
    assert [line[0] for line in EPOCH_LINE.findall(captured.out)] == ["1"]
    assert "The loss is no longer a number after epoch 2" in captured.err
    assert failure.read_text() == captured.err.rstrip("\n")
    load_weights(tmp_path / "model" / "pneumonia_classifier.pth")
    state = torch.load(tmp_path / "checkpoints" / "checkpoint.pth", weights_only=True)
    assert [epoch["epoch"] for epoch in state["history"]] == [1]


def test_the_process_fails_with_status_1_and_no_traceback(dataset: Path, tmp_path: Path) -> None:
    process = start(arguments(dataset, tmp_path, "--val", str(tmp_path / "nowhere")))
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == (f"Channel 'val' is missing: {tmp_path}/nowhere is no folder. Pass --val or set SM_CHANNEL_VAL.\n")
