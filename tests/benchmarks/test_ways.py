"""Ways to train, compared on a small scale: which images a run sees, and what its table says."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pneumonia.errors import DataError
from pneumonia.training.channels import scan_folder
from pneumonia.training.hyperparameters import Hyperparameters
from pneumonia.training.processes import Processes
from pneumonia.training.run import Run, training_loss
from pneumonia.training.synthetic import draw_dataset, draw_radiograph
from tests.builders.benchmarks import benchmark

THORAX, WAYS = benchmark("thorax"), benchmark("ways")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of twenty patients, five of them of the other collection."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(20):
        label = "PNEUMONIA" if number < 10 else "NORMAL"
        name = f"person{number}_virus_1" if number < 10 else f"{'NORMAL2-' * (number >= 15)}IM-{number:04}-0001"
        (folder / label).mkdir(exist_ok=True)
        draw_radiograph(Random(number), label, 64).save(folder / label / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def adults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adults")
    draw_dataset(folder, {"adults": 2}, size=64)
    return folder / "adults"


def test_a_run_trains_and_validates_on_nothing_of_the_other_collection(folder: Path, adults: Path) -> None:
    data = WAYS["Data"].read(folder, adults)
    names = [path.name for path in scan_folder(folder).paths]
    for number in range(5):
        fold = data.fold(number)
        train, validation, test = (
            {names[index] for index in part} for part in (fold.train, fold.validation, fold.test)
        )
        assert not train & validation
        assert not (train | validation) & test
        assert not [name for name in train | validation if name.startswith("NORMAL2-")]
        assert {name for name in test if name.startswith("person")}
        assert {name for name in test if not name.startswith("person")} == {
            n for n in names if n.startswith("NORMAL2-")
        }


@pytest.mark.parametrize(("held_out", "sign"), [("brightest", 1), ("darkest", -1)])
def test_a_fifth_of_the_images_can_be_held_out_by_its_gray(
    folder: Path, adults: Path, held_out: str, sign: int
) -> None:
    data = WAYS["Data"].read(folder, adults, held_out)
    grays = data.images.pixels.float().mean((1, 2, 3)) * sign
    held_out_images = sorted(data.elsewhere)
    assert len(held_out_images) == 4
    for number in range(5):
        fold = data.fold(number)
        seen = torch.cat([fold.train, fold.validation])
        assert grays[held_out_images].min() >= grays[seen].max()
        assert data.elsewhere <= set(fold.test.tolist())
        labels = data.images.labels[fold.test].tolist()
        assert labels == sorted(labels, reverse=True)


def test_crops_show_a_part_of_the_image() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(224, dtype=torch.uint8).expand(50, 1, 224, 224)  # its value is the place
    shown = WAYS["cropped"](ramp)[:, 0, 64]
    width = shown.amax(1) - shown.amin(1)
    assert shown.shape == (50, 128)
    assert (shown >= 0).all()
    assert (shown <= 223).all()
    assert width.min() >= 0.95 * 223 * (0.1 * 3 / 4) ** 0.5
    assert 100 < width.mean() < 190


def test_equalised_values_are_the_mean_ranks_of_their_pixels() -> None:
    film = draw_radiograph(Random(0), "PNEUMONIA", 300).convert("L").resize((224, 224))
    pixels = torch.from_numpy(np.array(film))
    inner = pixels[22:202, 22:202].flatten().sort().values
    ranks = {value: (inner == value).nonzero().double().mean().item() for value in torch.unique(inner).tolist()}
    lowest, highest = ranks[int(inner[0])], ranks[int(inner[-1])]
    changed = WAYS["equalized"](pixels[None, None].float())[0, 0]
    for value, rank in ranks.items():
        assert changed[pixels == value][0].item() == pytest.approx((rank - lowest) / (highest - lowest) * 255, abs=0.51)


def test_quantiles_become_black_and_white() -> None:
    pixels = torch.arange(224.0).expand(2, 3, 224, 224).clone()
    pixels[1] = pixels[1] / 4 + 60
    changed = WAYS["between_quantiles"](pixels)
    assert torch.allclose(changed[0], changed[1], atol=0.01)
    assert changed.unique().min() == 0
    assert changed.unique().max() == 255
    assert (changed == 0).float().mean().item() == pytest.approx(0.013, abs=0.001)
    assert torch.equal(WAYS["between_quantiles"](torch.full((1, 1, 9, 9), 7.0)), torch.full((1, 1, 9, 9), 7.0))


def test_an_image_of_one_value_stays_as_it_is() -> None:
    flat = torch.full((1, 1, 224, 224), 77.0)
    assert torch.equal(WAYS["equalized"](flat), flat)


def test_what_is_kept_around_the_thorax_has_a_margin_and_is_as_large_as_before() -> None:
    film = draw_radiograph(Random(0), "NORMAL", 300).convert("L").resize((224, 224))
    pixels = torch.from_numpy(np.array(film, np.float32))[None, None]
    across, down, wide, high = THORAX["place_of_thorax"](film)
    around = WAYS["around_the_thorax"](torch.cat([pixels, pixels]))
    assert around.shape == (2, 1, 224, 224)
    assert torch.equal(around[0], around[1])
    left, top = (round(224 * max(0, middle - 1.15 * half)) for middle, half in ((across, wide), (down, high)))
    right, bottom = (round(224 * min(1, middle + 1.15 * half)) for middle, half in ((across, wide), (down, high)))
    expected = functional.interpolate(pixels[..., top:bottom, left:right], (224, 224), mode="bilinear")
    assert (around[0] - expected[0]).abs().mean() < 3  # of 255; the box does not end between pixels here


def test_an_image_can_get_the_grays_of_the_one_before() -> None:
    torch.manual_seed(0)
    grays = [torch.randperm(256)[:64].float(), torch.randperm(100)[:64].float() + 100, torch.full((64,), 9.0)]
    images = torch.stack(grays).view(3, 1, 8, 8)
    changed = WAYS["with_grays_of_another"](images)
    assert changed.shape == images.shape
    first, second, third = (one.flatten() for one in changed)
    assert torch.equal(first, grays[2])
    assert torch.equal(second.sort().values, grays[0].sort().values)
    assert torch.equal(second.argsort(), grays[1].argsort())
    assert torch.equal(third, grays[1].sort().values[32].expand(64))  # one value has the middle rank


def test_styles_are_mixed_at_steps_only() -> None:
    torch.manual_seed(0)
    layer = nn.Identity()
    layer.register_forward_hook(WAYS["mixing_styles"](1.0))
    features = torch.randn(40, 3, 9, 9) * torch.rand(40, 3, 1, 1) + torch.rand(40, 3, 1, 1)
    with torch.no_grad():
        assert layer(features) is features
    mixed = layer(features)
    means, spreads = mixed.mean((2, 3)), mixed.std((2, 3))
    lowest, highest = features.mean((2, 3)).amin(0), features.mean((2, 3)).amax(0)
    assert ((lowest - 1e-4 <= means) & (means <= highest + 1e-4)).all()
    assert not torch.allclose(means, features.mean((2, 3)), atol=0.01)
    without_style = (mixed - means[..., None, None]) / spreads[..., None, None]
    before = (features - features.mean((2, 3), keepdim=True)) / features.std((2, 3), keepdim=True)
    assert torch.allclose(without_style, before, atol=1e-3)


def test_climbing_goes_a_distance_up_the_loss() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    run = Run.start(network, (), Hyperparameters(), 32, Processes(1, 0, torch.device("cpu")))
    inputs, labels = torch.randn(32, 3, 2, 2), torch.arange(32) % 2
    before = [weight.detach().clone() for weight in network.parameters()]
    low = training_loss(network(inputs), labels)
    moved = WAYS["climb"](run, inputs, labels, 0.05)
    assert training_loss(network(inputs), labels) > low
    assert torch.cat([move.flatten() for _, move in moved]).norm().item() == pytest.approx(0.05, rel=1e-3)
    for weight, move in moved:
        weight.data -= move
    for weight, old in zip(network.parameters(), before, strict=True):
        assert torch.allclose(weight, old, atol=1e-6)


def test_teachers_give_half_of_a_label() -> None:
    torch.manual_seed(0)
    sure, unsure = nn.Linear(12, 2), nn.Linear(12, 2)
    for layer, weight in ((sure, 1), (unsure, 0)):
        nn.init.constant_(layer.weight, weight)
        nn.init.zeros_(layer.bias)
    sure.bias.data[1] = 100
    teachers = [nn.Sequential(nn.Flatten(), layer) for layer in (sure, unsure)]
    inputs, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 1, 0])
    same, targets = WAYS["taught_by"](teachers)(inputs, labels)
    assert same is inputs
    assert not targets.requires_grad
    expected = torch.tensor([[0.625, 0.375], [0.125, 0.875], [0.125, 0.875], [0.625, 0.375]])
    assert torch.allclose(targets, expected, atol=1e-3)


def test_a_test_with_fewer_films_than_are_photographed_is_refused(folder: Path, adults: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        WAYS["main"]([str(folder), str(adults), "--weights", "none", "--output", str(tmp_path)])
    assert str(refused.value) == (
        "The test of run 0 has 5 NORMAL and 2 PNEUMONIA images, and 60 of each are photographed: name a larger "
        "FOLDER, or another --hold-out."
    )


def test_a_folder_without_the_other_collection_is_refused(adults: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        WAYS["main"]([str(adults), str(adults), "--weights", "none", "--output", str(tmp_path)])
    assert str(refused.value) == (
        f"{adults} has no file called NORMAL2-…, and these are held out by default: pass --hold-out brightest or "
        "--hold-out darkest."
    )


@pytest.mark.parametrize(("option", "value"), [("--epochs", "0"), ("--runs", "6"), ("--ways", "none")])
def test_arguments_that_nothing_can_be_made_with_are_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        WAYS["parse_arguments"](["films", "adults", option, value])
    assert option in capsys.readouterr().err.splitlines()[-1]


def test_the_help_names_all_ways(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        WAYS["parse_arguments"](["--help"])
    told = capsys.readouterr().out
    assert all(f'\n  "{name}"\n' in told for name in WAYS["WAYS"])


def test_runs_that_are_there_are_not_done_again_and_those_of_other_weights_are_refused(
    folder: Path, adults: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "start.pth"
    weights.write_bytes(b"some weights")
    arguments = [str(folder), str(adults), "--weights", str(weights), "--output", str(tmp_path), "--runs", "1"]
    arguments += ["--ways", "recipe"]
    settings = WAYS["settings_of"](WAYS["parse_arguments"](arguments))
    figures = dict.fromkeys(WAYS["FIGURES"], 0.5)
    report = json.dumps({"settings": settings, "results": {"recipe": [figures]}})
    (tmp_path / "ways.json").write_text(report)
    assert WAYS["main"](arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| recipe | 1 |" + " 0.5000 |" * len(figures)
    weights.write_bytes(b"other weights")
    with pytest.raises(SystemExit, match="name another --output"):
        WAYS["main"](arguments)
    assert (tmp_path / "ways.json").read_text() == report


@pytest.mark.slow
def test_ways_are_trained_and_judged(folder: Path, adults: Path) -> None:
    ways = ["cutmix", "smoother labels", "dropout", "without the border", "shown otherwise"]
    ways += [
        "around the thorax",
        "sharpness-aware",
        "grays of another",
        "styles mixed",
        "taught by three",
        "refined in three runs",
        "best epoch",
        "equalised half-way when run",
        "recipe",
    ]
    data = WAYS["Data"].read(folder, adults)  # fewer films than are photographed: those of both classes overlap
    args = WAYS["parse_arguments"]([str(folder), str(adults), "--weights", "none", "--epochs", "1"])
    results = {way: WAYS["result"](WAYS["WAYS"][way], 0, data, args) for way in ways}
    assert all(one.keys() == WAYS["FIGURES"].keys() for one in results.values())
    assert all(0 <= one["auroc"] <= 1 for one in results.values())
    assert results["best epoch"] == results["recipe"]  # of one epoch, which validation does not disturb
    assert len({str(one) for one in results.values()}) == len(ways) - 1
