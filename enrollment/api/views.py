"""The insert and statistics endpoints. Each view parses, calls one service or selector and renders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from django.db.models import QuerySet
from django.utils.translation import gettext, ngettext
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from enrollment.api import schema, serializers
from enrollment.api.paths import person_path
from enrollment.enrolling import (
    MAX_KEY_LENGTH,
    Outcome,
    Upload,
    begin_request,
    carry_out_request,
    digest_of_request,
    enroll_pictures,
    has_answer,
)
from enrollment.exceptions import NotSearchableYet
from enrollment.gallery import easily_mistaken, merged_id
from enrollment.models import Doubt, FaceEmbedding, FaceImage, Person
from enrollment.web import Act
from recognition.api.access import may, require
from recognition.api.forms import FormCall
from recognition.api.views import UploadView, every_image_failed
from recognition.networks import load_network
from recognition.vector_store import COLLECTION, get_vector_store

NOT_JUDGED_YET: Final = "not_judged_yet"
_IS_NEW: Final = "is_new"  # kept with the answer: a repetition warns of namesakes, too


class InsertView(UploadView):
    """Enrol pictures of a person, who is created when new. Searches find them on return."""

    serializer_class = serializers.InsertFormSerializer
    permissions = {"POST": Act.ADD_PICTURES}
    throttle_scope = "enroll"

    @schema.milvus_insert
    def post(self, request: Request) -> Response:
        form = self.read_form(request)
        if not (_named(form).exists() or merged_id(form["person_id"])):
            require(request, Act.ADD_PERSON)
        return insert_pictures(request, form, is_known=not may(request, Act.ADD_PERSON))


def insert_pictures(request: Request, form: dict[str, Any], *, is_known: bool) -> Response:
    """Enrol the pictures of the validated form and return the result of each.

    A request that is repeated with the same `Idempotency-Key` is carried out once. Somebody who
    `is_known` and is deleted meanwhile is not made anew: raise `PersonNotFound`.
    """
    status, body, headers = _insert_once(request, form, is_known)
    is_new, person = body.pop(_IS_NEW, False), _named(form)
    if is_new and (made := person.first()):
        FormCall.warn(request, easily_mistaken(made))
    return Response(body, status=status, headers=headers)


def _named(form: dict[str, Any]) -> QuerySet[Person]:
    return Person.objects.filter(person_id=form["person_id"])


def was_answered(request: Request) -> bool:
    """Return whether the request repeats a finished one; its person may have been deleted since."""
    key = _key(request)
    return bool(key) and has_answer(_owner(request), key)


def _key(request: Request) -> str:
    return request.headers.get("Idempotency-Key", "").strip()


def _owner(request: Request) -> str:
    return str(request.user.pk or "")


def _insert_once(
    request: Request, form: dict[str, Any], is_known: bool
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return status, body and headers of the answer; the body also says whether the person is new."""
    uploads = [
        Upload(form["person_id"], file.name, file, path, is_known=is_known)
        for file, path in zip(form["images"], form["image_paths"], strict=True)
    ]
    key = _key(request)
    if not key:
        return *_insert(form, uploads), {}
    if len(key) > MAX_KEY_LENGTH:
        message = gettext(
            "The key has %(given)d characters; at most %(limit)d are kept. Shorten it."
        )
        numbers = {"given": len(key), "limit": MAX_KEY_LENGTH}
        raise ValidationError({"Idempotency-Key": message % numbers})
    row = begin_request(
        _owner(request), key, digest_of_request(request.path, form | {"images": uploads})
    )
    if row.status:
        return row.status, dict(row.answer or {}), {"Idempotency-Replayed": "true"}

    def work() -> tuple[int, Any]:
        for number, upload in enumerate(uploads):
            upload.key = row.upload_key(number)
        return _insert(form, uploads)

    return *carry_out_request(row, work), {}


def _insert(form: dict[str, Any], uploads: list[Upload]) -> tuple[int, dict[str, Any]]:
    wait, is_new = not form.get("async"), not _named(form).exists()
    load_network(form["model"])  # do not store what cannot be made searchable
    if wait:
        get_vector_store().ping()
    outcomes = enroll_pictures(
        uploads,
        source=FaceImage.Source.API,
        use_face_detection=form["use_face_detection"],
        require_face=form["require_face"],
        face_index=form.get("face_index"),
        on_several_faces=form["on_several_faces"],
        wait=wait,
    )
    results = [_insert_result(outcome, form["model"], wait) for outcome in outcomes]
    status, body = _inserted(results, form, wait, _taker(outcomes, form["person_id"]))
    return status, body | {_IS_NEW: is_new}


