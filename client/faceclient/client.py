"""The client, with one method for each endpoint of the API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast
from urllib.parse import quote

import requests

from faceclient.answers import (
    Detection,
    Embedding,
    Embeddings,
    Health,
    Insertion,
    JournalLine,
    Models,
    Person,
    Picture,
    SearchResult,
    Stats,
    TrashItem,
    Undone,
    Verification,
)

Image = str | Path | bytes | BinaryIO  # a path, the bytes of a file, or an open file

MAX_WAIT_SECONDS: Final = 60.0
# Statuses that are tried again: still being carried out, too many requests, not ready yet.
WAITED_FOR: Final = {409, 429, 503}
_SUFFIXES: Final = {b"\x89PNG": ".png", b"BM": ".bmp", b"II*\0": ".tiff", b"MM\0*": ".tiff"}

_File = tuple[str, tuple[str, bytes]]


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


class FaceClient:
    """A client of the API at `base_url`, for one thread at a time; usable as a context manager.

    `language` is the language of messages, such as `pt-BR`. `retries` is how often an answer that
    asks to wait is tried again; requests that would have a second effect are not repeated.
    """

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

    # The service

    def health(self) -> Health:
        return cast(Health, self._call("GET", "/health"))

    def models(self) -> Models:
        return cast(Models, self._call("GET", "/models"))

    def stats(self) -> Stats:
        return cast(Stats, self._call("GET", "/milvus/stats"))

    # Pictures

    def detect(self, image: Image, **options: Any) -> Detection:
        """Return every face, largest first. Options: `min_score`, `min_face_size`."""
        files = _files(image=[image])
        return cast(Detection, self._call("POST", "/detect", files=files, form=options))

    def embedding(self, image: Image, **options: Any) -> Embedding:
        """Return the embedding of the largest face.

        Options: `model`, `use_face_detection`, `require_face`.
        """
        files = _files(image=[image])
        return cast(Embedding, self._call("POST", "/embedding", files=files, form=options))

    def embeddings(self, images: Sequence[Image], **options: Any) -> Embeddings:
        """Return one result for each picture, in order. Raises only when every picture failed."""
        files = _files(images=images)
        return cast(Embeddings, self._call("POST", "/embeddings/batch", files=files, form=options))

    def verify(
        self,
        source: Image,
        target: Image | None = None,
        *,
        person_id: str | None = None,
        **options: Any,
    ) -> Verification:
        """Return whether `source` shows the same person as `target` or the enrolled person."""
        files = _files(source_image=[source], target_image=[] if target is None else [target])
        form = options | {"person_id": person_id}
        return cast(Verification, self._call("POST", "/verify", files=files, form=form))

    # The gallery

    def insert(
        self,
        person_id: str,
        images: Sequence[Image],
        *,
        image_paths: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Insertion:
        """Enrol pictures of a person, who is created when new. Safe to repeat with the same key."""
        form = options | {"person_id": person_id}
        return self._insert("/milvus/insert", images, image_paths, idempotency_key, form)

    def search(
        self,
        image: Image | None = None,
        *,
        embedding: Sequence[float] | None = None,
        **options: Any,
    ) -> SearchResult:
        """Return the most similar enrolled pictures.

        Options: `top_k`, `threshold`, `group_by_person`, `all_faces`, `model`.
        """
        files = _files(image=[] if image is None else [image])
        form = options | {"embedding": None if embedding is None else json.dumps(list(embedding))}
        return cast(SearchResult, self._call("POST", "/milvus/search", files=files, form=form))

    # Persons

    def persons(
        self, q: str = "", *, ordering: str = "person_id", page_size: int = 100
    ) -> Iterator[Person]:
        """Yield the persons whose id or name contains every word of `q`, page by page."""
        query = {"q": q, "ordering": ordering, "page_size": page_size}
        return cast(Iterator[Person], self._pages("/persons", query))

    def person(self, person_id: str) -> Person:
        return cast(Person, self._call("GET", _path(person_id)))

    def create_person(self, person_id: str, **details: Any) -> Person:
        """Create a person. Details: `name`, `notes`, `legal_basis`, `keep_until` ("2027-12-31")."""
        body = {"person_id": person_id, **details}
        return cast(Person, self._call("POST", "/persons", body=body))

    def change_person(self, person_id: str, **changes: Any) -> Person:
        """Change the given fields of a person.

        Changes: `new_id`, `name`, `notes`, `legal_basis`, `keep_until` (None: no end) and `cover`
        (a picture's id; None: the first).
        """
        body = {"person_id" if name == "new_id" else name: it for name, it in changes.items()}
        return cast(Person, self._call("PATCH", _path(person_id), body=body))

    def merge_persons(self, kept: str, merged: str) -> Person:
        """Move every picture of `merged` to `kept`, whom the id `merged` stands for since.

        The answer's `undo` is for `undo`.
        """
        body = {"person_id": merged}
        return cast(Person, self._call("POST", _path(kept, "/merge"), body=body))

    def delete_person(self, person_id: str, *, erase: bool = False) -> int:
        """Put the person into the trash, or erase them for good; return the number of pictures."""
        answer = self._call("DELETE", _path(person_id), query=_erase(erase))
        return int(answer["deleted_pictures"])

    def restore_person(self, person_id: str, *, new_id: str | None = None) -> Person:
        """Restore a deleted person, with another id when somebody else has theirs by now."""
        body = {} if new_id is None else {"person_id": new_id}
        return cast(Person, self._call("POST", _path(person_id, "/restore"), body=body))

    def pictures(self, person_id: str, *, page_size: int = 100) -> Iterator[Picture]:
        """Yield the person's pictures, newest first, page by page."""
        pages = self._pages(_path(person_id, "/images"), {"page_size": page_size})
        return cast(Iterator[Picture], pages)

    def add_pictures(
        self,
        person_id: str,
        images: Sequence[Image],
        *,
        image_paths: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Insertion:
        """Add pictures to an existing person; otherwise like `insert`."""
        path = _path(person_id, "/images")
        return self._insert(path, images, image_paths, idempotency_key, options)

    def picture(self, person_id: str, picture_id: int, *, thumbnail: bool = False) -> bytes:
        """Return the stored file, or a JPEG of at most 320 pixels a side."""
        query = {"size": "thumb"} if thumbnail else {}
        path = _path(person_id, f"/images/{picture_id}")
        return self._send("GET", path, params=query).content

    def move_picture(
        self, person_id: str, picture_id: int, to: str, *, create_person: bool = False
    ) -> Picture:
        """Move the picture to another person, for a picture that shows somebody else."""
        body = {"person_id": to, "create_person": create_person}
        path = _path(person_id, f"/images/{picture_id}")
        return cast(Picture, self._call("PATCH", path, body=body))

    def delete_picture(self, person_id: str, picture_id: int, *, erase: bool = False) -> int | None:
        """Put the picture into the trash, or erase it for good; return the item for `undo`."""
        path = _path(person_id, f"/images/{picture_id}")
        undo = self._call("DELETE", path, query=_erase(erase)).get("undo")
        return None if undo is None else int(undo)

    # The trash

    def trash(self, *, page_size: int = 100) -> Iterator[TrashItem]:
        """Yield what can be undone, newest first, page by page."""
        return cast(Iterator[TrashItem], self._pages("/trash", {"page_size": page_size}))

    def undo(self, item: int, *, new_id: str | None = None) -> Undone:
        """Take an act back: a deletion, a move, a merge, an import."""
        body = {} if new_id is None else {"person_id": new_id}
        return cast(Undone, self._call("POST", f"/trash/{item}/undo", body=body))

    def erase(self, item: int) -> None:
        """Erase for good what an item of the trash holds."""
        self._call("DELETE", f"/trash/{item}")

    # Journal

    def journal(
        self,
        *,
        person_id: str | None = None,
        who: str | None = None,
        action: str | None = None,
        since: str | None = None,
        page_size: int = 100,
    ) -> Iterator[JournalLine]:
        """Yield who did or saw what, newest first, page by page; for administrators.

        `who` is an account, or the name of a token or command; `since` is a time, as
        "2027-01-31T12:00:00Z".
        """
        given = {"person_id": person_id, "who": who, "action": action, "since": since}
        query = {name: value for name, value in given.items() if value is not None}
        pages = self._pages("/journal", query | {"page_size": page_size})
        return cast(Iterator[JournalLine], pages)

    # How

    def _insert(
        self,
        path: str,
        images: Sequence[Image],
        image_paths: Sequence[str] | None,
        key: str | None,
        form: dict[str, Any],
    ) -> Insertion:
        if image_paths is not None:
            form = form | {"image_paths": json.dumps(list(image_paths))}
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        files = _files(images=images)
        answer = self._call("POST", path, files=files, form=form, headers=headers, repeatable=True)
        return cast(Insertion, answer)

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        page = 1
        while page:
            answer = self._call("GET", path, query=query | {"page": page})
            yield from answer["results"]
            page = page + 1 if answer["next"] else 0

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
        form: dict[str, Any] | None = None,
        files: list[_File] | None = None,
        headers: dict[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> dict[str, Any]:
        if repeatable is None:  # a POST with pictures and without a key stores nothing
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


def _path(person_id: str, rest: str = "") -> str:
    return f"/persons/{quote(person_id, safe='')}{rest}"


def _erase(erase: bool) -> dict[str, str]:
    return {"erase": "true"} if erase else {}


def _fields(form: dict[str, Any]) -> dict[str, str]:
    """Return the form fields as text, without those that are None."""
    known = {name: value for name, value in form.items() if value is not None}
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in known.items()
    }


def _files(**images: Sequence[Image]) -> list[_File]:
    """Return the file parts, fully read, so that a repeated request can send them again."""
    return [(field, _read(image)) for field, items in images.items() for image in items]


def _read(image: Image) -> tuple[str, bytes]:
    if isinstance(image, bytes):
        suffix = next((it for start, it in _SUFFIXES.items() if image.startswith(start)), ".jpg")
        return f"image{suffix}", image
    if isinstance(image, str | Path):
        return Path(image).name, Path(image).read_bytes()
    name = getattr(image, "name", "")
    content = image.read()
    return (Path(name).name, content) if isinstance(name, str) and name else _read(content)
