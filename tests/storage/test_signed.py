import dataclasses
import datetime
import io
import time
import traceback
from ipaddress import ip_address
from pathlib import Path

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pneumonia.deadline import Deadline
from pneumonia.errors import StorageError
from pneumonia.storage.answers import S3Error, UnsentError
from pneumonia.storage.reading import BucketReader
from pneumonia.storage.refusals import refusals_as
from pneumonia.storage.signed import CHUNK, Access, SignedBucket
from tools.stand_ins.faulty_s3 import (
    Answer,
    Certificate,
    chunked,
    cut,
    hang_up,
    last,
    refusal,
    refusal_of,
    serving,
    silence,
    trickle,
    trickling_head,
    whole,
)
from tools.stand_ins.moto import Moto

KEYS = [
    "pneumonia_classifier.pth",
    "releases/20260102-030405-0a1b2c3d/manifest.json",
    "a key with spaces.pth",
    "Röntgen/肺炎.pth",
    "a+b=c&d?e#f.pth",
    "100%/%20/%2F",
    "//two//slashes/",
    "./dots/../here/.",
    "~tilde!'()*;:@,$[]{}|\\^`<>\"",
]
SETTINGS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hush/hush", "AWS_REGION": "eu-west-1"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with SETTINGS and nothing else that matters here."""
    for name in ("AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def access(region: str = "eu-west-1", endpoint: str | None = None, token: str | None = None) -> Access:
    return Access("AKIDEXAMPLE", "hush/hush", token, region, endpoint)


def soon() -> Deadline:
    """Return a deadline that no test here reaches."""
    return Deadline.after(60)


def read(bucket: SignedBucket, key: str = "key") -> bytes:
    return b"".join(bucket.get(key))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("bucket", ["models", "my.dotted.bucket"])
@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9000"])
def test_signature_is_botocores(bucket: str, key: str, token: str | None, endpoint: str | None) -> None:
    mine = access(token=token, endpoint=endpoint)
    scheme, host, path = mine.address(bucket, key)
    request = AWSRequest("GET", f"{scheme}://{host}{path}")
    S3SigV4Auth(Credentials(mine.key_id, mine.secret, token), "s3", mine.region).add_auth(request)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    now = datetime.datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    assert mine.headers(host, path, now) == theirs | {"host": host}


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "us-gov-west-1", "cn-north-1"])
def test_address_is_botocores(region: str) -> None:
    config = Config(s3={"us_east_1_regional_endpoint": "regional"})
    client = boto3.client("s3", region, aws_access_key_id="a", aws_secret_access_key="b", config=config)
    urls = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        urls.append(request.url)
        return AWSResponse(request.url, 200, HTTPHeaders(), io.BytesIO())

    client.meta.events.register("before-send.s3.GetObject", answer)  # type: ignore[arg-type]  # one may answer
    for bucket in ("models", "my.dotted.bucket"):
        for key in KEYS:
            client.get_object(Bucket=bucket, Key=key)
            assert "{}://{}{}".format(*access(region).address(bucket, key)) == urls.pop()


@pytest.mark.parametrize(
    ("bucket", "region", "endpoint", "address"),
    [
        ("models", "eu-west-1", None, ("https", "models.s3.eu-west-1.amazonaws.com", "/a%20key")),
        ("my.models", "eu-west-1", None, ("https", "s3.eu-west-1.amazonaws.com", "/my.models/a%20key")),
        ("models", "cn-north-1", None, ("https", "models.s3.cn-north-1.amazonaws.com.cn", "/a%20key")),
        ("models", "eu-west-1", "http://minio:9000", ("http", "minio:9000", "/models/a%20key")),
        ("models", "eu-west-1", "https://host/s3/", ("https", "host", "/s3/models/a%20key")),
    ],
)
def test_address(bucket: str, region: str, endpoint: str | None, address: tuple[str, str, str]) -> None:
    assert access(region, endpoint).address(bucket, "a key") == address


