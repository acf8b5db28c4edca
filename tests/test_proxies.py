"""The proxies of `deploy/`, as nginx and Caddy run them, in front of the server as it runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from tests.nginx_server import NAME, changed, make_certificate, nginx_command
from tests.recognition.milvus_server import free_port
from tests.test_door import SECONDS, listens, port_of, program
from tests.test_server import Served, migrated  # noqa: F401 (fixture)

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "a long pass phrase"


class Proxy(NamedTuple):
    http: int
    https: int
    certificate: Path

    def ask(self, method: str, path: str, **options) -> requests.Response:
        """As a program elsewhere: by the service's name, which is not in any DNS."""
        headers = {"Host": NAME} | options.pop("headers", {})
        url = f"https://127.0.0.1:{self.https}{path}"
        return requests.request(
            method, url, headers=headers, verify=str(self.certificate), allow_redirects=False, timeout=SECONDS, **options
        )  # fmt: skip


@pytest.fixture(scope="module")
def served(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:  # noqa: F811
    """A server that is set as docs/configuration.md says."""
    knobs = {
        "API_AUTH_REQUIRED": "1",
        "HTTPS": "1",
        "PROXIES": "1",
        "ALLOWED_HOSTS": NAME,
        "CSRF_TRUSTED_ORIGINS": f"https://{NAME}",
        "DJANGO_SUPERUSER_USERNAME": "boss",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    }
    folder = Path(shutil.copytree(migrated, tmp_path_factory.mktemp("proxied") / "data"))
    server = Served(folder, **knobs)
    yield server
    server.process.kill()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of cert.pem and key.pem."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder, program("openssl"))
    return folder


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(request, served, certificate: Path, tmp_path_factory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp(request.param)
    with running(request.param, folder, certificate, port_of(served)) as found:
        yield found


@contextmanager
def running(name: str, folder: Path, certificate: Path, server: int) -> Iterator[Proxy]:
    """A proxy in front of the server at this port; what it says is in `folder`, in files *.log."""
    make: Callable[..., list[str]] = {"nginx": nginx, "caddy": caddy}[name]
    found = Proxy(free_port(), free_port(), certificate / "cert.pem")
    words = make(folder, found, certificate, server)
    environment = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
    said = folder / "said.log"
    with said.open("wb") as output:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + SECONDS
        while not (listens(found.https) and listens(found.http)):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, "The proxy does not listen."
            time.sleep(0.05)
        yield found
    finally:
        process.terminate()
        process.wait(SECONDS)


def nginx(folder: Path, proxy: Proxy, certificate: Path, server: int) -> list[str]:
    return nginx_command(program("nginx"), folder, proxy.http, proxy.https, certificate, [server])


def caddy(folder: Path, proxy: Proxy, certificate: Path, server: int) -> list[str]:
    # The certificate of an authority cannot be had here; all else is as in the file.
    tls = f"tls {certificate}/cert.pem {certificate}/key.pem"
    site = changed(
        (ROOT / "deploy" / "caddy" / "Caddyfile").read_text(),
        (rf"^{NAME} \{{", f"{NAME} {{\n\t{tls}\n\tbind 127.0.0.1"),
        (r"127\.0\.0\.1:8000", f"127.0.0.1:{server}"),
    )
    ports = (
        f"http_port {proxy.http}\n\thttps_port {proxy.https}\n\tadmin off\n\tdefault_bind 127.0.0.1"
    )
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\t{ports}\n}}\n{site}")
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]


@pytest.fixture
def browser(proxy: Proxy) -> Callable[..., requests.Response]:
    """One that keeps its cookies, which are for HTTPS only, and comes from the service's own pages."""
    cookies = requests.cookies.RequestsCookieJar()
    own = {"Origin": f"https://{NAME}", "Referer": f"https://{NAME}/"}

    def ask(method: str, path: str, headers: dict[str, str] | None = None, **options):
        pairs = {each.name: each.value for each in cookies}
        answer = proxy.ask(method, path, headers=own | (headers or {}), cookies=pairs, **options)
        cookies.update(answer.cookies)
        return answer

    ask.cookies = cookies
    return ask


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_no_log_keeps_the_address_of_what_failed(name: str, certificate: Path, tmp_path) -> None:
    with running(name, tmp_path, certificate, free_port()) as proxy:  # nothing listens there
        assert proxy.ask("GET", "/api/persons/123.456.789-09").status_code == 502
    written = [path for path in tmp_path.glob("*.log") if "123.456" in path.read_text()]
    assert not written, written[0].read_text()


def test_http_is_sent_to_https(proxy: Proxy) -> None:
    answer = requests.get(
        f"http://127.0.0.1:{proxy.http}/people/?q=a",
        headers={"Host": NAME},
        allow_redirects=False,
        timeout=SECONDS,
    )
    assert answer.status_code in (301, 308)
    assert re.fullmatch(rf"https://{NAME}(:\d+)?/people/\?q=a", answer.headers["Location"])


def test_probes_and_pages_answer_and_strangers_log_in_first(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/livez").json() == {"status": "alive"}
    assert proxy.ask("GET", "/api/models").status_code == 401
    page = proxy.ask("GET", "/")
    assert (page.status_code, page.headers["Location"]) == (302, "/login?next=/")


def test_addresses_have_the_port_that_the_client_named(proxy: Proxy) -> None:
    answer = proxy.ask("GET", "/api/", headers={"Host": f"{NAME}:8443"})
    assert answer.json()["docs"] == f"https://{NAME}:8443/api/docs"


def test_a_person_logs_in_by_a_form(browser) -> None:
    browser("GET", "/login")
    form = {
        "username": "boss",
        "password": PASSWORD,
        "csrfmiddlewaretoken": browser.cookies["csrftoken"],
    }
    assert browser("POST", "/login", data=form).status_code == 302
    assert all(cookie.secure for cookie in browser.cookies)
    assert browser("GET", "/").status_code == 200


def test_the_address_is_the_clients_whatever_it_says(proxy: Proxy, served: Served) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "X-Request-ID": "forged-by-a-client",
    }
    answer = proxy.ask("GET", "/api/models", headers=forged)
    assert answer.headers["X-Request-ID"] != "forged-by-a-client"
    mark = f"[{answer.headers['X-Request-ID']}] faceproject.access: 127.0.0.1 - GET /api/models 401"
    deadline = time.monotonic() + SECONDS
    while mark not in served.output:
        assert time.monotonic() < deadline, served.output
        time.sleep(0.05)
    assert "203.0.113.9" not in served.output


def test_what_is_too_large_is_told_by_the_service(proxy: Proxy) -> None:
    """And not by a page of the proxy's, for all that the service reads to the end."""
    answer = proxy.ask("POST", "/api/embedding", data=b"x" * (70 * 1024 * 1024))
    assert answer.headers["Content-Type"].startswith("application/json")
    assert (answer.status_code, answer.json()["error"]) == (401, "not_authenticated")