def _taker(outcomes: Iterable[Outcome], person_id: str) -> str | None:
    """Return the id of who got the pictures, if that is who the id was merged into."""
    owners = (outcome.picture.person.person_id for outcome in outcomes if outcome.face_image)
    if next(owners, person_id) == person_id:
        return None
    merged = merged_id(person_id)
    return merged.taker.person_id if merged else None


def _inserted(
    results: list[dict[str, Any]], form: dict[str, Any], wait: bool, taker: str | None
) -> tuple[int, dict[str, Any]]:
    count = sum(result["searchable"] for result in results)
    missing = sum(result["stored"] for result in results) - count
    body = {
        "inserted_count": count,
        "collection": COLLECTION,
        "model": form["model"],
        "person_id": form["person_id"],
        "merged_into": taker,
        "results": results,
    }
    if missing and not wait:
        status_url = f"{person_path(taker or form['person_id'])}/images"
        body |= {"message": _stored(missing), "status_url": status_url}
        return HTTPStatus.ACCEPTED, serializers.InsertAcceptedSerializer.answer(body)
    if missing:
        error = next(
            result["error"] for result in results if result["stored"] and "error" in result
        )
        message = _not_searchable_yet(missing) % {"count": missing, "reason": error}
        body |= {"error": NotSearchableYet.code, "message": message}
        return HTTPStatus.SERVICE_UNAVAILABLE, serializers.InsertFailureSerializer.answer(body)
    if not count:
        body |= every_image_failed(results)
        return HTTPStatus.UNPROCESSABLE_ENTITY, serializers.InsertFailureSerializer.answer(body)
    body |= {"message": _done(count)}
    return HTTPStatus.OK, serializers.InsertResponseSerializer.answer(body)


def _insert_result(outcome: Outcome, model: str, wait: bool) -> dict[str, Any]:
    if outcome.error:
        refused = {"stored": False, "searchable": False}
        return {"filename": outcome.filename, "error": outcome.error} | refused
    row = outcome.embedding(model)
    result = {
        "filename": outcome.filename,
        "crop": outcome.seen,
        "stored": True,
        "searchable": bool(row) and _is_searchable(row),
        "warnings": _warnings(outcome, wait),
        "id": row and row.pk,
    }
    if wait and not result["searchable"]:
        reason = row.error_message if row else ""
        result["error"] = NotSearchableYet(reason or _waits())
    return result


def _is_searchable(row: FaceEmbedding) -> bool:
    """Return whether a search finds the embedding.

    It does so even while a new person id still has to be copied to Milvus, as searches read the id
    from SQL.
    """
    renamed = row.status == FaceEmbedding.Status.PENDING and row.indexed_at is not None
    return renamed or row.status == FaceEmbedding.Status.INDEXED


def _warnings(outcome: Outcome, wait: bool) -> Sequence[Doubt | dict[str, str]]:
    if outcome.judged or not wait:
        return outcome.doubts
    message = gettext(
        "The face was not compared with the gallery yet. 'manage.py reindex' does it."
    )
    return [*outcome.doubts, {"code": NOT_JUDGED_YET, "message": message}]


def _done(count: int) -> str:
    message = ngettext(
        "%(count)d embedding inserted successfully",
        "%(count)d embeddings inserted successfully",
        count,
    )
    return message % {"count": count}


def _stored(count: int) -> str:
    message = ngettext(
        "%(count)d picture is stored; a search finds it soon. Ask the status_url whether it does.",
        "%(count)d pictures are stored; a search finds them soon. Ask the status_url whether it does.",
        count,
    )
    return message % {"count": count}


def _waits() -> str:
    return gettext(
        "It waits for the network or the vector database. The server goes on by itself, and 'manage.py "
        "reindex' does so at once."
    )


def _not_searchable_yet(count: int) -> str:
    return ngettext(
        "%(count)d stored picture cannot be found by a search yet. Do not send it again. %(reason)s",
        "%(count)d stored pictures cannot be found by a search yet. Do not send them again; results says "
        "why of each. The first: %(reason)s",
        count,
    )


class StatsView(APIView):
    """Return how many vectors the collection holds."""

    @schema.milvus_stats
    def get(self, request: Request) -> Response:
        stats = {"row_count": get_vector_store().row_count()}
        return Response(serializers.StatsResponseSerializer.answer(stats))
