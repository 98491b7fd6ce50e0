import dataclasses
from pathlib import Path

from pneumonia.releases.gate import objections
from pneumonia.releases.promotion import unpack_release
from tests.builders.archives import archive_with


def test_a_little_below_the_served_release_is_no_objection(tmp_path: Path) -> None:
    served = unpack_release(str(archive_with(tmp_path, 1)), tmp_path / "served.pth")
    assert served.forced is None
    for name, figure in (("test_accuracy", 0.93), ("test_auroc", 0.96), ("test_accuracy", 1.0)):
        manifest = dataclasses.replace(served, metrics={**served.metrics, name: figure})
        assert objections(manifest, served) == []
