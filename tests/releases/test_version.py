import time
from datetime import UTC, datetime, timedelta

import pytest

from pneumonia.network.training_report import parse
from pneumonia.releases.version import CLOCK_TOLERANCE, is_ahead, is_older, time_of, version_at

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "0a1b2c3d" * 8


def test_versions_sort_by_time_however_absurd_it_is() -> None:
    times = [datetime(year, 1, 2, 3, 4, 5, tzinfo=UTC) for year in (1, 999, 1970, 2026, 9999)]
    versions = [version_at(time, DIGEST) for time in times]
    assert versions[0] == "00010102-030405-0a1b2c3d"
    assert sorted(versions) == versions
    assert [time_of(version) for version in versions] == times


@pytest.mark.parametrize("version", ["1", "", "other", "20261302-030405-0a1b2c3d", "99990101"])
def test_a_version_of_another_kind_has_no_time(version: str) -> None:
    assert time_of(version) is None
    assert not is_ahead(version, NOW)


def test_a_clock_may_be_ahead_a_little() -> None:
    assert not is_ahead(version_at(NOW + CLOCK_TOLERANCE, DIGEST), NOW)
    assert is_ahead(version_at(NOW + CLOCK_TOLERANCE + timedelta(seconds=1), DIGEST), NOW)


def test_a_version_without_a_time_is_neither_older_nor_newer() -> None:
    old, new = "20260101-030405-f", "20260102-030405-0"
    assert is_older(old, new)
    assert not is_older(new, old)
    assert not any(is_older(*pair) for pair in ((old, old), (old, "zzz"), ("1", old), ("1", "2")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05", NOW),  # whatever the zone of this machine
        ("2026-01-02T05:04:05+02:00", NOW),
        ("9999-12-31T23:59:59", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_utc(text: str, expected: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert parse(f'{{"finished": "{text}"}}', "training.json").finished == expected
    time.tzset()
