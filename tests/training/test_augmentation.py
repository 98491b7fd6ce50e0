import io
import math
from random import Random

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from pneumonia.training.augmentation import (
    _JPEG_TABLE,
    DRAWS,
    Draws,
    _add_noise,
    _compress,
    _cosines,
    _cover_border,
    _expose,
    _move,
    _sharpen,
    augment,
)
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.draws import Chosen


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


STEPS = (_move, _expose, _add_noise, _cover_border, _sharpen, _compress)
UNMOVED = (0.5, (1 - 0.8) / 0.35, 0.5, 0.5, 0.5)  # angle, zoom, aspect, x, y
UNEXPOSED = (0.5, 0.5, 0.5)  # gamma, contrast, brightness
UNCOVERED = (0.5, 0.5, 0.5, 0.0, 0.0, 0.5) * 2  # along, edge, lies across, width, height, gray: of two rectangles


def radiographs(count: int, size: int = 224, channels: int = 1) -> Tensor:
    """Return `count` times the same image: a bright spot on its left, on gray."""
    images = torch.full((count, channels, size, size), 100, dtype=torch.uint8)
    images[:, :, size * 2 // 5 : size * 3 // 5, size // 6 : size * 2 // 6] = 220
    return images


def radiograph(size: int = 64) -> Image.Image:
    return draw_radiograph(Random(3), "PNEUMONIA", size)


def tensor_of(image: Image.Image) -> Tensor:
    """Return an image's pixels in [0, 1], shape (1, 1, H, W)."""
    pixels: Tensor = functional.to_tensor(image).unsqueeze(0)
    return pixels


# The whole


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [64, 128, 224])
def test_augmented_images_have_the_size_asked_for_and_the_range_of_pixels(size: int, channels: int) -> None:
    images = torch.randint(0, 256, (8, channels, 224, 224), dtype=torch.uint8)
    before = images.clone()
    varied = augment(images, size)
    assert varied.shape == (8, channels, size, size)
    assert varied.dtype == torch.float32
    assert varied.min() >= 0
    assert varied.max() <= 255
    assert varied.max() > 150  # a range of [0, 1] would pass the bounds above
    assert torch.equal(images, before)


def test_each_image_of_a_batch_is_varied_in_its_own_way() -> None:
    varied = augment(radiographs(4), 64)
    assert len({tuple(image.flatten().tolist()) for image in varied}) == 4


def test_the_channels_of_a_gray_image_stay_alike() -> None:
    varied = augment(radiographs(4, channels=3), 128)
    assert torch.equal(varied[:, 0], varied[:, 1])
    assert torch.equal(varied[:, 0], varied[:, 2])


def test_a_gray_image_is_varied_alike_in_one_channel_and_in_three() -> None:
    pixels = functional.pil_to_tensor(radiograph(224)).expand(8, 1, 224, 224)
    torch.manual_seed(5)
    one = augment(pixels, 128)
    torch.manual_seed(5)
    three = augment(pixels.expand(8, 3, 224, 224), 128)
    # A mean's last digit may differ, and tip a value that lies between two steps of the compression.
    assert (one - three).abs().mean() < 0.01


def test_torchs_seed_decides_the_variation() -> None:
    torch.manual_seed(5)
    first, second = augment(radiographs(2), 64), augment(radiographs(2), 64)
    torch.manual_seed(5)
    assert torch.equal(augment(radiographs(2), 64), first)
    assert not torch.equal(first, second)


def test_left_stays_left() -> None:
    # Over 64 images, because a bright rectangle may cover any border of a single one.
    varied = augment(radiographs(64), 64).mean((0, 1))
    assert varied[24:40, 11:21].mean() > varied[24:40, 43:53].mean() + 20


def test_images_of_the_size_asked_for_are_not_resized() -> None:
    pixels = functional.pil_to_tensor(radiograph(64)).unsqueeze(0)
    torch.manual_seed(5)
    whole = augment(pixels, 64)
    torch.manual_seed(5)
    draws = Draws(1, torch.device("cpu"))
    draws.chance(1.0)
    steps = pixels / 255
    for step in STEPS:
        steps = step(steps, draws)
    assert torch.equal(whole, steps * 255)


