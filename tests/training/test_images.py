import hashlib
import shutil
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from pneumonia.errors import DataError
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import SIZE, resize
from pneumonia.training.channels import fingerprint, scan_channels
from pneumonia.training.images import Images, load_channel
from pneumonia.training.synthetic import draw_dataset
from tests.builders import not_plain
from tests.builders.disk import full_after


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    draw_dataset(root, {"train": 3}, size=64)
    return root / "train"


def copy_of(root: Path, destination: Path) -> Path:
    return Path(shutil.copytree(root, destination))


def load(root: Path, workers: int = 2, memory: int | None = None) -> Images:
    return load_channel(scan_channels({"train": root})["train"], workers, memory)


def decoded(root: Path) -> torch.Tensor:
    """Return the files' pixels as inference decodes them, one file after the other."""
    paths = sorted(root.glob("NORMAL/*")) + sorted(root.glob("PNEUMONIA/*"))
    return torch.from_numpy(np.stack([resize(decode(path.read_bytes()).image) for path in paths]))


def test_loading_decodes_every_image_once_in_the_order_of_the_files(drawn: Path) -> None:
    images = load(drawn)
    assert len(images) == 6
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    paths = sorted(drawn.glob("NORMAL/*")) + sorted(drawn.glob("PNEUMONIA/*"))
    assert images.digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert torch.equal(images.pixels.expand(6, 3, SIZE, SIZE), decoded(drawn))


def test_gray_images_take_one_channel_and_one_with_colours_gives_all_three(drawn: Path, tmp_path: Path) -> None:
    root = copy_of(drawn, tmp_path / "train")
    assert load(root).pixels.shape == (6, 1, SIZE, SIZE)
    colours = Image.new("RGB", (64, 64), (90, 90, 91))
    colours.save(root / "PNEUMONIA" / "person9_virus_9.png")  # the last one: all the others were taken for gray
    images = load(root)
    assert images.pixels.shape == (7, 3, SIZE, SIZE)
    assert images.pixels[6, :, 0, 0].tolist() == [90, 90, 91]
    assert torch.equal(images.pixels, decoded(root))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("colours", [False, True])
def test_images_beyond_the_memory_go_to_a_file_without_a_name(
    drawn: Path, tmp_path: Path, temporary: Path, *, colours: bool
) -> None:
    root = copy_of(drawn, tmp_path / "train")
    if colours:
        Image.new("RGB", (64, 64), "red").save(root / "NORMAL" / "IM-0099-0001.png")
    kept, spilled = load(root), load(root, memory=0)
    assert file_of(kept) is None
    assert Path(file_of(spilled) or "").parent == temporary
    assert not list(temporary.iterdir())
    assert torch.equal(spilled.pixels, kept.pixels)
    assert spilled.digests == kept.digests


def file_of(images: Images) -> str | None:
    """Return the file that the pixels lie in, None where they lie in memory."""
    name: str | None = images.pixels.untyped_storage().filename
    return name


def test_the_memory_given_is_just_enough(drawn: Path, temporary: Path) -> None:
    needed = 6 * SIZE * SIZE
    assert file_of(load(drawn, memory=needed)) is None
    assert Path(file_of(load(drawn, memory=needed - 1)) or "").parent == temporary


def test_processes_on_one_machine_divide_its_memory(
    drawn: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "999999999")
    assert Path(file_of(load(drawn)) or "").parent == temporary


def test_a_full_disk_below_the_images_is_an_error_that_names_the_folder(drawn: Path, temporary: Path) -> None:
    with full_after(5 * SIZE * SIZE), pytest.raises(OSError, match="too large") as caught:
        load(drawn, memory=0)
    assert caught.value.filename == str(temporary)
    assert not list(temporary.iterdir())


def test_no_temporary_folder_is_an_error_that_names_it(drawn: Path, temporary: Path) -> None:
    temporary.rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        load(drawn, memory=0)
    assert Path(caught.value.filename).parent == temporary


def test_the_number_of_workers_changes_nothing(drawn: Path) -> None:
    one, many = load(drawn, workers=1), load(drawn, workers=8)
    assert torch.equal(one.pixels, many.pixels)
    assert one.digests == many.digests


def test_unreadable_images_are_named_with_their_faults(drawn: Path, tmp_path: Path) -> None:
    root = copy_of(drawn, tmp_path / "train")
    good = (root / "NORMAL" / "IM-0001-0001.jpeg").read_bytes()
    (root / "NORMAL" / "IM-0001-0001.jpeg").write_bytes(good[: len(good) // 2])
    (root / "PNEUMONIA" / "notes.txt").write_bytes(b"not an X-ray")
    with pytest.raises(DataError) as caught:
        load(root)
    assert str(caught.value).startswith("Images cannot be read, remove or replace them: ")
    assert "train/NORMAL/IM-0001-0001.jpeg (The image is broken" in str(caught.value)
    assert "train/PNEUMONIA/notes.txt (The file is not an image" in str(caught.value)


def test_of_many_unreadable_images_the_sentence_names_three_and_the_error_all(drawn: Path, tmp_path: Path) -> None:
    root = copy_of(drawn, tmp_path / "train")
    for number in range(5):
        (root / "NORMAL" / f"broken{number}.jpeg").touch()
    with pytest.raises(DataError, match=r"broken0\.jpeg .*broken2\.jpeg [^;]* and 2 more$") as caught:
        load(root)
    names = [file.partition(" (")[0] for file in caught.value.files]
    assert names == [f"train/NORMAL/broken{number}.jpeg" for number in range(5)]


@pytest.mark.processes
def test_what_is_no_plain_file_is_named_and_neither_waited_for_nor_read(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_of(drawn, tmp_path / "train")
    monkeypatch.chdir(root / "NORMAL")  # a socket's path may not be long
    not_plain.put_into(Path())
    with pytest.raises(DataError, match=r"^6 images cannot be read, remove or replace them: ") as caught:
        load(root)
    for name, told in not_plain.TOLD.items():
        assert any(file.startswith(f"train/NORMAL/{name} ({told}") for file in caught.value.files), caught.value.files


# Fingerprint


def entries(images: Images) -> list[tuple[int, str]]:
    """Return what a fingerprint is made of."""
    return list(zip(images.labels.tolist(), images.digests, strict=True))


def test_the_fingerprint_does_not_depend_on_names(drawn: Path, tmp_path: Path) -> None:
    renamed = copy_of(drawn, tmp_path / "renamed")
    for path in list(renamed.glob("*/*")):
        path.rename(path.with_name(f"{Random(path.name).random()}.jpeg"))
    assert fingerprint({"train": entries(load(renamed))}) == fingerprint({"train": entries(load(drawn))})


def test_the_fingerprint_tells_split_class_and_bytes(drawn: Path, tmp_path: Path) -> None:
    images = entries(load(drawn))
    swapped = [(1 - label, digest) for label, digest in images]
    root = copy_of(drawn, tmp_path / "changed")
    path = root / "NORMAL" / "IM-0001-0001.jpeg"
    path.write_bytes(path.read_bytes() + b"\x00")
    different = {
        fingerprint({"train": images}),
        fingerprint({"val": images}),
        fingerprint({"train": swapped}),
        fingerprint({"train": entries(load(root))}),
    }
    assert len(different) == 4
    assert all(len(value) == 64 for value in different)
