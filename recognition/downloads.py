"""Download published checkpoints into the weights folder. Files are verified before they replace
others."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from recognition.exceptions import RecognitionError, WeightsUnavailable
from recognition.networks import FaceNetwork, build
from recognition.networks.weights import file_hash

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 64 * 1024  # at most this much is lost when a connection breaks
CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 30  # timeout between two received bytes
ATTEMPTS: Final = 4
MAX_BYTES: Final = 2 * 1024**3
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

Progress = Callable[[int, int | None], None]  # bytes received, bytes in total (None: unknown)


def _ignore(done: int, total: int | None) -> None:
    """Show no progress."""


class DownloadError(RecognitionError):
    """The checkpoint could not be downloaded or is not the expected one; nothing was replaced."""

    code = "download_failed"
    status = 503


def install_network(
    network: FaceNetwork, url: str, folder: Path, *, sha256: str, progress: Progress = _ignore
) -> tuple[Path, str]:
    """Install a checkpoint as the network's `.ckpt`; return its path and SHA-256.

    It replaces the old file only after all its tensors were loaded. Raise `DownloadError`.
    """

    def check(partial: Path) -> None:
        try:
            build(network, partial)
        except WeightsUnavailable as error:
            raise DownloadError(
                _(
                    "The file downloaded does not hold the model '%(name)s' (a web page instead of a "
                    "checkpoint, another network, or a damaged file). It was thrown away; the weights "
                    "in place are untouched. Check the address and try again."
                )
                % {"name": network.name}
            ) from error

    target = folder / f"{network.weights_stem}.ckpt"
    return install(url, target, sha256=sha256, check=check, progress=progress)


def install(
    url: str,
    target: Path,
    *,
    sha256: str,
    check: Callable[[Path], None] = lambda partial: None,
    progress: Progress = _ignore,
) -> tuple[Path, str]:
    """Download `url` to `target`; return the path and the SHA-256 of the file.

    An interrupted download continues where it stopped, also in a later run. The old file is
    replaced only after the hash matched and `check` raised nothing; on any failure it stays. Raise
    `DownloadError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.stem}.{_short_hash(url)}.part")
    with _held(partial):
        download(url, partial, progress)
        found = file_hash(partial)
        if found != sha256.lower():
            partial.unlink()
            raise DownloadError(
                _(
                    "The file downloaded has SHA-256 %(found)s, and %(expected)s was expected. It was "
                    "thrown away; the weights in place are untouched. Try again; if it stays, the "
                    "publisher's file has changed: look at it before you pin the new hash with --sha256."
                )
                % {"found": found, "expected": sha256.lower()}
            )
        try:
            check(partial)
        except DownloadError:
            partial.unlink()
            raise
        partial.replace(target)
    return target, found


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Keep other commands from writing the same file. Raise `DownloadError` while one does."""
    with partial.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(
                _("Another command is downloading this file. Wait until it has ended.")
            ) from error
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                if not partial.stat().st_size:
                    partial.unlink()


def download(url: str, partial: Path, progress: Progress) -> None:
    """Download `url` into `partial`, continuing what is there, with several attempts.

    Only HTTPS is allowed, also for redirects; plain HTTP only to this machine. Raise
    `DownloadError`.
    """
    import requests

    for attempt in range(1, ATTEMPTS + 1):
        try:
            if _fetch(url, partial, progress):
                return
            problem: object = _("the connection ended before the whole file had come")
        except requests.RequestException as error:
            if (response := error.response) is not None and 400 <= response.status_code < 500:
                raise DownloadError(
                    _(
                        "The server answered %(status)d to %(url)s. Check the address, or give "
                        "another with --url."
                    )
                    % {"status": response.status_code, "url": url}
                ) from error
            problem = type(error).__name__
        logger.warning("Download of %s, attempt %d of %d: %s", url, attempt, ATTEMPTS, problem)
    raise DownloadError(
        _(
            "%(url)s could not be downloaded in %(attempts)d attempts; the last ended with: "
            "%(problem)s. What came is kept: run the command again to go on, or download the file "
            "by other means and put it into the weights folder."
        )
        % {"url": url, "attempts": ATTEMPTS, "problem": problem}
    )


def _fetch(url: str, partial: Path, progress: Progress) -> bool:
    """Make one attempt; return whether the file is complete."""
    import requests

    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    session = requests.Session()
    session.mount("http://", _https_only()())
    with (
        session,
        session.get(
            url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)
        ) as response,
    ):
        if response.status_code == 416:  # the file is complete, or it became shorter on the server
            if _total(response, 0) == have:
                return True
            os.truncate(partial, 0)
            return False
        response.raise_for_status()
        start = have if response.status_code == 206 else 0
        total = _total(response, start)
        if total and total > MAX_BYTES:
            raise DownloadError(
                _("%(url)s has %(size)d bytes; a checkpoint has at most %(limit)d.")
                % {"url": url, "size": total, "limit": MAX_BYTES}
            )
        with partial.open("ab" if start else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                start += len(chunk)
                progress(start, total)
                if start > MAX_BYTES:
                    raise DownloadError(
                        _("%(url)s does not end; a checkpoint has at most %(limit)d bytes.")
                        % {"url": url, "limit": MAX_BYTES}
                    )
    return total is None or start == total


def _https_only() -> type[HTTPAdapter]:
    """Return an adapter that rejects plain HTTP, also after redirects."""
    from requests.adapters import HTTPAdapter

    class HttpsOnly(HTTPAdapter):
        def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
            if urlsplit(request.url or "").hostname not in LOOPBACK:
                raise DownloadError(
                    _(
                        "%(url)s is not HTTPS: anybody on the way could exchange the file. Give an "
                        "address that begins with https://."
                    )
                    % {"url": request.url}
                )
            return super().send(request, *args, **options)

    return HttpsOnly


def _total(response: Response, start: int) -> int | None:
    """Return the size of the whole file in bytes, as the server states it, or None."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    if whole.isdigit():
        return int(whole)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