def test_a_share_of_the_images_is_retaken_and_all_are_stored_otherwise() -> None:
    white = torch.full((400, 1, 64, 64), 255, dtype=torch.uint8)  # neither sharpening nor compression changes it
    is_white = (augment(white, 64, retaken=0.3) > 252).all((1, 2, 3))
    assert 0.6 < is_white.float().mean() < 0.8
    assert (augment(white, 64, retaken=0) > 252).all()
    pixels = functional.pil_to_tensor(radiograph(64)).expand(8, 1, 64, 64)
    assert ((augment(pixels, 64, retaken=0) - pixels).abs().amax((1, 2, 3)) > 1).all()


def test_every_random_number_that_is_drawn_is_used() -> None:
    draws, images = Chosen(*[0.5] * DRAWS), torch.zeros(1, 1, 64, 64)
    draws.chance(0.5)
    for step in STEPS:
        images = step(images, draws)
    assert not list(draws.left)


def test_random_numbers_fill_their_range() -> None:
    draws = Draws(10_000, torch.device("cpu"))
    numbers = draws.between(-2, 6)
    assert numbers.shape == (10_000, 1, 1, 1)
    assert numbers.min() == pytest.approx(-2, abs=0.01)
    assert numbers.max() == pytest.approx(6, abs=0.01)
    assert numbers.mean() == pytest.approx(2, abs=0.1)
    assert draws.chance(0.3).float().mean() == pytest.approx(0.3, abs=0.03)


# Position


def test_the_middle_of_all_ranges_moves_nothing() -> None:
    image = tensor_of(radiograph())
    assert torch.allclose(_move(image, Chosen(*UNMOVED)), image, atol=1e-4)


@pytest.mark.parametrize(("fraction", "degrees"), [(0, -10.03), (1, 10.03)])
def test_turns_about_the_middle(fraction: float, degrees: float) -> None:
    image = tensor_of(radiograph())
    turned = _move(image, Chosen(fraction, *UNMOVED[1:]))
    expected = functional.rotate(image, degrees, InterpolationMode.BILINEAR)
    assert torch.allclose(turned, expected, atol=2e-3)
    assert not torch.allclose(turned, image, atol=0.1)


@pytest.mark.parametrize(
    ("fractions", "row", "column"), [((1, 0.5), 100, 86), ((0, 0.5), 100, 114), ((0.5, 1), 86, 100)]
)
def test_shifts_by_7_percent_at_most(fractions: tuple[float, float], row: int, column: int) -> None:
    image = torch.zeros(1, 1, 200, 200)
    image[0, 0, 100, 100] = 1
    shifted = _move(image, Chosen(*UNMOVED[:3], *fractions))
    assert shifted[0, 0, row, column] == pytest.approx(1, abs=1e-3)
    assert shifted.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("zoom", "aspect", "height", "width"),
    [
        (0, 0.5, 1 / 0.8, 1 / 0.8),
        (1, 0.5, 1 / 1.15, 1 / 1.15),
        (UNMOVED[1], 0, 1 / 1.15, 1.15),
        (UNMOVED[1], 1, 1.15, 1 / 1.15),
    ],
)
def test_zooms_and_stretches(zoom: float, aspect: float, height: float, width: float) -> None:
    image = torch.zeros(1, 1, 200, 200)
    image[..., 50:150, 50:150] = 1
    moved = _move(image, Chosen(0.5, zoom, aspect, 0.5, 0.5))
    assert moved[0, 0, :, 100].sum() == pytest.approx(100 * height, abs=1)
    assert moved[0, 0, 100].sum() == pytest.approx(100 * width, abs=1)


def test_beyond_the_border_is_black() -> None:
    moved = _move(torch.ones(1, 1, 200, 200), Chosen(*UNMOVED[:3], 1, 0.5))
    assert torch.equal(moved[..., -13:], torch.zeros(1, 1, 200, 13))
    assert moved[..., :-15].min() == pytest.approx(1, abs=1e-3)


# Exposure


