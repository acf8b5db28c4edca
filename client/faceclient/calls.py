"""How calls are sent: errors, retries, pages, files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast
from urllib.parse import parse_qs, urlsplit

import requests

Image = str | Path | bytes | BinaryIO  # a path, the bytes of a file, or an open file

MAX_WAIT_SECONDS: Final = 60.0
# Statuses that are tried again: still being carried out, too many requests, not ready yet.
WAITED_FOR: Final = {409, 429, 503}
_NAMES: Final = {  # of what is given without one
    b"\x89PNG": "image.png",
    b"BM": "image.bmp",
    b"II*\0": "image.tiff",
    b"MM\0*": "image.tiff",
    b"%PDF": "document.pdf",
    b"PK": "archive.zip",
}

File = tuple[str, tuple[str, bytes]]


class FaceApiError(Exception):
    """An error answer. `code` is the same in every language, `message` is translated."""

    def __init__(self, response: requests.Response) -> None:
        try:
            body = response.json()
        except ValueError:
            body = {}
        self.body: dict[str, Any] = body if isinstance(body, dict) else {}
        self.status: int = response.status_code
        self.code: str = self.body.get("error", "unreadable_answer")
        self.message: str = self.body.get("message") or f"HTTP {self.status} {response.reason}"
        self.fields: dict[str, list[str]] = self.body.get("fields", {})
        self.request_id: str = response.headers.get("X-Request-ID", "")
        super().__init__(f"{self.message} [{self.status} {self.code}, request {self.request_id}]")


class ApiCalls:
    """What `FaceClient` sends its calls by."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        token: str | None = None,
        *,
        language: str = "en",
        timeout: float = 60.0,
        retries: int = 2,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.retries = retries
        self.session = requests.Session()
        self.session.headers.update({"Accept": "application/json", "Accept-Language": language})
        if token:
            self.session.headers["Authorization"] = f"Token {token}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.session.close()

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield all of a list, each entry once, also while it changes."""
        after = ""
        while True:
            answer = self._call("GET", path, query=query | {"after": after})
            yield from answer["results"]
            if not answer["next"]:
                return
            (after,) = parse_qs(urlsplit(answer["next"]).query)["after"]

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        form: dict[str, Any] | None = None,
        files: list[File] | None = None,
        headers: dict[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> dict[str, Any]:
        if repeatable is None:  # what is put off before its pictures are read stored nothing
            repeatable = method == "GET" or files is not None
        options = {"params": query, "json": body, "headers": headers}
        if files is not None:
            options |= {"files": files, "data": _fields(form or {})}
        response = self._send(method, path, repeatable=repeatable, **options)
        return cast(dict[str, Any], response.json())

    def _send(
        self, method: str, path: str, *, repeatable: bool = True, **options: Any
    ) -> requests.Response:
        left = self.retries
        while True:
            url = f"{self.base_url}/api{path}"
            response = self.session.request(method, url, timeout=self.timeout, **options)
            if response.ok:
                return response
            wait = _seconds_to_wait(response)
            # 429 means that nothing was done, so repeating is always safe.
            if wait is None or not left or not (repeatable or response.status_code == 429):
                raise FaceApiError(response)
            left -= 1
            time.sleep(wait)


def _seconds_to_wait(response: requests.Response) -> float | None:
    after = response.headers.get("Retry-After", "")
    if response.status_code not in WAITED_FOR or not after.isdigit():
        return None
    return float(after) if float(after) <= MAX_WAIT_SECONDS else None


def _fields(form: dict[str, Any]) -> dict[str, str | list[str]]:
    """Return the form fields as text, without those that are None; a list is a repeated field."""
    return {
        name: [_text(item) for item in value] if isinstance(value, list | tuple) else _text(value)
        for name, value in form.items()
        if value is not None
    }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def files_of(**images: Image | Iterable[Image]) -> list[File]:
    """Return the file parts, fully read, so that a repeated request can send them again."""
    return [(field, _read(image)) for field, items in images.items() for image in _each(items)]


def _each(images: Image | Iterable[Image]) -> Iterable[Image]:
    is_one = isinstance(images, str | Path | bytes) or hasattr(images, "read")
    return [cast(Image, images)] if is_one else cast(Iterable[Image], images)


def _read(image: Image) -> tuple[str, bytes]:
    if isinstance(image, bytes):
        names = (name for start, name in _NAMES.items() if image.startswith(start))
        return next(names, "image.jpg"), image
    if isinstance(image, str | Path):
        return Path(image).name, Path(image).read_bytes()
    name = getattr(image, "name", "")
    content = image.read()
    return (Path(name).name, content) if isinstance(name, str) and name else _read(content)
