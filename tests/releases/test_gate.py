import dataclasses
from pathlib import Path

import pytest

from pneumonia.errors import ReleaseRefusedError
from pneumonia.network.data_check import DataCheck
from pneumonia.releases.gate import admitted, objections
from pneumonia.releases.promotion import unpack_release
from tests.builders.archives import archive_with


def test_a_little_below_the_served_release_is_no_objection(tmp_path: Path) -> None:
    served = unpack_release(str(archive_with(tmp_path, 1))).manifest
    assert served.forced is None
    for name, figure in (("test_accuracy", 0.93), ("test_auroc", 0.96), ("test_accuracy", 1.0)):
        manifest = dataclasses.replace(served, metrics={**served.metrics, name: figure})
        assert objections(manifest, served) == []


def test_channels_that_share_images_or_patients_are_an_objection(tmp_path: Path) -> None:
    manifest = unpack_release(str(archive_with(tmp_path, 1))).manifest
    warned = dataclasses.replace(manifest, data_check=DataCheck({}, ["val has images of few patients."]))
    assert objections(warned, None) == []
    shared = {"train and val": {"patients": 2}, "train and test": {"images": 1, "patients": 17}}
    leaking = dataclasses.replace(manifest, data_check=DataCheck(shared, []))
    with pytest.raises(ReleaseRefusedError) as caught:
        admitted(leaking, None, "m.tar.gz", force=False)
    assert str(caught.value) == (
        "m.tar.gz is not released, because its train and val channels share 2 patients and its train and test channels "
        "share 1 image and 17 patients: train again, or pass --force to serve it anyway."
    )
    assert "share 1 image and 17 patients" in str(admitted(leaking, None, "m.tar.gz", force=True).forced)
