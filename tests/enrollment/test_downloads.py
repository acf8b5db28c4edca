"""Pictures are fetched from the listed hosts alone, in bounded time and size, whole or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from enrollment.conf import hosts
from enrollment.imports import NotFetched, downloads, fetch_picture
from tests.picture_host import PICTURE, picture_host


@pytest.fixture(scope="module")
def host():
    with picture_host() as host:
        yield host


@pytest.fixture(autouse=True)
def _listed(settings, host, monkeypatch) -> None:
    host.asked.clear()
    settings.IMPORT_HOSTS = hosts(host.url)
    settings.RECOGNITION = {**settings.RECOGNITION, "MAX_REQUEST_BYTES": 1024 * 1024}
    monkeypatch.setattr(downloads, "TOTAL_SECONDS", 5.0)


def refused(address: str, folder) -> str:
    """Return why nothing is fetched, and see that nothing is left of it."""
    with pytest.raises(NotFetched) as caught:
        fetch_picture(address, folder / "1.jpg")
    assert list(folder.iterdir()) == []
    return str(caught.value)


def test_a_picture_of_a_listed_host_is_fetched(host, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("netrc", "/nowhere")
    fetch_picture(f"{host.url}/redirect?to=/a.jpg#part", tmp_path / "1.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["1.jpg"]
    assert (tmp_path / "1.jpg").read_bytes() == PICTURE
    assert host.paths == ["/redirect?to=/a.jpg", "/a.jpg"]
    for _path, headers in host.asked:
        assert headers.keys() == {"Host", "User-Agent", "Accept-Encoding"}
        assert headers["Host"] == host.url.partition("//")[2]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://other.example/a.jpg", "not fetched from http://other.example. Have an admin"),
        ("https://{host}/a.jpg", "not fetched from https://localhost:"),
        ("http://localhost/a.jpg", "not fetched from http://localhost."),
        ("http://127.0.0.1:{port}/a.jpg", "not fetched from http://127.0.0.1:"),
        ("ftp://{host}/a.jpg", "not fetched from ftp://localhost."),
        ("file:///etc/passwd", "not fetched from file://."),
        ("http://ana:secret@{host}/a.jpg", "holds a name or a password"),
        ("http://[::1/a.jpg", "is no web address"),
        ("http://{host}/redirect?to=http://other.example/a.jpg", "http://other.example."),
        ("http://{host}/redirect?to=//169.254.169.254/", "http://169.254.169.254."),
        ("http://{host}/loop", "leads on and on"),
        ("http://{host}/none.jpg", "answered 404"),
        ("http://{host}/declared", "larger than the 1 MB that the administrator allows"),
        ("http://{host}/endless", "larger than the 1 MB that the administrator allows"),
        ("http://{host}/broken", "broke off"),
    ],
)
def test_what_is_not_fetched_is_told(host, tmp_path, address, told):
    netloc = host.url.partition("//")[2]
    address = address.format(host=netloc, port=netloc.partition(":")[2])
    reason = refused(address, tmp_path)
    assert told in reason and "secret" not in reason


def test_nothing_is_fetched_unless_a_host_is_set(host, tmp_path, settings):
    settings.IMPORT_HOSTS = ()
    assert "name the host in IMPORT_HOSTS" in refused(f"{host.url}/a.jpg", tmp_path)
    assert not host.asked


def test_a_bare_name_is_no_way_into_a_private_network(host, tmp_path, settings):
    bare = host.url.partition("//")[2]
    settings.IMPORT_HOSTS = hosts(bare)
    reason = refused(f"https://{bare}/a.jpg", tmp_path)
    assert "private network" in reason and f"IMPORT_HOSTS: https://{bare}" in reason
    assert not host.asked


@pytest.mark.parametrize("path", ["drip", "headers"])
def test_a_host_that_never_ends_is_left(host, tmp_path, monkeypatch, path):
    monkeypatch.setattr(downloads, "TOTAL_SECONDS", 0.3)
    assert "in time" in refused(f"{host.url}/{path}", tmp_path)


def test_the_certificate_is_that_of_the_name(tmp_path, settings, monkeypatch):
    certificate = tmp_path / "host.pem"
    certificate.write_bytes(self_signed("localhost"))
    (folder := tmp_path / "job").mkdir()
    with picture_host(certificate) as host:
        settings.IMPORT_HOSTS = hosts(f"{host.url}, {host.url.replace('localhost', '127.0.0.1')}")
        assert "is not valid" in refused(f"{host.url}/a.jpg", folder)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        address = host.url.replace("localhost", "127.0.0.1")
        assert "is not valid" in refused(f"{address}/a.jpg", folder)
        fetch_picture(f"{host.url}/a.jpg", folder / "1.jpg")
    assert (folder / "1.jpg").read_bytes() == PICTURE and len(host.asked) == 1


def self_signed(name: str) -> bytes:
    """Return a key and its certificate for this name, as PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    names = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    built = x509.CertificateBuilder(names, names, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    written = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return written + built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "entry", ["ftp://a", "a/b", "https://", "https://u@a", "http://a?x", "a:99999", "a b", "*"]
)
def test_what_is_no_host_is_refused(entry):
    with pytest.raises(ValueError):  # noqa: PT011 (that of the setting's parser)
        hosts(f"good.example,{entry}")
    assert hosts(" a.example , http://10.0.0.5:8080/ ") == ("a.example", "http://10.0.0.5:8080")
