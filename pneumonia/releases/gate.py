"""The quality gate: a bucket serves releases with sufficient and true figures on the test images, and forced ones."""

import dataclasses
from datetime import datetime

from pneumonia.errors import ReleaseRefusedError
from pneumonia.releases.manifest import Manifest
from pneumonia.releases.version import is_ahead, time_of

# MedMNIST's ResNet-18 has 0.864 and 0.956 on the official test images (Yang et al. 2023,
# doi:10.1038/s41597-022-01721-8): a model below these floors was trained badly, or on wrong labels.
FLOORS = {"test_accuracy": 0.80, "test_auroc": 0.90}
MARGIN = 0.03  # below the served release: two standard errors of an accuracy of 0.9 on 400 images


def objections(manifest: Manifest, served: Manifest | None) -> list[str]:
    """Return the reasons not to serve a release: a clock that was wrong, or figures that are untrue or too low.

    Figures are untrue if the training's channels share images or patients. A figure is too low below its floor, or
    clearly below the served release's. A release whose clock was ahead would count as newer than those that follow.

    Args:
        manifest: the new release's.
        served: the served release's, None for the first. Both should have been tested on the same images.
    """
    doubts = manifest.data_check.leaks() if manifest.data_check else []
    if is_ahead(manifest.version, datetime.fromisoformat(manifest.created)):
        finished = time_of(manifest.version)
        doubts.append(f"its training finished at {finished:%Y-%m-%d %H:%M} UTC by a clock that was ahead")
    for name, floor in FLOORS.items():
        figure, current = manifest.metrics.get(name), served.metrics.get(name) if served else None
        if figure is None:
            doubts.append(f"its training reported no {name}")
        elif figure < floor:
            doubts.append(f"its {name} of {figure:.4f} is below {floor:.2f}")
        elif current is not None and served and figure < current - MARGIN:
            doubts.append(
                f"its {name} of {figure:.4f} is more than {MARGIN} below the {current:.4f} of {served.version}"
            )
    return doubts


def admitted(manifest: Manifest, served: Manifest | None, source: str, *, force: bool) -> Manifest:
    """Return the manifest of a release that may be served; if it was forced, the manifest records the objections.

    Args:
        manifest: the new release's.
        served: as for `objections`.
        source: the archive, for the error's sentence.
        force: admit the release whatever its figures are.

    Raises:
        ReleaseRefusedError: there are objections, and the release is not forced.
    """
    doubts = " and ".join(objections(manifest, served))
    if doubts and not force:
        # A training that is stopped or fails leaves its best checkpoint, and no figures.
        advice = "train again" if manifest.metrics else "continue its training from the checkpoint to the end"
        raise ReleaseRefusedError(
            f"{source} is not released, because {doubts}: {advice}, or pass --force to serve it anyway."
        )
    return dataclasses.replace(manifest, forced=doubts or None)
