"""Addresses in S3."""

from pneumonia.errors import ConfigurationError


def split(uri: str) -> tuple[str, str]:
    """Return the bucket and the key, or prefix, of `s3://bucket/key`.

    Raises:
        ConfigurationError: the text names no bucket.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise ConfigurationError(f"{uri!r} is not an address in S3: name one as s3://bucket/key.")
    return bucket, key


def bucket_name(text: str) -> str:
    """Return the name of a bucket that may be written as its address, `s3://name/`."""
    return text.strip().removeprefix("s3://").rstrip("/")
