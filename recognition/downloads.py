"""Brings a published checkpoint into the weights folder: whole, verified, or not at all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from recognition.exceptions import RecognitionError, WeightsUnavailable
from recognition.networks import FaceNetwork, build

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

logger = logging.getLogger(__name__)

CHUNK_BYTES: Final = 64 * 1024  # what a cut can cost
CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 30  # without a byte
ATTEMPTS: Final = 4
MAX_BYTES: Final = 2 * 1024**3
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all (None: not said)


def _ignore(done: int, total: int | None) -> None:
    """Shows nothing."""


class DownloadError(RecognitionError):
    """The checkpoint could not be fetched or is not what was expected; nothing was replaced."""

    code = "download_failed"
    status = 503


def install_network(
    network: FaceNetwork, url: str, folder: Path, *, sha256: str = "", progress: Progress = _ignore
) -> tuple[Path, str]:
    """Puts a checkpoint in place as the network's `.ckpt`; returns its path and SHA-256.

    It replaces the old file only after every tensor was loaded. Raises `DownloadError`.
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
    sha256: str = "",
    check: Callable[[Path], None] = lambda partial: None,
    progress: Progress = _ignore,
) -> tuple[Path, str]:
    """Downloads `url` to `target`; returns the path and the file's SHA-256.

    A download that broke off goes on where it stopped, also in a later run. The file replaces the
    old one only after its hash was compared and `check` had nothing against it; on any failure the
    old file stays. Raises `DownloadError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.stem}.{_short_hash(url)}.part")
    download(url, partial, progress)
    found = _file_hash(partial)
    if sha256 and found != sha256.lower():
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


def download(url: str, partial: Path, progress: Progress) -> None:
    """Fetches `url` into `partial`, going on from what is there, trying a few times.

    Only over HTTPS, wherever it is redirected to; plain HTTP from this machine alone.
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
    """One attempt; whether the file is whole afterwards."""
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
        if response.status_code == 416:  # nothing after what we have, or it has become shorter
            if _total(response, 0) == have:
                return True
            partial.unlink()
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
    """What answers plain HTTP in a session: no, also where a server redirects to it."""
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
    """How long the whole file is, as the server says."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2]
    if whole.isdigit():
        return int(whole)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
