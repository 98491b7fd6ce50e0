import pytest

from pneumonia.errors import StorageError
from pneumonia.storage.writing import WritableBucket
from tools.stand_ins.moto import Moto
from tools.stand_ins.s3_in_front import broken_off, first, in_front_of


def test_object_that_breaks_off_is_read_again(moto: Moto, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    etag = moto.s3().put_object(Bucket=bucket, Key="current.json", Body=b"content")["ETag"]
    with in_front_of(moto.endpoint, first(broken_off(0.5), broken_off(0))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        assert WritableBucket(bucket, StorageError).read("current.json", 100) == (b"content", etag)
    assert len(server.seen) == 3
