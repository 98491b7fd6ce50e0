"""The two ways in which S3 is read."""

from pathlib import Path

import pytest


@pytest.fixture(params=["signed here", "by boto3"])
def either_way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Run a test twice: `standing_for_s3` is asked by our signed requests, and by boto3."""
    if request.param == "by boto3":
        profile = tmp_path / "credentials"
        profile.write_text("[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "false")  # a setting that only boto3 can follow
    return monkeypatch
