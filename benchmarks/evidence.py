"""How much of a heatmap lies inside the thorax.

`python benchmarks/evidence.py FOLDER WEIGHTS...` lets each weights file, its manifest beside it, answer for the films
in FOLDER/{NORMAL,PNEUMONIA}, and looks at the heatmap of each answer as `explain` draws it, on the film squashed to 224
pixels: the positive evidence for the answer, beyond the usual evidence if the manifest has that, enlarged to the film.
Its mass is the sum of its levels.

- **inside**: the share of the mass that lies inside the thorax, mean over the films of an answer. The thorax, lungs
  and what lies between them, is found in each film by benchmarks/thorax.py, without labels.
- **even**: the share that a heatmap of the same level everywhere would have inside, which is the thorax's share of the
  film.
- **peak inside**: the share of films on which more than half of the pixels with the heatmap's highest level lie inside
  the thorax.

Films without any such evidence are counted and left out. It prints a Markdown table, and writes JSON where
--output says. --save writes the films with thorax and heatmap to a folder, to look at.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from thorax import Mask, find_thorax

sys.path.insert(0, str(Path(__file__).parent.parent))
from pneumonia.files import write_json
from pneumonia.imaging.decoding import decode
from pneumonia.imaging.preprocessing import SIZE
from pneumonia.network.classifier import Classifier, prepared
from pneumonia.network.contract import CLASSES
from pneumonia.network.heatmap import draw_heatmap
from pneumonia.releases.loading import load
from pneumonia.training.channels import scan_folder


@dataclass(frozen=True)
class Film:
    """A film with its answer's heatmap.

    Attributes:
        prediction: the answer's class.
        heatmap: mode "P", SIZE pixels a side; the values are levels of evidence, from 0.
        thorax: where it is, shape (SIZE, SIZE).
    """

    prediction: str
    heatmap: Image.Image
    thorax: Mask

    def inside(self) -> float | None:
        """Return the share of the heatmap's mass inside the thorax, None if it has none."""
        levels = np.asarray(self.heatmap, np.float64)
        return float(levels[self.thorax].sum() / levels.sum()) if levels.any() else None

    def has_peak_inside(self) -> bool:
        """Return whether more than half of the pixels with the heatmap's highest level lie inside the thorax."""
        levels = np.asarray(self.heatmap)
        return bool(self.thorax[levels == levels.max()].mean() > 0.5)


def film_of(model: Classifier, path: Path, thorax: Mask) -> Film:
    """Return a film with what a model answers."""
    (answer,), evidence = model.answers_with_evidence(prepared(path).pixels)
    return Film(answer.prediction, draw_heatmap(model.support(answer, evidence[0]), (SIZE, SIZE)), thorax)


def figures(films: Sequence[Film]) -> dict[str, Any]:
    """Return the figures of films with the same answer; shares are None where no film has any evidence."""
    seen = [(film, share) for film in films if (share := film.inside()) is not None]
    return {
        "films": len(films),
        "without_evidence": len(films) - len(seen),
        "inside": statistics.mean(share for _, share in seen) if seen else None,
        "even": statistics.mean(float(film.thorax.mean()) for film, _ in seen) if seen else None,
        "peak_inside": statistics.mean(film.has_peak_inside() for film, _ in seen) if seen else None,
    }


def table(releases: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the figures of all models as a Markdown table."""
    lines = ["| weights | answer | films | without evidence | inside | even | peak inside |", "|---" * 7 + "|"]
    for name, answers in releases.items():
        for prediction, one in answers.items():
            shares = ["-" if one[key] is None else f"{one[key]:.3f}" for key in ("inside", "even", "peak_inside")]
            cells = [name, prediction, str(one["films"]), str(one["without_evidence"]), *shares]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(film: Film, path: Path, target: Path) -> None:
    """Write a film with its heatmap and the outline of its thorax."""
    picture = decode(path.read_bytes()).image.convert("L").resize((SIZE, SIZE)).convert("RGBA")
    picture.alpha_composite(film.heatmap.convert("RGBA"))
    outline = Image.fromarray(film.thorax).convert("L").filter(ImageFilter.FIND_EDGES)
    picture.paste("lime", mask=outline)
    picture.convert("RGB").save(target)


def main(argv: Sequence[str] | None = None) -> int:
    """Look at the heatmaps of all weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with NORMAL/ and PNEUMONIA/")
    parser.add_argument("weights", type=Path, nargs="+", metavar="WEIGHTS", help="weights files")
    parser.add_argument("--save", type=Path, metavar="DIR", help="gets the films with the first weights' heatmaps")
    parser.add_argument("--output", type=Path, metavar="FILE", help="gets the figures as JSON")
    args = parser.parse_args(argv)
    models = {str(path): load(path) for path in args.weights}
    channel = scan_folder(args.folder)
    thoraces = [find_thorax(decode(path.read_bytes()).image.convert("L"), SIZE) for path in channel.paths]
    releases = {}
    for number, (name, model) in enumerate(models.items()):
        films = [film_of(model, path, thorax) for path, thorax in zip(channel.paths, thoraces, strict=True)]
        releases[name] = {label: figures([film for film in films if film.prediction == label]) for label in CLASSES}
        if args.save and number == 0:
            for film, path in zip(films, channel.paths, strict=True):
                (args.save / path.parent.name).mkdir(parents=True, exist_ok=True)
                save(film, path, args.save / path.parent.name / f"{path.name}.png")
    if args.output:
        write_json(args.output, {"folder": channel.name, "releases": releases})
    print(table(releases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