def test_the_middle_of_all_ranges_leaves_the_exposure() -> None:
    image = tensor_of(radiograph())
    assert torch.allclose(_expose(image, Chosen(*UNEXPOSED)), image, atol=1e-5)


@pytest.mark.parametrize(
    ("fractions", "dark", "bright"),
    [
        pytest.param((0, 0.5, 0.5), 0.25 ** math.exp(-0.5), 0.75 ** math.exp(-0.5), id="low gamma"),
        pytest.param((1, 0.5, 0.5), 0.25 ** math.exp(0.5), 0.75 ** math.exp(0.5), id="high gamma"),
        pytest.param((0.5, 0, 0.5), 0.5 - 0.25 * 0.7, 0.5 + 0.25 * 0.7, id="low contrast"),
        pytest.param((0.5, 1, 0.5), 0.5 - 0.25 * 1.3, 0.5 + 0.25 * 1.3, id="high contrast"),
        pytest.param((0.5, 0.5, 0), 0.25 - 0.12, 0.75 - 0.12, id="low brightness"),
        pytest.param((0.5, 0.5, 1), 0.25 + 0.12, 0.75 + 0.12, id="high brightness"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_changes_gamma_contrast_and_brightness(
    channels: int, fractions: tuple[float, ...], dark: float, bright: float
) -> None:
    image = torch.full((1, channels, 8, 8), 0.25)
    image[..., 4:] = 0.75
    exposed = _expose(image, Chosen(*fractions))
    assert torch.allclose(exposed[..., :4], torch.tensor(dark), atol=1e-5)
    assert torch.allclose(exposed[..., 4:], torch.tensor(bright), atol=1e-5)


@pytest.mark.parametrize("gamma", [0, 1])
@pytest.mark.parametrize("contrast", [0, 1])
@pytest.mark.parametrize("brightness", [0, 1])
def test_a_brighter_pixel_stays_at_least_as_bright(gamma: float, contrast: float, brightness: float) -> None:
    ramp = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    exposed = _expose(ramp, Chosen(gamma, contrast, brightness)).flatten()
    assert (exposed.diff() >= 0).all()
    assert exposed.min() >= 0
    assert exposed.max() <= 1
    assert exposed[-1] - exposed[0] > 0.5


# Sharpness


@pytest.mark.parametrize("fraction", [0, 0.25, 1])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_flat_image_has_no_detail_to_blur_or_sharpen_not_even_at_its_border(channels: int, fraction: float) -> None:
    image = torch.full((2, channels, 16, 16), 0.4)
    assert torch.allclose(_sharpen(image, Chosen(fraction)), image)


def test_a_point_is_blurred_to_a_gaussian_or_sharpened_by_as_much() -> None:
    image = torch.full((1, 1, 16, 16), 0.5)
    image[0, 0, 8, 8] = 0.6
    weights = [math.exp(-(distance**2) / 2) for distance in (-2, -1, 0, 1, 2)]
    row = [0.1 * weights[2] * weight / sum(weights) ** 2 for weight in weights]
    blurred = _sharpen(image, Chosen(0))[0, 0, 8, 6:11] - 0.5
    assert blurred.tolist() == pytest.approx(row, abs=1e-6)
    sharpened = _sharpen(image, Chosen(1))[0, 0, 8, 6:11] - 0.5
    assert sharpened.tolist() == pytest.approx([-row[0], -row[1], 0.2 - row[2], -row[3], -row[4]], abs=1e-6)
    assert torch.equal(_sharpen(image, Chosen(0.5)), image)


# Noise


@pytest.mark.parametrize(("fraction", "levels"), [(0, 0), (0.5, 4), (1, 8)])
def test_noise_has_the_deviation_drawn_and_no_colour(fraction: float, levels: float) -> None:
    image = torch.full((1, 3, 200, 200), 0.5)
    noise = _add_noise(image, Chosen(fraction)) - image
    assert noise.std().item() * 255 == pytest.approx(levels, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    assert torch.equal(noise[:, 0], noise[:, 1])
    assert torch.equal(noise[:, 0], noise[:, 2])


def test_noise_leaves_no_value_beyond_black_and_white() -> None:
    noisy = _add_noise(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 1, 50, 2), Chosen(1))
    assert noisy.min() == 0
    assert noisy.max() == 1


# Compression


def test_the_transform_is_orthonormal_and_its_rows_are_cosines() -> None:
    basis = _cosines(torch.device("cpu"))
    assert torch.allclose(basis @ basis.mT, torch.eye(8), atol=1e-6)
    assert basis[0].tolist() == pytest.approx([1 / math.sqrt(8)] * 8)
    assert basis[1].tolist() == pytest.approx([math.cos((2 * x + 1) * math.pi / 16) / 2 for x in range(8)])


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_the_table_is_the_one_that_encoders_write_at_quality_50() -> None:
    tables = jpeg(radiograph(), 50).quantization  # type: ignore[attr-defined]
    assert _JPEG_TABLE.flatten().tolist() == tables[0]


@pytest.mark.parametrize("quality", [20, 35, 50, 75, 90])
def test_loses_what_an_encoder_loses(quality: int) -> None:
    image = radiograph(224)
    original, encoded = tensor_of(image), tensor_of(jpeg(image, quality))
    compressed = _compress(original, Chosen((quality - 20) / 70, 0))
    lost = (original - encoded).abs().mean()
    assert (original - compressed).abs().mean() == pytest.approx(lost.item(), rel=0.1)
    # Not the same values: an encoder counts from the middle gray, and rounds its table and its pixels.
    assert (compressed - encoded).abs().mean() < lost / 2


def test_half_of_the_images_are_not_compressed() -> None:
    image = tensor_of(radiograph())
    assert torch.equal(_compress(image, Chosen(0, 0.5)), image)
    assert not torch.allclose(_compress(image, Chosen(0, 0.49)), image, atol=0.01)


@pytest.mark.parametrize("fraction", [0, 0.5, 1])
def test_a_flat_image_survives_compression(fraction: float) -> None:
    image = (torch.arange(16.0) / 15).view(16, 1, 1, 1).expand(16, 1, 16, 24)
    compressed = _compress(image.contiguous(), Chosen(fraction, 0))
    assert torch.allclose(compressed, compressed[..., :1, :1].expand_as(compressed), atol=1e-5)
    step = 16 * 2.5 / 8 / 255  # of a block's mean, in the coarsest table
    assert torch.allclose(compressed, image, atol=step / 2 + 1e-5)


# Borders


@pytest.mark.parametrize(
    ("edge", "lies_across", "rows", "columns"),
    [
        pytest.param(1, 0, slice(80, 100), slice(30, 70), id="bottom"),
        pytest.param(0, 0, slice(0, 20), slice(30, 70), id="top"),
        pytest.param(0, 1, slice(30, 70), slice(0, 20), id="left"),
        pytest.param(1, 1, slice(30, 70), slice(80, 100), id="right"),
    ],
)
def test_the_largest_rectangle_covers_a_fifth_of_the_depth(
    edge: float, lies_across: float, rows: slice, columns: slice
) -> None:
    image = torch.full((1, 3, 100, 100), 0.5)
    covered = _cover_border(image, Chosen(0.5, edge, lies_across, 1, 1, 0.75, *UNCOVERED[:6]))
    expected = image.clone()
    expected[..., rows, columns] = 0.75
    assert torch.equal(covered, expected)


def test_rectangles_without_an_extent_cover_nothing() -> None:
    image = tensor_of(radiograph())
    assert torch.equal(_cover_border(image, Chosen(*UNCOVERED)), image)


def test_rectangles_cover_every_border_but_never_the_middle() -> None:
    images = torch.full((200, 1, 100, 100), -1.0)
    covered = _cover_border(images, Draws(200, torch.device("cpu"))) != -1
    assert not covered[..., 20:-20, 20:-20].any()
    shares = covered.float().mean((1, 2, 3))
    assert shares.max() <= 2 * 0.2 * 0.4
    assert shares.min() < 0.01
    often = covered.float().mean((0, 1))
    assert min(often[0].min(), often[-1].min(), often[:, 0].min(), often[:, -1].min()) > 0
