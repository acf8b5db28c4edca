"""The client, with one method for each endpoint of the API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast
from urllib.parse import quote

from faceclient.answers import (
    Card,
    Consent,
    Detection,
    Embedding,
    Embeddings,
    Feedback,
    Health,
    Insertion,
    Job,
    JobFile,
    JournalLine,
    Models,
    Person,
    Picture,
    Receipt,
    SearchResult,
    Settled,
    Stats,
    TrashItem,
    Undone,
    Verification,
)
from faceclient.calls import ApiCalls, Image, files_of


class FaceClient(ApiCalls):
    """A client of the API at `base_url`, for one thread at a time; usable as a context manager.

    `language` is the language of messages, such as `pt-BR`. `retries` is how often an answer that
    asks to wait is tried again; requests that would have a second effect are not repeated.
    """

    # The service

    def health(self) -> Health:
        return cast(Health, self._call("GET", "/health"))

    def models(self) -> Models:
        return cast(Models, self._call("GET", "/models"))

    def stats(self) -> Stats:
        return cast(Stats, self._call("GET", "/milvus/stats"))

    # Pictures

    def detect(self, image: Image, **options: Any) -> Detection:
        """Return every face, largest first.

        Options: `min_score`, `min_face_size`, `check_liveness`.
        """
        files = files_of(image=[image])
        return cast(Detection, self._call("POST", "/detect", files=files, form=options))

    def embedding(self, image: Image, **options: Any) -> Embedding:
        """Return the embedding of the largest face.

        Options: `model`, `use_face_detection`, `require_face`, `check_liveness`.
        """
        files = files_of(image=[image])
        return cast(Embedding, self._call("POST", "/embedding", files=files, form=options))

    def embeddings(self, images: Image | Iterable[Image], **options: Any) -> Embeddings:
        """Return one result for each picture, in order. Raises only when every picture failed."""
        files = files_of(images=images)
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
        files = files_of(source_image=[source], target_image=[] if target is None else [target])
        form = options | {"person_id": person_id}
        return cast(Verification, self._call("POST", "/verify", files=files, form=form))

    # The gallery

    def insert(
        self,
        person_id: str,
        images: Image | Iterable[Image],
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
        embedding: Iterable[float] | None = None,
        **options: Any,
    ) -> SearchResult:
        """Return the most similar enrolled pictures.

        Options: `top_k`, `threshold`, `group_by_person`, `all_faces`, `model`, `check_liveness`.
        """
        files = files_of(image=[] if image is None else [image])
        form = options | {
            "embedding": None
            if embedding is None
            else json.dumps([float(number) for number in embedding])
        }
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
        """Put the person into the trash, or erase them for good; return the number of pictures.

        `erase_person` also returns the receipt.
        """
        answer = self._call("DELETE", _path(person_id), query=_erase(erase))
        return int(answer["deleted_pictures"])

    def erase_person(self, person_id: str) -> Receipt:
        """Erase the person for good, in the trash too; return the signed receipt."""
        answer = self._call("DELETE", _path(person_id), query=_erase(True))
        return cast(Receipt, answer["receipt"])

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
        images: Image | Iterable[Image],
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

    # The desk for data subjects

    def export_person(self, person_id: str) -> bytes:
        """Return everything that is kept of the person, as a ZIP."""
        return self._send("GET", _path(person_id, "/export")).content

    def consents(self, person_id: str) -> list[Consent]:
        """Return the consents of the person, newest first."""
        answer = self._call("GET", _path(person_id, "/consents"))
        return cast(list[Consent], answer["results"])

    def add_consent(self, person_id: str, document: Image | None = None, **details: Any) -> Consent:
        """Record a consent with its document. Details: `day`, `expires` ("2027-12-31"), `purposes`."""
        files = files_of(document=[] if document is None else [document])
        path = _path(person_id, "/consents")
        answer = self._call("POST", path, files=files, form=details, repeatable=False)
        return cast(Consent, answer)

    def consent_document(self, person_id: str, consent: int) -> bytes:
        return self._send("GET", _path(person_id, f"/consents/{consent}")).content

    def remove_consent(self, person_id: str, consent: int) -> None:
        """Remove a consent that was recorded by mistake."""
        self._call("DELETE", _path(person_id, f"/consents/{consent}"))

    # The trash

    def trash(self, *, page_size: int = 100) -> Iterator[TrashItem]:
        """Yield what can be undone, newest first, page by page."""
        return cast(Iterator[TrashItem], self._pages("/trash", {"page_size": page_size}))

    def undo(self, item: int, *, new_id: str | None = None) -> Undone:
        """Take an act back: a deletion, a move, a merge, an import."""
        body = {} if new_id is None else {"person_id": new_id}
        return cast(Undone, self._call("POST", f"/trash/{item}/undo", body=body))

    def erase(self, item: int) -> list[Receipt]:
        """Erase for good what an item of the trash holds; return the receipt of each person in it."""
        return cast(list[Receipt], self._call("DELETE", f"/trash/{item}")["receipts"])

    # The inbox

    def inbox(self, *, page_size: int = 100, **filters: str) -> Iterator[Card]:
        """Yield what needs a person, what settles most first.

        Filters: `kind` (probe, doubt, pair, file), `person_id`, `day` ("2027-12-31"), `who`.
        """
        cards: dict[str, Card] = {}  # all of them first: those that are settled move the others up
        page = 1
        while page:
            query = filters | {"page_size": page_size, "page": page}
            answer = self._call("GET", "/inbox", query=query)
            cards |= {card["key"]: card for card in answer["results"]}
            page = page + 1 if answer["next"] else 0
        yield from cards.values()

    def settle(self, key: str, action: str, **details: Any) -> Settled:
        """Settle a card by one of its `actions`; the answer's `undo` is for `undo`.

        Details: `person_id` for assign and merge; for new also `name`, `legal_basis`, `keep_until`;
        `whole_group=False` settles one face of a stranger who came more often.
        """
        body = {"action": action, **details}
        return cast(Settled, self._call("POST", f"/inbox/{key}", body=body))

    def inbox_face(self, key: str) -> bytes:
        """Return the searched face of a card as JPEG of at most 320 pixels a side."""
        return self._send("GET", f"/inbox/{key}/face").content

    def feedback(
        self,
        person_id: str,
        verdict: str,
        *,
        answer_number: str | None = None,
        face: int = 1,
        image: Image | None = None,
        **options: Any,
    ) -> Feedback:
        """Say whether a searched face is the person's: "confirmed" or "rejected".

        "withdrawn" takes back what was said of it. The face is that of a kept answer, or the largest
        of `image`, the picture again. Option: `model`, as in the search.
        """
        whose = options | {"person_id": person_id, "verdict": verdict}
        if image is None:
            body = whose | {"answer_number": answer_number, "face": face}
            return cast(Feedback, self._call("POST", "/feedback", body=body))
        form = whose | {"answer_number": answer_number}
        answer = self._call("POST", "/feedback", files=files_of(image=[image]), form=form)
        return cast(Feedback, answer)

    # Imports

    def import_zip(self, archive: Image, **options: Any) -> Job:
        """Upload a ZIP of pictures; the server goes on after the answer. Poll `job`.

        Options: `start=True` without a preview, `use_face_detection`, `on_several_faces`;
        for new persons `legal_basis`, `keep_until`, `purposes`, `consent_day`.
        """
        files = files_of(archive=[archive])
        return cast(Job, self._call("POST", "/jobs", files=files, form=options))

    def jobs(self, *, page_size: int = 100) -> Iterator[Job]:
        """Yield the imports, newest first, page by page."""
        return cast(Iterator[Job], self._pages("/jobs", {"page_size": page_size}))

    def job(self, number: int) -> Job:
        return cast(Job, self._call("GET", f"/jobs/{number}"))

    def job_files(
        self, number: int, *, status: str | None = None, page_size: int = 100
    ) -> Iterator[JobFile]:
        """Yield the files of an import, those that need a look first. `status`: such as refused."""
        query = {"page_size": page_size} | ({} if status is None else {"status": status})
        return cast(Iterator[JobFile], self._pages(f"/jobs/{number}/files", query))

    def act_on_job(self, number: int, act: str) -> Job:
        """Do one of these with an import: "start", "pause", "resume", "cancel"."""
        return cast(Job, self._call("POST", f"/jobs/{number}/{act}", body={}))

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
        images: Image | Iterable[Image],
        image_paths: Sequence[str] | None,
        key: str | None,
        form: dict[str, Any],
    ) -> Insertion:
        if image_paths is not None:
            form = form | {"image_paths": json.dumps(list(image_paths))}
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        files = files_of(images=images)
        answer = self._call("POST", path, files=files, form=form, headers=headers, repeatable=True)
        return cast(Insertion, answer)


def _path(person_id: str, rest: str = "") -> str:
    return f"/persons/{quote(person_id, safe='')}{rest}"


def _erase(erase: bool) -> dict[str, str]:
    return {"erase": "true"} if erase else {}