@pytest.mark.usefixtures("environment")
def test_access_is_the_environments() -> None:
    assert Access.from_environment() == access()


def test_every_part_of_access_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_SESSION_TOKEN", "token")
    environment.delenv("AWS_REGION")
    environment.setenv("AWS_DEFAULT_REGION", "us-east-2")
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert Access.from_environment() == access("us-east-2", "http://127.0.0.1:9000", "token")
    environment.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9001")
    assert Access.from_environment() == access("us-east-2", "http://127.0.0.1:9001", "token")


@pytest.mark.parametrize("name", SETTINGS)
def test_without_keys_or_a_region_it_takes_boto3(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    assert Access.from_environment() is None
    environment.setenv(name, "")
    assert Access.from_environment() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ("AWS_PROFILE", "work"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_REGION", "us-iso-east-1"),
        ("AWS_REGION", "us-isob-east-1"),
        ("AWS_REGION", "eusc-de-east-1"),
        ("AWS_ENDPOINT_URL", "localhost:9000"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("https_proxy", "http://proxy:3128"),
    ],
)
def test_what_only_boto3_can_follow_is_left_to_it(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    assert Access.from_environment() is None


@pytest.mark.parametrize(
    "settings",
    [
        {"HTTP_PROXY": "http://proxy:3128"},
        {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".amazonaws.com"},
        {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"},
        {"HTTPS_PROXY": "http://proxy:3128", "AWS_ENDPOINT_URL": "http://minio:9000"},
        {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "minio", "AWS_ENDPOINT_URL": "http://minio:9000"},
    ],
)
def test_proxy_for_something_else_does_not_matter(environment: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        environment.setenv(name, value)
    assert Access.from_environment() is not None


def test_secrets_are_not_shown() -> None:
    shown = repr(access(token="a session token"))
    assert "AKIDEXAMPLE" in shown
    assert "hush" not in shown
    assert "token" not in shown


@pytest.mark.parametrize("key", [key for key in KEYS if not key.startswith(("/", "."))])
def test_object_arrives(moto: Moto, bucket: str, key: str) -> None:
    moto.s3().put_object(Bucket=bucket, Key=key, Body=b"content")
    mine = Access.from_environment()
    assert mine
    reader = SignedBucket(bucket, mine, soon())
    assert read(reader, key) == b"content"
    reader.close()


@pytest.mark.processes
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_objects_of_any_size_come_whole_over_one_connection(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    with serving({"/models/key": [whole(content[:size])]}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), soon())
        for _ in range(3):
            chunks = list(reader.get("key"))
            assert b"".join(chunks) == content[:size]
            assert all(len(chunk) == CHUNK for chunk in chunks[:-1])
        reader.close()
    assert len({request.port for request in server.seen}) == 1


@pytest.mark.processes
def test_object_without_a_length_comes_whole() -> None:
    with serving({"/models/key": [chunked(b"some ", b"content", bytes(CHUNK))]}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), soon())
        assert read(reader) == read(reader) == b"some content" + bytes(CHUNK)
        reader.close()
    assert len({request.port for request in server.seen}) == 1


@pytest.mark.processes
@pytest.mark.parametrize("content", [b"", b"content", bytes(CHUNK + 1)])
def test_connection_that_the_server_ends_is_opened_again(content: bytes) -> None:
    with serving({"/models/key": [last(content)]}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), soon())
        assert read(reader) == read(reader) == content
        reader.close()
    assert len({request.port for request in server.seen}) == 2


@pytest.mark.processes
def test_reader_that_stops_early_can_read_again() -> None:
    content = bytes(3 * CHUNK)
    for answer in (whole(content), last(content)):
        with serving({"/models/key": [answer]}) as server:
            reader = SignedBucket("models", access(endpoint=server.endpoint), soon())
            chunks = reader.get("key")
            assert next(chunks) == bytes(CHUNK)
            chunks.close()
            assert read(reader) == content
            reader.close()


@pytest.mark.processes
def test_reader_can_read_after_a_refusal_and_after_a_cut() -> None:
    answers = [refusal(404, "NoSuchKey"), cut(b"content", 3), hang_up, whole(b"content")]
    with serving({"/models/key": answers}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), soon())
        with pytest.raises(S3Error, match="NoSuchKey"):
            read(reader)
        with pytest.raises(ConnectionError, match="broke off after 3 of 7 bytes"):
            read(reader)
        with pytest.raises(ConnectionError, match="closed connection without response"):
            read(reader)
        assert read(reader) == b"content"
        reader.close()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("answer", "code", "status", "region"),
    [
        (refusal(404, "NoSuchKey"), "NoSuchKey", 404, None),
        (refusal(503, "SlowDown"), "SlowDown", 503, None),
        (refusal_of(502, b"<html>Bad Gateway</html>"), "502", 502, None),
        (refusal_of(403, b""), "403", 403, None),
        (refusal_of(500, b"\xff\xfe"), "500", 500, None),
        (
            refusal(301, "PermanentRedirect", {"x-amz-bucket-region": "us-east-2"}),
            "PermanentRedirect",
            301,
            "us-east-2",
        ),
        (
            refusal(400, "AuthorizationHeaderMalformed", more="<Region>us-east-2</Region>"),
            "AuthorizationHeaderMalformed",
            400,
            "us-east-2",
        ),
    ],
)
def test_refusal_tells_what_s3_told(answer: Answer, code: str, status: int, region: str | None) -> None:
    with serving({"/models/key": [answer]}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), soon())
        with pytest.raises(S3Error) as caught:
            read(reader)
    assert (caught.value.code, caught.value.status, caught.value.region) == (code, status, region)


