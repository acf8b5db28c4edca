"""Fetch pictures from the web, from the hosts alone that the administrator listed in IMPORT_HOSTS.

The list is the guard: whoever may import makes the server ask these hosts and no others, redirects
included. A host that is listed by its bare name must be in the public internet: one whose name leads into
a private network is not asked. One that is listed with its scheme, or by its address, is the very
server that the administrator means, wherever it is. No proxy, cookie or password is used.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin

from django.conf import settings
from django.db.models import QuerySet
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from enrollment.enrolling import job_folder
from enrollment.imports.found_files import FileStatus, too_large
from enrollment.imports.staging import file_of
from enrollment.models import ImportFile, ImportJob
from recognition.conf import get_settings
from recognition.exceptions import RecognitionError
from recognition.lookahead import in_order
from recognition.private_file import whole_file
from recognition.sentences import gettext as _

SECONDS: Final = 10.0  # to connect, and between two received pieces
TOTAL_SECONDS: Final = 30.0  # for a picture, redirects included
MOST_REDIRECTS: Final = 5
_PORTS: Final = {"https": 443, "http": 80}
_CHUNK: Final = 64 * 1024
_HEADERS: Final = {"User-Agent": "face-recognition-import", "Accept-Encoding": "identity"}
_AHEAD: Final = 4  # pictures begun before their turn
MOST_BYTES: Final = 2 * 1024**3  # of one import, as a ZIP unpacks


class NotFetched(RecognitionError):
    """The picture at the address was not fetched; the message says why and what to do."""

    code = "not_fetched"
    status = 502


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def fetch_picture(address: str, target: Path) -> None:
    """Write what is at the address to `target`, all of it or nothing. Raise `NotFetched`.

    It is at most as large as an uploaded picture. What it is, whoever decodes it finds out.
    """
    with whole_file(target) as file:
        for chunk in _content(address):
            file.write(chunk)


def _content(address: str) -> Iterator[bytes]:
    deadline = time.monotonic() + TOTAL_SECONDS
    host = ""
    try:
        for _hop in range(MOST_REDIRECTS + 1):
            url = parse_url(address)
            origin, may_be_private = _listed(url)
            host = origin.host
            with _answered(url, origin, may_be_private, deadline) as response:
                location = response.get_redirect_location()
                if not location:
                    yield from _body(response, host)
                    if time.monotonic() >= deadline:  # it may have been cut off
                        raise TimeoutError
                    return
                address = urljoin(url.url, location)
    except (OSError, HTTPException, HTTPError, ValueError) as error:
        raise NotFetched(_why(error, host, deadline)) from error
    raise NotFetched(_("The address leads on and on to others. Give the picture's own."))


def _listed(url: Url) -> tuple[_Origin, bool]:
    """Return where the address is, and whether it may be in a private network. Raise `NotFetched`."""
    if not settings.IMPORT_HOSTS:
        raise NotFetched(
            _(
                "The picture is an address, and no hosts are set from which pictures are fetched. "
                "Have an administrator name the host in IMPORT_HOSTS, or put the file into the ZIP and "
                "its path into the table."
            )
        )
    if url.auth:
        raise NotFetched(_("The address holds a name or a password. Give it without."))
    listed = dict(map(_read, settings.IMPORT_HOSTS))
    origin = _origin(url) if url.scheme in _PORTS and url.host else None
    if origin not in listed:
        message = _(
            "Pictures are not fetched from %(origin)s. Have an administrator add it to IMPORT_HOSTS, or "
            "put the file into the ZIP and its path into the table."
        )
        raise NotFetched(message % {"origin": origin or f"{url.scheme or ''}://{url.host or ''}"})
    return origin, listed[origin]


def _origin(url: Url) -> _Origin:
    scheme = url.scheme or "https"
    return _Origin(scheme, url.host or "", url.port or _PORTS[scheme])


def _read(entry: str) -> tuple[_Origin, bool]:
    has_scheme = "://" in entry
    origin = _origin(parse_url(entry if has_scheme else f"https://{entry}"))
    return origin, has_scheme or _address(origin.host) is not None


def _address(host: str) -> IPv6Address | None:
    """Return the address that a host is written as, IPv4 as IPv6, None for a name."""
    with suppress(ValueError):
        found = ip_address(host.strip("[]").partition("%")[0])
        return found if isinstance(found, IPv6Address) else IPv6Address(f"::ffff:{found}")
    return None


def _is_public(host: str) -> bool:
    address = _address(host)
    if address is None:
        return False
    found = address.ipv4_mapped or address.sixtofour or address
    return found.is_global and not found.is_multicast


@contextmanager
def _answered(
    url: Url, origin: _Origin, may_be_private: bool, deadline: float
) -> Iterator[BaseHTTPResponse]:
    """Ask for the address; what the host sends ends at the deadline."""
    connection = _connected(origin, may_be_private, deadline)
    # Each piece may come in time and the whole never: a host may send its headers byte by byte.
    timer = threading.Timer(deadline - time.monotonic(), _cut_off, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        headers = _HEADERS | {"Host": url.netloc or ""}
        target = url.request_uri
        connection.request(
            "GET", target, headers=headers, preload_content=False, decode_content=False
        )
        yield connection.getresponse()
    finally:
        timer.cancel()
        connection.close()


def _connected(origin: _Origin, may_be_private: bool, deadline: float) -> HTTPConnection:
    """Connect to the address that was looked at: a second look-up could tell another."""
    found = socket.getaddrinfo(origin.host.strip("[]"), origin.port, type=socket.SOCK_STREAM)
    addresses = [str(each[4][0]) for each in found]
    if not may_be_private:
        addresses = [each for each in addresses if _is_public(each)]
        if not addresses:
            message = _(
                "The name of %(host)s leads into a private network. If that is meant, have an "
                "administrator write it with its scheme in IMPORT_HOSTS: %(origin)s."
            )
            raise NotFetched(message % {"host": origin.host, "origin": origin})
    failed: Exception = OSError()
    for address in dict.fromkeys(addresses):
        connection = _connection(origin, address)
        try:
            connection.timeout = min(SECONDS, max(0.1, deadline - time.monotonic()))
            connection.connect()
            return connection
        except (OSError, HTTPError) as error:
            connection.close()
            failed = error
        if time.monotonic() >= deadline:
            break
    raise failed


def _connection(origin: _Origin, address: str) -> HTTPConnection:
    if origin.scheme == "http":
        return HTTPConnection(address, origin.port)
    return HTTPSConnection(address, origin.port, server_hostname=origin.host.strip("[]"))


def _cut_off(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _body(response: BaseHTTPResponse, host: str) -> Iterator[bytes]:
    """Yield what was sent. Raise `NotFetched` unless it is an answer of at most the allowed size."""
    if response.status != 200:
        message = _("%(host)s answered %(status)d. Check the address in the table.")
        raise NotFetched(message % {"host": host, "status": response.status})
    limit = get_settings().max_request_bytes
    size = 0
    length = response.headers.get("Content-Length", "")
    for chunk in [b""] if length.isdecimal() and int(length) > limit else response.stream(_CHUNK):
        size += len(chunk)
        if size > limit or not chunk:
            raise NotFetched(too_large())
        yield chunk


def _why(error: Exception, host: str, deadline: float) -> str:
    if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
        text = _("%(host)s did not send the picture in time. Import the row again later.")
    elif isinstance(error, socket.gaierror):
        text = _("The host %(host)s is not known. Check the address in the table.")
    elif isinstance(error, ssl.SSLCertVerificationError):
        text = _("The certificate of %(host)s is not valid, so nothing was fetched from there.")
    elif isinstance(error, ValueError) and not host:
        return _("The picture is no web address. Check the table.")
    else:
        text = _("%(host)s cannot be reached, or broke off. Import the row again later.")
    return text % {"host": host}


def each_fetched(job: ImportJob) -> Generator[ImportFile]:
    """Fetch what has an address, and yield each row after it was noted whether its file is there.

    A file is there whole or not at all, so what an interrupted import fetched is not fetched again.
    """
    rows = list(_left(job))
    for row in rows:
        row.job = job
    held = sum(path.stat().st_size for path in job_folder(job).iterdir()) if rows else 0
    for row, reason in zip(rows, in_order(_fetch, rows, _AHEAD), strict=True):
        if reason:
            _refuse(_left(job).filter(pk=row.pk), reason)
        elif _left(job).filter(pk=row.pk).update(is_kept=True, address=""):
            held += file_of(row).stat().st_size
        else:  # somebody erased the person, or cancelled the import, meanwhile
            file_of(row).unlink(missing_ok=True)
        if held > MOST_BYTES:
            message = _("The pictures of one import take at most %(limit)d MB. Split it.")
            _refuse(_left(job), message % {"limit": MOST_BYTES >> 20})
            return
        yield row


def _left(job: ImportJob) -> QuerySet[ImportFile]:
    return job.files.exclude(address="").exclude(step=ImportFile.Step.DONE)


def _fetch(row: ImportFile) -> str:
    """Fetch the picture unless it is there; return why that failed, or nothing."""
    target = file_of(row)
    try:
        if not target.exists():
            fetch_picture(row.address, target)
    except FileNotFoundError:  # the import was cancelled, and its folder is gone
        return ""
    except NotFetched as error:
        return error.message
    return ""


def _refuse(rows: QuerySet[ImportFile], reason: str) -> None:
    values: dict[str, Any] = {"step": ImportFile.Step.DONE, "rank": ImportFile.Rank.REFUSED}
    values |= {"status": FileStatus.REFUSED, "code": NotFetched.code, "reason": reason}
    rows.update(address="", **values)
