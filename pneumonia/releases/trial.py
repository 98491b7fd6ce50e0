"""Try a release as a new instance of inference does, before it is served."""

from pneumonia.network.outputs import check_outputs
from pneumonia.releases.loading import classifier_of
from pneumonia.releases.release import Release


def check_serving(release: Release) -> None:
    """Check that inference can serve a release.

    Raises:
        WeightsError: it cannot be loaded, was trained for other classes or another preprocessing than this code's, or
            has outputs that are not finite.
    """
    check_outputs(classifier_of(release).engine, f"release {release.version}")