@pytest.mark.processes
@pytest.mark.parametrize(
    "answer",
    [
        silence,
        trickle(bytes(10_000)),
        trickle(bytes(10_000), {"Connection": "close"}),
        trickling_head,
    ],
    ids=["silence", "trickle", "trickle over a connection for one request", "head that trickles"],
)
def test_deadline_ends_what_would_not_end(answer: Answer) -> None:
    with serving({"/models/key": [answer]}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), Deadline.after(0.5))
        started = time.monotonic()
        with pytest.raises((ConnectionError, TimeoutError), match=r"timed out|the time is up"):
            read(reader)
        assert time.monotonic() - started < 5


@pytest.mark.processes
def test_nothing_is_asked_for_after_the_deadline() -> None:
    with serving({"/models/key": [whole(b"content")]}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), Deadline.after(0))
        with pytest.raises(TimeoutError, match="the time is up"):
            read(reader)
    assert server.seen == []


@pytest.mark.processes
def test_deadline_counts_for_an_open_connection() -> None:
    with serving({"/models/key": [whole(b"content")]}) as server:
        reader = SignedBucket("models", access(endpoint=server.endpoint), Deadline.after(1))
        assert read(reader) == b"content"
        time.sleep(1)
        with pytest.raises(TimeoutError, match="the time is up"):
            read(reader)
    assert server.count("/models/key") == 1


@pytest.mark.parametrize(
    ("bucket", "endpoint"),
    [
        ("m" * 64, None),  # longer than a host's label can be
        ("s3://models", None),
        ("Röntgen", "http://127.0.0.1:9"),
        ("two words", "http://127.0.0.1:9"),
        ("models", "http://127.0.0.1:port"),
        ("models", "http://127.0.0.1:9"),
    ],
)
def test_bucket_that_cannot_be_asked_is_a_connection_error(bucket: str, endpoint: str | None) -> None:
    with pytest.raises(ConnectionError):
        read(SignedBucket(bucket, access(endpoint=endpoint), soon()))


