"""How many answers change when a phone photographs the films off a screen or a light box.

`python benchmarks/photographs.py FOLDER WEIGHTS...` simulates photographs of the films in FOLDER/{NORMAL,PNEUMONIA}.
It compares the answer of each weights file, its manifest beside it, for a photograph with that for the film's own file.
The photographs are drawn by file name, so every model gets the same ones in every run. It prints a Markdown table, and
writes JSON where --output says. --save writes the photographs to a folder, to look at.

The film is scaled to 1,024 pixels on its longer side, as a screen does, and photographed with a margin of 0 to 15%
around it, dark or bright, and at an angle, each corner up to 3% of a side off its place. Light falls unevenly, with a
vignette, glare and moiré; the colours have a cast; blur, the sensor's noise and JPEG of quality 80 follow.
"""

import argparse
import io
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from other_images import WARNINGS
from PIL import Image, ImageFilter

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.errors import ImageError
from pneumonia.files import write_json
from pneumonia.imaging.decoding import decode
from pneumonia.network.classifier import Classifier, Source
from pneumonia.network.contract import CLASSES
from pneumonia.network.prediction import Prediction
from pneumonia.releases.loading import load
from pneumonia.training.channels import Channel, scan_folder
from pneumonia.training.metrics import auroc

Floats = npt.NDArray[np.float64]
Random = np.random.Generator
SIDE = 1024  # pixels of a photograph's longer side, before the margin
MARGIN = 0.15  # of the film's sides, at most
TILT = 0.03  # of the film's sides, how far a corner is off its place at most
QUALITY = 80


def photographs_of(path: Path, count: int) -> list[bytes]:
    """Return photographs of a film as JPEG files, the same for every file of that name."""
    film = decode(path.read_bytes()).image.convert("L")
    return [photograph(film, np.random.default_rng([number, *path.name.encode()])) for number in range(count)]


def photograph(film: Image.Image, random: Random) -> bytes:
    """Return a photograph of a film, mode "L", as a JPEG file."""
    seen = np.asarray(placed(film, random), np.float64)
    colours = np.stack([seen * light(seen.shape, random) + glare(seen.shape, random)] * 3, axis=-1)
    colours = (colours + moire(seen.shape, random)) * random.uniform(0.88, 1.04, 3)
    picture = Image.fromarray(colours.clip(0, 255).round().astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.5, 2)))
    noisy = np.asarray(picture) + random.normal(0, random.uniform(2, 7), colours.shape)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def placed(film: Image.Image, random: Random) -> Image.Image:
    """Return the film scaled, at an angle, and with what lies around it, mode "L"."""
    scale = SIDE / max(film.size)
    film = film.resize((round(film.width * scale), round(film.height * scale)), Image.Resampling.BICUBIC)
    around = round(random.choice([random.uniform(0, 45), random.uniform(190, 250)]))
    margin = random.uniform(0, MARGIN, 4) * np.tile(film.size, 2)  # left, top, right, bottom
    left, top = margin[:2]
    size = round(film.width + left + margin[2]), round(film.height + top + margin[3])
    corners = np.array([(0, 0), (film.width, 0), (film.width, film.height), (0, film.height)], np.float64)
    seen = corners + (left, top) + random.uniform(-TILT, TILT, (4, 2)) * film.size
    method, resampling = Image.Transform.PERSPECTIVE, Image.Resampling.BICUBIC
    return film.transform(size, method, perspective(seen, corners), resampling, fillcolor=around)


def perspective(seen: Floats, corners: Floats) -> list[float]:
    """Return the eight numbers by which Pillow finds, for each place in the photograph, its place on the film.

    Args:
        seen: x and y of the film's corners in the photograph, shape (4, 2).
        corners: the same on the film.
    """
    (x, y), (u, v), one, zero = seen.T, corners.T, np.ones(4), np.zeros((4, 3))
    place = np.stack([x, y, one], axis=1)
    across = np.hstack([place, zero, -u[:, None] * seen])
    down = np.hstack([zero, place, -v[:, None] * seen])
    return list(np.linalg.solve(np.vstack([across, down]), np.concatenate([u, v])))


