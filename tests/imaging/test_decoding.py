import io
import struct
import zlib
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageStat
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION
from torchvision import transforms

from pneumonia.errors import ImageError, ImageTooLargeError, UnsupportedImageError
from pneumonia.imaging.decoding import decode, from_pillow
from pneumonia.imaging.limits import MAX_BYTES
from pneumonia.imaging.preprocessing import MEAN, SIZE, STD, normalized, preprocess, resize
from pneumonia.network.resnet import normalize
from pneumonia.training.synthetic import draw_radiograph
from tests.builders.images import chunk, encoded

Transpose = Image.Transpose


def picture(mode: str, width: int = 60, height: int = 40) -> Image.Image:
    """Return a picture in which every mode shows something, and no two corners are alike."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    slope = ImageChops.add(across, down, scale=2)
    if mode == "L":
        return slope
    if mode == "LA":
        return Image.merge("LA", (slope, across))
    if mode == "RGBA":
        return Image.merge("RGBA", (across, down, slope, across))
    colors = Image.merge("RGB", (across, down, slope))
    return colors if mode == "RGB" else colors.convert(mode)


def sixteen_bits(values: Sequence[int]) -> Image.Image:
    """Return a one-row image of these values, 16 bits a pixel."""
    return Image.frombytes("I;16", (len(values), 1), struct.pack(f"<{len(values)}H", *values))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that promises so many pixels and has none."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


LOSSLESS = [
    ("PNG", "1", "L"),
    ("PNG", "L", "L"),
    ("PNG", "LA", "L"),
    ("PNG", "P", "RGB"),
    ("PNG", "RGB", "RGB"),
    ("PNG", "RGBA", "RGB"),
    ("BMP", "1", "L"),
    ("BMP", "L", "L"),
    ("BMP", "P", "RGB"),
    ("BMP", "RGB", "RGB"),
    ("BMP", "RGBA", "RGB"),
    ("TIFF", "1", "L"),
    ("TIFF", "L", "L"),
    ("TIFF", "LA", "L"),
    ("TIFF", "P", "RGB"),
    ("TIFF", "RGB", "RGB"),
    ("TIFF", "RGBA", "RGB"),
    ("TIFF", "CMYK", "RGB"),
]


@pytest.mark.parametrize(("kind", "mode", "decoded_mode"), LOSSLESS)
def test_decodes_lossless_files_to_their_values(kind: str, mode: str, decoded_mode: str) -> None:
    original = picture(mode)
    decoded = decode(encoded(original, kind)).image
    assert decoded.mode == decoded_mode
    assert decoded.size == (60, 40)
    assert decoded.convert("RGB").tobytes() == original.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("kind", "mode", "decoded_mode"),
    [("JPEG", "L", "L"), ("JPEG", "RGB", "RGB"), ("JPEG", "CMYK", "RGB"), ("WEBP", "L", "RGB"), ("WEBP", "RGB", "RGB")],
)
def test_decodes_lossy_files_nearly_to_their_values(kind: str, mode: str, decoded_mode: str) -> None:
    original = picture(mode)
    decoded = decode(encoded(original, kind, quality=95)).image
    assert decoded.mode == decoded_mode
    difference = ImageChops.difference(decoded.convert("RGB"), original.convert("RGB"))
    assert max(ImageStat.Stat(difference).mean) < 3


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_decodes_compressed_tiff(compression: str) -> None:
    original = picture("L")
    assert decode(encoded(original, "TIFF", compression=compression)).image.tobytes() == original.tobytes()


@pytest.mark.parametrize(("mode", "transparency"), [("L", 100), ("RGB", (1, 2, 3)), ("P", 3), ("P", bytes(range(256)))])
def test_drops_transparency_without_a_warning(mode: str, transparency: object) -> None:
    original = picture(mode)
    decoded = decode(encoded(original, "PNG", transparency=transparency)).image
    assert decoded.convert("RGB").tobytes() == original.convert("RGB").tobytes()


def test_keeps_the_values_below_transparency() -> None:
    hidden = picture("RGBA")
    hidden.putalpha(0)
    assert decode(encoded(hidden, "PNG")).image.tobytes() == picture("RGB").tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "operation"),
    [
        (2, Transpose.FLIP_LEFT_RIGHT),
        (3, Transpose.ROTATE_180),
        (4, Transpose.FLIP_TOP_BOTTOM),
        (5, Transpose.TRANSPOSE),
        (6, Transpose.ROTATE_270),
        (7, Transpose.TRANSVERSE),
        (8, Transpose.ROTATE_90),
    ],
)
def test_turns_the_image_as_its_exif_orientation_says(kind: str, orientation: int, operation: Transpose) -> None:
    stored = picture("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(encoded(stored, kind, exif=exif)).image
    difference = ImageChops.difference(upright, stored.transpose(operation))
    assert max(ImageStat.Stat(difference).mean) < 3


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("is_opened", [False, True])
def test_an_orientation_in_xmp_does_not_count(kind: str, is_opened: bool) -> None:  # noqa: FBT001
    stored = picture("RGB")
    told = PngInfo()
    told.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options: dict[str, dict[str, Any]] = {"PNG": {"pnginfo": told}, "TIFF": {"tiffinfo": {700: XMP}}}
    data = encoded(stored, kind, **options.get(kind, {"xmp": XMP}))
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["xmp"] == XMP
        upright = (from_pillow(image) if is_opened else decode(data)).image
        assert not is_opened or image.info["xmp"] == XMP
    assert max(ImageStat.Stat(ImageChops.difference(upright, stored)).mean) < 3


def test_broken_exif_data_do_not_spoil_the_pixels() -> None:
    stored = picture("RGB")
    assert decode(encoded(stored, "PNG", exif=b"Exif\0\0garbage")).image.tobytes() == stored.tobytes()


def test_a_16_bit_tiff_in_which_white_is_zero_is_read_as_it_looks() -> None:
    data = encoded(sixteen_bits([0, 32768, 65535]), "TIFF", tiffinfo={PHOTOMETRIC_INTERPRETATION: 0})
    assert list(decode(data).image.tobytes()) == [255, 127, 0]


def test_turns_16_bit_images_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    assert list(decode(encoded(sixteen_bits([0, 32768, 65535]), "PNG", exif=exif)).image.tobytes()) == [255, 128, 0]


@pytest.mark.parametrize(("kind", "sentence"), [("PNG", "animation"), ("TIFF", "several"), ("WEBP", "animation")])
def test_several_images_in_a_file_are_refused(kind: str, sentence: str) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("white", "black")]
    with pytest.raises(UnsupportedImageError, match=sentence):
        decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_of_one_image_is_read(kind: str) -> None:
    data = encoded(picture("RGB"), kind, save_all=True, lossless=True)
    assert decode(data).image.tobytes() == picture("RGB").tobytes()


def test_of_a_photograph_with_a_preview_the_photograph_counts() -> None:
    data = encoded(picture("L"), "MPO", save_all=True, append_images=[Image.new("L", (30, 20))], quality=95)
    decoded = decode(data).image
    assert decoded.size == (60, 40)
    assert max(ImageStat.Stat(ImageChops.difference(decoded, picture("L"))).mean) < 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "file is empty", id="empty"),
        pytest.param(b"Dear radiologist, ", "not an image", id="text"),
        pytest.param(b"\xff", "not an image", id="one byte"),
        pytest.param(bytes(4000), "not an image", id="zeros"),
        pytest.param(b"P5 is no graymap"[:2], "not an image", id="the beginning of a graymap"),
        pytest.param(encoded(picture("L"), "PNG").replace(b"IHDR\0", b"IHDR\1"), "image is broken", id="checksum"),
        pytest.param(encoded(picture("L"), "WEBP")[:30] + b"VP8L", "image is broken", id="half a WebP"),
        pytest.param(encoded(picture("L"), "JPEG")[:3], "image is broken", id="3 bytes of a JPEG"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        decode(data)
    assert caught.type is ImageError


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    data = encoded(draw_radiograph(Random(0), "NORMAL"), kind)
    with pytest.raises(ImageError, match="image is broken") as caught:
        decode(data[: len(data) // 2])
    assert caught.type is ImageError


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_broken_bytes_raise_nothing_but_an_image_error(kind: str) -> None:
    good, random = encoded(picture("RGB"), kind), Random(0)
    refused = 0
    for _ in range(200):
        data = bytearray(good)
        for _ in range(3):
            data[random.randrange(min(len(data), 200))] = random.randrange(256)
        try:
            decode(bytes(data))
        except ImageError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("GIF", encoded(picture("P"), "GIF")),
        ("PDF", encoded(picture("L"), "PDF")),
        ("JPEG 2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n\x00\x00\x00\x14ftypjp2 "),
        ("HEIC, AVIF and MP4", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"),
        ("PNM", b"P5\n2 2\n255\n\1\2\3\4"),
        ("PNM", b"Pf 2 2 1.0 "),
        ("FITS", b"SIMPLE  =                    T"),
        ("OpenEXR", b"\x76\x2f\x31\x01\2\0\0\0"),
        ("JPEG XR", b"II\xbc\x01\x20\0\0\0"),
        ("DDS", b"DDS |\0\0\0"),
        ("Targa", bytes(30) + b"TRUEVISION-XFILE.\0"),
        ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    ],
)
def test_other_kinds_are_named_and_refused(kind: str, data: bytes) -> None:
    with pytest.raises(UnsupportedImageError, match=f"^{kind} files are not read"):
        decode(data)


def test_a_jpeg_that_tells_its_height_after_the_pixels_is_not_called_empty() -> None:
    data = encoded(picture("L"), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    with pytest.raises(UnsupportedImageError, match="tell their height only after the pixels"):
        decode(data[:place] + b"\0\0" + data[place + 2 :])


def test_the_largest_file_is_read_and_one_byte_more_is_refused() -> None:
    data = encoded(picture("L"), "PNG").ljust(MAX_BYTES, b"\x00")
    assert decode(data).image.tobytes() == picture("L").tobytes()
    with pytest.raises(ImageTooLargeError, match=r"larger than 20,971,520 bytes"):
        decode(data + b"\x00")


def test_the_largest_image_is_read_and_one_column_more_is_refused() -> None:
    assert decode(encoded(Image.new("1", (5_000, 5_000)), "PNG")).image.size == (5_000, 5_000)
    with pytest.raises(ImageTooLargeError, match=r"5001 x 5000 pixels, more than the limit of 25,000,000"):
        decode(encoded(Image.new("1", (5_001, 5_000)), "PNG"))


def test_a_side_longer_than_any_jpeg_has_is_refused() -> None:
    assert decode(encoded(Image.new("1", (1, 65_535)), "PNG")).image.size == (1, 65_535)
    with pytest.raises(ImageTooLargeError, match=r"1 x 65536 pixels, more than the limit of 65,535 a side"):
        decode(encoded(Image.new("1", (1, 65_536)), "PNG"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("width", [6_000, 10_000, 20_000, 2_000_000_000])
def test_too_many_pixels_are_refused_before_any_is_decoded(width: int) -> None:
    with pytest.raises(ImageTooLargeError, match="25,000,000"):
        decode(png_header(width, 10_000))


def torchvision_input(image: Image.Image) -> torch.Tensor:
    pipeline = transforms.Compose(
        [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    tensor: torch.Tensor = pipeline(image.convert("RGB")).unsqueeze(0)
    return tensor


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "size", [(2090, 1858), (1152, 760), (937, 515), (100, 90), (301, 777), (224, 224), (223, 225), (1, 1), (3, 2000)]
)
def test_preprocessing_equals_torchvision_bit_for_bit(mode: str, size: tuple[int, int]) -> None:
    random = Random(0)
    bands = [draw_radiograph(random, "PNEUMONIA", 512).resize(size) for _ in mode]
    image = decode(encoded(Image.merge(mode, bands), "JPEG", quality=95)).image
    assert image.mode == mode
    assert torch.equal(torch.from_numpy(preprocess(image)), torchvision_input(image))


def test_preprocessing_of_16_bit_files_equals_torchvision_on_the_decoded_image() -> None:
    image = decode(encoded(sixteen_bits(range(4096)).resize((300, 250)), "PNG")).image
    assert torch.equal(torch.from_numpy(preprocess(image)), torchvision_input(image))


def test_the_input_has_the_networks_shape_and_type() -> None:
    pixels = preprocess(picture("L"))
    assert pixels.shape == (1, 3, SIZE, SIZE)
    assert pixels.dtype == np.float32


def test_resizing_keeps_uint8_values_and_fills_three_channels() -> None:
    gray = resize(Image.new("L", (50, 60), 77))
    assert gray.dtype == np.uint8
    assert np.array_equal(gray, np.full((3, SIZE, SIZE), 77))
    red = resize(Image.new("RGB", (50, 60), (200, 10, 5)))
    assert red[:, 0, 0].tolist() == [200, 10, 5]


def test_training_normalises_a_batch_as_inference_does_one_image() -> None:
    images = [draw_radiograph(Random(seed), "NORMAL") for seed in range(3)]
    pixels = np.stack([resize(image) for image in images])
    expected = np.concatenate([preprocess(image) for image in images])
    assert np.array_equal(normalize(torch.from_numpy(pixels)).numpy(), expected)
    assert np.array_equal(normalized(pixels), expected)


def test_one_channel_is_normalised_as_three_alike_bit_for_bit() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(normalize(pixels), normalize(pixels.expand(1, 3, 16, 16)))
    assert np.array_equal(normalized(pixels.numpy()), normalize(pixels).numpy())
    assert normalize(pixels).is_contiguous(memory_format=torch.channels_last)
    assert pixels.flatten().tolist() == list(range(256))


def test_float_pixels_are_normalised_as_integers_are() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(normalize(pixels), normalize(pixels.float()))


def test_run_length_encoded_bmp_is_not_read() -> None:
    data = encoded(Image.linear_gradient("L"), "BMP")
    assert decode(data).image.size == (256, 256)
    with pytest.raises(UnsupportedImageError, match="Run-length encoded BMP files are not read"):
        decode(data[:30] + b"\1\0\0\0" + data[34:])


def bmp(bits: int, compression: int, pixels: bytes, masks: tuple[int, ...] = ()) -> bytes:
    """Return a BMP of 64 x 64 pixels, with any depth and compression."""
    places = struct.pack(f"<{len(masks)}I", *masks)
    header = struct.pack("<IiiHHIIiiII", 40, 64, 64, 1, bits, compression, len(pixels), 0, 0, 0, 0) + places
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


def test_bmp_of_16_bits_per_pixel_is_read() -> None:
    gray = np.resize(np.arange(256), (64, 64))
    five_six_five = (gray >> 3 << 11 | gray >> 2 << 5 | gray >> 3).astype("<u2")
    found = np.asarray(decode(bmp(16, 3, five_six_five.tobytes(), (0xF800, 0x7E0, 0x1F))).image).astype(int)
    assert abs(found[::-1] - gray[..., None]).max() <= 7


@pytest.mark.parametrize(
    ("bits", "compression", "masks"),
    [(32, 3, (0x3FF, 0xFFC00, 0x3FF00000)), (24, 4, ()), (24, 5, ()), (32, 6, (255,) * 4), (2, 0, ()), (64, 0, ())],
)
def test_bmp_of_other_kinds_is_not_called_broken(bits: int, compression: int, masks: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedImageError, match="BMP files of this kind are not read"):
        decode(bmp(bits, compression, bytes(64 * 64 * 8), masks))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", [273, 324])
def test_tiff_of_endless_pieces_is_refused_before_it_is_opened(order: str, tag: int) -> None:
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    field = struct.pack(f"{order}HHII", tag, 4, 65_537, 26)
    with pytest.raises(ImageTooLargeError, match="more than 65,536 TIFF strips or tiles"):
        decode(magic + struct.pack(f"{order}IH", 8, 1) + field)