@pytest.mark.processes
def test_server_is_known_by_the_bundle_of_certificates(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"/models/key": [whole(bytes(CHUNK)), last(bytes(CHUNK)), cut(b"content", 3)]}, certificate) as server:
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            read(SignedBucket("models", access(endpoint=server.endpoint), soon()))
        assert server.seen == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        reader = SignedBucket("models", access(endpoint=server.endpoint), soon())
        assert read(reader) == read(reader) == bytes(CHUNK)
        with pytest.raises(ConnectionError):
            read(reader)


@pytest.mark.processes
def test_certificate_that_does_not_verify_is_told_at_once(
    certificate: Certificate, environment: pytest.MonkeyPatch
) -> None:
    with serving({}, certificate) as server:
        environment.delenv("AWS_CA_BUNDLE", raising=False)
        environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
        started = time.monotonic()
        for setting in ("", "true"):  # read here, and by boto3
            environment.setenv("AWS_USE_DUALSTACK_ENDPOINT", setting)
            with pytest.raises(ConnectionError, match="certificate verify failed"):
                BucketReader("models", Deadline.after(60), StorageError).read("key", 100)
        assert time.monotonic() - started < 30  # of the 60 that trying again would take


@pytest.mark.processes
@pytest.mark.parametrize("bundle", ["nowhere.pem", "", "no.pem"], ids=["missing", "a folder", "no certificates"])
@pytest.mark.parametrize("dualstack", ["", "true"], ids=["read here", "read by boto3"])
def test_a_bundle_that_cannot_be_read_is_told_at_once(
    bundle: str, dualstack: str, tmp_path: Path, certificate: Certificate, environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no.pem").write_text("no certificates")
    with serving({}, certificate) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
        environment.setenv("AWS_CA_BUNDLE", str(tmp_path / bundle))
        environment.setenv("AWS_USE_DUALSTACK_ENDPOINT", dualstack)
        with pytest.raises(UnsentError):
            BucketReader("models", Deadline.after(600), StorageError).read("key", 100)
        with (
            pytest.raises(StorageError, match="correct AWS_CA_BUNDLE, or ca_bundle in AWS's configuration"),
            refusals_as(StorageError, "The object cannot be read"),
        ):
            BucketReader("models", Deadline.after(600), StorageError).read("key", 100)
        assert server.seen == []


@pytest.mark.processes
@pytest.mark.parametrize("setting", ["", "true"], ids=["read here", "read by boto3"])
def test_another_file_that_is_missing_is_no_bundle(
    setting: str, tmp_path: Path, certificate: Certificate, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("AWS_CA_BUNDLE", raising=False)
    environment.setenv("AWS_USE_DUALSTACK_ENDPOINT", setting)
    with serving({}, certificate) as server:
        for endpoint, advice in (
            (server.endpoint, "check the server's certificate"),
            ("https://127.0.0.1:9", "network"),
        ):
            environment.setenv("AWS_ENDPOINT_URL", endpoint)
            try:
                (tmp_path / "missing").read_text()
            except FileNotFoundError:  # which the error then has behind it
                with pytest.raises(StorageError, match=advice), refusals_as(StorageError, "The object cannot be read"):
                    BucketReader("models", Deadline.after(1), StorageError).read("key", 100)


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    path = tmp_path / "certificate.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server that stands for S3")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return Certificate(path)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["key_id", "token"])
def test_line_break_within_credentials_is_told_without_them(name: str) -> None:
    with serving({}) as server, pytest.raises(UnsentError, match="has a line break in it") as caught:
        read(
            SignedBucket(
                "models", dataclasses.replace(access(endpoint=server.endpoint), **{name: "hush\nhush"}), soon()
            )
        )
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_line_breaks_around_credentials_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret\n")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token\n")
    monkeypatch.setenv("AWS_REGION", "eu-west-1\n")
    access = Access.from_environment()
    assert access
    assert (access.key_id, access.secret, access.token, access.region) == ("key", "secret", "token", "eu-west-1")
