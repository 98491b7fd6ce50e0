"""The address of a server, as people write it."""

import pytest

from pneumonia.client.address import Address
from pneumonia.errors import ConfigurationError

HOST = "abc123.lambda-url.eu-central-1.on.aws"
FUNCTION = Address(f"https://{HOST}", "eu-central-1")


@pytest.mark.parametrize(
    "url",
    [
        f"https://{HOST}",
        f"https://{HOST}/",
        f"https://{HOST}/predict",
        f"https://{HOST}//predict/",
        f"https://{HOST}/predict/batch",
        f"HTTPS://{HOST.upper()}/PREDICT",
        f"http://{HOST}/",  # a Function URL takes nothing but https
        HOST,
        f"//{HOST}/",
        f"{HOST}/predict",
        f" https://{HOST}/\n",
    ],
)
def test_a_function_url_is_signed_for_its_region_however_it_is_written(url: str) -> None:
    assert Address.of(url) == FUNCTION


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000/predict", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST", "http://localhost"),
        ("[::1]:8000/", "http://[::1]:8000"),
        ("xrays.example.org", "https://xrays.example.org"),
        ("http://xrays.example.org:81/", "http://xrays.example.org:81"),
        ("https://example.org/hospital/xrays/", "https://example.org/hospital/xrays"),
        ("https://example.org/hospital/predict", "https://example.org/hospital"),
        ("https://example.org/predictions", "https://example.org/predictions"),
        ("https://example.org/zwei wege/ä%20b", "https://example.org/zwei%20wege/%C3%A4%20b"),
        ("https://röntgen.example.org", "https://xn--rntgen-wxa.example.org"),
        (f"https://{HOST}.example.org", f"https://{HOST}.example.org"),
        (f"https://example.org/{HOST}", f"https://example.org/{HOST}"),
    ],
)
def test_another_server_is_asked_without_a_signature(url: str, base: str) -> None:
    assert Address.of(url) == Address(base)


@pytest.mark.parametrize("url", ["https://xrays.example.org", "http://127.0.0.1:8000", "http://localhost"])
def test_a_region_has_requests_signed_wherever_they_go(url: str) -> None:
    assert Address.of(url, "eu-west-1") == Address(url, "eu-west-1")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "'' is not the address of a server: "),
        ("https://", "'https://' is not the address of a server: "),
        ("/predict", "'/predict' is not"),
        ("s3://bucket/xrays", "'s3://bucket/xrays' is not the address of a server: "),
        ("ftp://example.org", "'ftp://example.org' is not the address of a server: "),
        ("https://a b/", "'https://a b/' is not the address of a server: "),
        ("https://[::1", "'https://[::1' is not the address of a server (Invalid IPv6 URL): "),
        ("https://a..b/", "'https://a..b/' is not the address of a server ("),
        ("https://example.org:eighty", "'https://example.org:eighty' is not the address of a server ("),
        ("https://example.org:99999", "'https://example.org:99999' is not the address of a server (Port out of range "),
        (f"https://{HOST}/predict?explain=1", f"'https://{HOST}/predict?explain=1' has more than a host and a path: "),
        ("https://me:secret@example.org", "'https://me:secret@example.org' has more than a host and a path: "),
    ],
)
def test_what_is_no_address_is_told(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Address.of(url)
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("name it as https://HOST or http://127.0.0.1:8000.")


def test_a_signature_never_goes_over_an_open_line() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^http://xrays.example.org is not encrypted, .* use https with --sign"
    ):
        Address.of("http://xrays.example.org", "eu-west-1")


@pytest.mark.parametrize("region", ["", "eu-central", "eu-central1", "Frankfurt", "eu-central-1a"])
def test_what_is_no_region_is_told(region: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^'{region}' is not an AWS region: name one such as eu-central-1\.$"
    ):
        Address.of("https://xrays.example.org", region)