def grid(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return the x of each column and the y of each row, from -1 to 1, ready to be added."""
    return np.linspace(-1, 1, shape[1])[None], np.linspace(-1, 1, shape[0])[:, None]


def light(shape: tuple[int, ...], random: Random) -> Floats:
    """Return what brightness is multiplied by: less towards one side, and less towards the corners."""
    x, y = grid(shape)
    angle, exposure = random.uniform(0, 2 * np.pi), random.uniform(0.8, 1.1)
    gradient = 1 + random.uniform(0, 0.15) * (x * np.cos(angle) + y * np.sin(angle))
    vignette = 1 - random.uniform(0, 0.3) * (x**2 + y**2) / 2
    shades: Floats = exposure * gradient * vignette
    return shades


def glare(shape: tuple[int, ...], random: Random) -> Floats:
    """Return the gray levels that a reflection adds: a soft bright spot, and a little everywhere."""
    x, y = grid(shape)
    right, down = random.uniform(-0.8, 0.8, 2)
    wide, high = random.uniform(0.15, 0.5, 2)
    spot = np.exp(-(((x - right) / wide) ** 2) - ((y - down) / high) ** 2)
    levels: Floats = random.uniform(15, 80) * spot + random.uniform(0, 15)
    return levels


def moire(shape: tuple[int, ...], random: Random) -> Floats:
    """Return the gray levels that a screen's and the sensor's grids add together, shape (height, width, 3)."""
    x, y = grid(shape)
    angle, periods, bend = random.uniform(0, np.pi), random.uniform(15, 70), random.uniform(-2, 2)
    phase = np.pi * periods * (x * np.cos(angle) + y * np.sin(angle)) + np.pi * bend * (x**2 + y**2)
    shifts = random.uniform(0, 2 * np.pi) + random.uniform(-1, 1, 3)  # the three colours have grids of their own
    levels: Floats = random.uniform(1, 6) * np.sin(phase[..., None] + shifts)
    return levels


def answers(model: Classifier, sources: Sequence[Source]) -> list[Prediction]:
    """Return a model's answers.

    Raises:
        ImageError: an image cannot be used.
    """
    found = []
    for answer in model.predict_many(sources):
        if isinstance(answer, ImageError):
            raise answer
        found.append(answer)
    return found


def figures(films: Sequence[Prediction], photographed: Sequence[Prediction], labels: Sequence[int]) -> dict[str, Any]:
    """Return how far the answers for photographs are from those for the films.

    Args:
        films: the answer for the film of each photograph.
        photographed: the answer for each photograph.
        labels: of each photograph, indices in CLASSES.
    """
    pairs = list(zip(films, photographed, labels, strict=True))
    differences = [abs(suspicion(one) - suspicion(other)) for one, other, _ in pairs]
    changed = [(label, other.prediction) for one, other, label in pairs if one.prediction != other.prediction]
    return {
        "photographs": len(pairs),
        "changed": len(changed),
        "changed_to": {
            prediction: {name: changed.count((label, prediction)) for label, name in enumerate(CLASSES)}
            for prediction in CLASSES
        },
        "mean_difference": statistics.mean(differences),
        "largest_difference": max(differences),
        "auroc_of_films": ranking(films, labels),
        "auroc_of_photographs": ranking(photographed, labels),
        "warnings": {name: sum(name in one.warnings for one in photographed) for name in WARNINGS},
    }


def suspicion(answer: Prediction) -> float:
    """Return P(PNEUMONIA)."""
    return answer.probabilities["PNEUMONIA"]


def ranking(given: Sequence[Prediction], labels: Sequence[int]) -> float:
    """Return the AUROC of answers."""
    return auroc(torch.tensor([suspicion(answer) for answer in given]), torch.tensor(labels))


def judge(model: Classifier, channel: Channel, photographs: Sequence[Sequence[bytes]]) -> dict[str, Any]:
    """Return a model's figures; `photographs[i]` are those of `channel.paths[i]`."""
    each = len(photographs[0])
    films = [answer for answer in answers(model, channel.paths) for _ in range(each)]
    photographed = answers(model, [file for files in photographs for file in files])
    return figures(films, photographed, [label for label in channel.labels for _ in range(each)])


def table(releases: dict[str, dict[str, Any]]) -> str:
    """Return the figures of all models as a Markdown table."""
    becomes = [f"become {prediction} (normal films, pneumonias)" for prediction in reversed(CLASSES)]
    columns = [
        "weights",
        "photographs",
        "answers changed",
        *becomes,
        "mean difference of P",
        "largest",
        "AUROC of films",
    ]
    columns += ["of photographs", *(f"`{name}`" for name in WARNINGS)]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, one in releases.items():
        counts = [list(one["changed_to"][prediction].values()) for prediction in reversed(CLASSES)]
        cells = [name, str(one["photographs"]), f"{one['changed']} ({one['changed'] / one['photographs']:.1%})"]
        cells += [f"{sum(count)} ({count[0]}, {count[1]})" for count in counts]
        cells += [f"{one['mean_difference']:.4f}", f"{one['largest_difference']:.3f}"]
        cells += [f"{one['auroc_of_films']:.4f}", f"{one['auroc_of_photographs']:.4f}"]
        lines.append("| " + " | ".join([*cells, *map(str, one["warnings"].values())]) + " |")
    return "\n".join(lines)


def save(folder: Path, channel: Channel, photographs: Sequence[Sequence[bytes]]) -> None:
    """Write photographs into a folder for each class, named after their films."""
    for path, files in zip(channel.paths, photographs, strict=True):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(files):
            (folder / path.parent.name / f"{path.name}-{number}.jpeg").write_bytes(file)


def main(argv: Sequence[str] | None = None) -> int:
    """Photograph all films, and judge all weights on them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("weights", type=Path, nargs="+", metavar="WEIGHTS", help="weights files")
    parser.add_argument("--each", type=int, default=1, metavar="N", help="photographs of each film (%(default)s)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="gets the photographs")
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets the figures as JSON")
    args = parser.parse_args(argv)
    if args.each < 1:
        parser.error(f"--each must be 1 or more, not {args.each}")
    models = {str(path): load(path) for path in args.weights}
    channel = scan_folder(args.folder)
    photographs = [photographs_of(path, args.each) for path in channel.paths]
    if args.save:
        save(args.save, channel, photographs)
    releases = {name: judge(model, channel, photographs) for name, model in models.items()}
    if args.output:
        write_json(args.output, {"folder": channel.name, "films": len(channel.paths), "releases": releases})
    print(table(releases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
