from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from pneumonia.network.calibration import Calibration
from pneumonia.training import plots
from pneumonia.training.metrics import summarize
from tests.builders.disk import full_after

Array = npt.NDArray[np.uint8]
PROBABILITIES = torch.tensor([0.1, 0.7, 0.2, 0.3, 0.6, 0.9, 0.85])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1])
CALIBRATION = Calibration(uncertain_low=0.35, uncertain_high=0.65)
GIVEN = (PROBABILITIES, LABELS)
PIXELS = torch.arange(7, dtype=torch.uint8).mul(30).view(7, 1, 1, 1).expand(7, 1, 32, 32)
NAMES = [f"person{index}_virus_1.jpeg" for index in range(7)]
EPOCH = {"train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.9, "val_auroc": 0.95}
HISTORY = [{"epoch": 1, **EPOCH, "best": True}, {"epoch": 2, **EPOCH, "best": False}]
CONFUSION = summarize(*GIVEN, NAMES)["confusion"]


def draw_sheet(count: int, wrong: int, path: Path) -> None:
    """Draw the mistakes of `count` images of which the first `wrong` are answered wrongly, black and white in turn."""
    labels = torch.arange(count) % 2
    probabilities = torch.where(torch.arange(count) < wrong, 1.0 - labels, labels)
    pixels = (255 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)
    plots.draw_mistakes(probabilities, labels, pixels, [f"scan{n}.png" for n in range(count)], path)


def pixels_of(path: Path) -> Array:
    """Return a picture's pixels, uint8, shape (height, width, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def shows(path: Path, color: Sequence[float]) -> bool:
    return bool((pixels_of(path) == color).all(2).any())


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda path: plots.draw_learning_curves(HISTORY, path), id="learning curves"),
        pytest.param(lambda path: plots.draw_learning_curves(HISTORY[:1], path), id="learning curves of one epoch"),
        pytest.param(lambda path: plots.draw_roc(*GIVEN, path), id="ROC"),
        pytest.param(lambda path: plots.draw_confusion(CONFUSION, path), id="confusion"),
        pytest.param(lambda path: plots.draw_reliability(*GIVEN, path), id="reliability"),
        pytest.param(lambda path: plots.draw_coverage(*GIVEN, CALIBRATION, path), id="coverage"),
        pytest.param(lambda path: plots.draw_mistakes(*GIVEN, PIXELS, NAMES, path), id="mistakes"),
    ],
)
def test_picture_is_a_png_of_a_pages_width(draw: Callable[[Path], None], tmp_path: Path) -> None:
    draw(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        image.load()
        assert image.format == "PNG"
        assert 600 < image.width < 2000
        assert 300 < image.height < 2000
        assert len(image.convert("RGB").getcolors(image.width * image.height) or []) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(plots.draw_roc, id="ROC"),
        pytest.param(
            lambda probabilities, labels, path: plots.draw_coverage(probabilities, labels, CALIBRATION, path),
            id="coverage",
        ),
        pytest.param(plots.draw_reliability, id="reliability"),
    ],
)
def test_pictures_show_the_numbers(draw: Callable[..., None], tmp_path: Path) -> None:
    """Other probabilities of the same images give another picture."""
    draw(*GIVEN, tmp_path / "a.png")
    draw(*GIVEN, tmp_path / "again.png")
    draw(1 - PROBABILITIES, LABELS, tmp_path / "b.png")
    first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in ("a", "again", "b"))
    assert first == again != other


def test_coverage_marks_the_band_of_doubt_where_there_is_one(tmp_path: Path) -> None:
    for name, calibration in (("with", CALIBRATION), ("without", Calibration())):
        plots.draw_coverage(PROBABILITIES, LABELS, calibration, tmp_path / name)
    orange = tuple(bytes.fromhex(plots.ORANGE[1:]))
    assert shows(tmp_path / "with", orange)
    assert not shows(tmp_path / "without", orange)


def test_confusion_is_as_dark_as_the_share_is_large(tmp_path: Path) -> None:
    half = {"NORMAL": {"NORMAL": 5, "PNEUMONIA": 5}, "PNEUMONIA": {"NORMAL": 500, "PNEUMONIA": 500}}
    none = {"NORMAL": {"NORMAL": 0, "PNEUMONIA": 9}, "PNEUMONIA": {"NORMAL": 9, "PNEUMONIA": 0}}
    plots.draw_confusion(half, tmp_path / "half.png")
    plots.draw_confusion(none, tmp_path / "none.png")
    lightest, middle, darkest = (colormaps["Blues"](share, bytes=True)[:3] for share in (0.0, 0.5, 1.0))
    assert [shows(tmp_path / "half.png", color) for color in (lightest, middle, darkest)] == [False, True, False]
    assert [shows(tmp_path / "none.png", color) for color in (lightest, middle, darkest)] == [True, False, True]


# The sheet of mistakes


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2), (16, 4), (40, 4)])
def test_sheet_grows_by_four_mistakes_a_row_up_to_sixteen(count: int, rows: int, tmp_path: Path) -> None:
    draw_sheet(40, count, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert round((image.height / plots.DOTS_PER_INCH - 0.6) / 2.8) == rows


def test_sheet_shows_the_wrong_images_and_no_others(tmp_path: Path) -> None:
    plots.draw_mistakes(*GIVEN, PIXELS, NAMES, tmp_path / "sheet.png")
    sheet = pixels_of(tmp_path / "sheet.png")
    shown = [index for index in range(1, 7) if (sheet == 30 * index).all(2).mean() > 0.05]  # letters are less
    assert shown == [1, 3]


def test_sheet_without_mistakes_says_so(tmp_path: Path) -> None:
    draw_sheet(40, 0, tmp_path / "none.png")
    draw_sheet(41, 0, tmp_path / "another.png")
    with Image.open(tmp_path / "none.png") as image:
        assert image.height < 200
        assert min(image.convert("L").tobytes()) < 50  # there is text
    assert (tmp_path / "none.png").read_bytes() != (tmp_path / "another.png").read_bytes()


@pytest.mark.parametrize("name", ["日本語.png", "two $}$ dollars.png", "broken\udcff.png", "long" * 60])
def test_any_files_name_is_drawn(name: str, tmp_path: Path) -> None:
    plots.draw_mistakes(*GIVEN, PIXELS, [name] * 7, tmp_path / "sheet.png")
    plots.draw_mistakes(*GIVEN, PIXELS, ["another.png"] * 7, tmp_path / "other.png")
    sheet, other = pixels_of(tmp_path / "sheet.png"), pixels_of(tmp_path / "other.png")
    assert sheet.shape == other.shape
    assert (sheet != other).any()


def test_images_with_colours_are_shown_in_them(tmp_path: Path) -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(7, 3, 32, 32)
    plots.draw_mistakes(*GIVEN, red, NAMES, tmp_path / "sheet.png")
    assert shows(tmp_path / "sheet.png", (255, 0, 0))


def test_a_full_disk_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "roc.png"
    path.write_bytes(b"old")
    with full_after(1000), pytest.raises(OSError, match="File too large"):
        plots.draw_roc(*GIVEN, path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("roc.png", b"old")]
