"""Carry out each request with an `Idempotency-Key` only once, even after a crash.

The first request stores a row before it begins and its answer when it ends; repetitions get that
answer. If the first request was interrupted, a repetition continues it: the files already stored
carry the request's `upload_key`, so they are found and not stored twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, Final

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils import timezone
from django.utils.translation import gettext

from enrollment.enrolling.inspection import Upload
from enrollment.enrolling.services import UploadStored
from enrollment.models import IdempotentRequest, Person
from recognition.exceptions import RecognitionError

KEPT: Final = timedelta(hours=24)
# A request unfinished for longer is taken over. Should it still run, upload keys prevent duplicates.
TAKEN_UP_AFTER: Final = timedelta(minutes=2)
MAX_KEY_LENGTH: Final = 255
# Fields that version 1.0 did not know do not count while they change nothing: during an update a
# request may be repeated at a server of the other version.
_ADDED: Final = {"on_several_faces": "largest"}
GONE: Final = 410


class KeyReused(RecognitionError):
    """The key was already sent with a different request."""

    code = "idempotency_key_reused"
    status = 422


class InProgress(RecognitionError):
    """The request with this key is still being carried out."""

    code = "request_in_progress"
    status = 409
    retry_after = 10  # seconds


def digest_of_request(path: str, form: Mapping[str, Any]) -> str:
    """Return the SHA-256 hex digest of the path, the fields and the uploads of a request."""
    digest = hashlib.sha256(path.encode())
    for name, value in sorted(form.items()):
        if name in _ADDED and value == _ADDED[name]:
            continue
        for item in value if isinstance(value, list) else [value]:
            content = [item.filename, item.digest] if isinstance(item, Upload) else item
            digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()


def begin_request(owner: str, key: str, digest: str) -> IdempotentRequest:
    """Return the request's row. It holds the answer if the request was finished before.

    Otherwise the caller has to carry it out. Raise `KeyReused` when the key belongs to another
    request and `InProgress` while the first one is being carried out.
    """
    forget_old_requests()
    now = timezone.now()
    row, is_new = IdempotentRequest.objects.get_or_create(
        owner=owner, key=key, defaults={"digest": digest, "started_at": now}
    )
    if row.digest != digest:
        raise KeyReused(
            gettext(
                "This Idempotency-Key was sent before with another request. Send a new key with each "
                "new request, and the same only to repeat it unchanged."
            )
        )
    if not is_new and row.status is None:
        _take_up(row)
    return row


def has_answer(owner: str, key: str) -> bool:
    """Return whether the request with the key was finished and can still be repeated."""
    forget_old_requests()
    return IdempotentRequest.objects.filter(owner=owner, key=key, status__isnull=False).exists()


def forget_old_requests() -> None:
    """Delete requests, with the names in their answers, that are too old to be repeated."""
    IdempotentRequest.objects.filter(created_at__lt=timezone.now() - KEPT).delete()


def forget_answers_about(*person_ids: str) -> None:
    """Replace stored answers about the person of these ids by 410 `person_deleted`."""
    message = gettext("The person of this request was deleted since. Send a new key to enrol them.")
    answer = {"success": False, "error": "person_deleted", "message": message}
    answers_about(*person_ids).update(status=GONE, answer=answer)


def _forget_if_deleted(body: Mapping[str, Any]) -> None:
    """Forget an answer about somebody who was deleted before it was stored, and so could not be seen."""
    person_id = body.get("merged_into") or body.get("person_id")
    known = Q(person_id=person_id) | Q(merged_ids__person_id=person_id)
    if person_id and not Person.objects.filter(known).exists():
        forget_answers_about(person_id)


def answers_about(*person_ids: str) -> QuerySet[IdempotentRequest]:
    """Return the finished requests whose answers are about the person of these ids."""
    return IdempotentRequest.objects.filter(
        Q(answer__person_id__in=person_ids) | Q(answer__merged_into__in=person_ids)
    )


def forget_mentions(person_ids: Collection[str]) -> None:
    """Drop from stored answers about others what tells of an erased person: whom a face looked like."""
    named = Q()
    for person_id in person_ids:
        for is_ascii in (True, False):  # SQLite has the JSON as it was written, PostgreSQL its own
            named |= Q(text__contains=json.dumps(person_id, ensure_ascii=is_ascii)[1:-1])
    stored = IdempotentRequest.objects.exclude(answer=None)
    rows = stored.annotate(text=Cast("answer", TextField())).filter(named)
    for row in rows.iterator():
        results = (row.answer or {}).get("results", ())
        dropped = [_forget_mentions(result, person_ids) for result in results]
        if any(dropped):
            row.save(update_fields=["answer"])


def _forget_mentions(result: dict[str, Any], person_ids: Collection[str]) -> bool:
    """Drop from a picture's result what tells of these persons; return whether anything did."""
    warnings = result.get("warnings", [])
    others = [each for each in warnings if each.get("person_id") not in person_ids]
    is_named = any(mentions(result.get("message", ""), person_id) for person_id in person_ids)
    if "warnings" in result:
        result["warnings"] = others
    if is_named:
        result["message"] = gettext("This named somebody who was erased since.")
    return is_named or others != warnings


def mentions(text: str, person_id: str) -> bool:
    """Return whether the text holds the id, not as a part of a longer word or number."""
    return bool(re.search(rf"(?<!\w){re.escape(person_id)}(?!\w)", text))


def _take_up(row: IdempotentRequest) -> None:
    """Take over an interrupted request. Raise `InProgress` if another repetition did so first."""
    now = timezone.now()
    abandoned = Q(started_at=None) | Q(started_at__lt=now - TAKEN_UP_AFTER)
    mine = IdempotentRequest.objects.filter(abandoned, pk=row.pk, status=None)
    if not mine.update(started_at=now):
        raise InProgress(_in_progress())
    row.started_at = now


def _in_progress() -> str:
    return gettext(
        "The request with this Idempotency-Key is still being carried out. Wait, then send it "
        "again to get its answer."
    )


def carry_out_request(
    row: IdempotentRequest, work: Callable[[], tuple[int, Any]]
) -> tuple[int, Any]:
    """Call `work`, store its status and body if it succeeded, and return both.

    After a server error the row stays, so that a repetition continues from what was stored. After a
    client error the row is deleted and the key is free again. If a repetition took the request over
    meanwhile, the row belongs to it; of two that store the same pictures, the second raises
    `InProgress`.
    """
    mine = IdempotentRequest.objects.filter(pk=row.pk, started_at=row.started_at)
    try:
        status, body = work()
    except UploadStored as error:
        mine.update(started_at=None)
        raise InProgress(_in_progress()) from error
    except BaseException:
        mine.update(started_at=None)
        raise
    if status < 300:
        IdempotentRequest.objects.filter(pk=row.pk).update(status=status, answer=body)
        _forget_if_deleted(body)
    elif status < 500:
        mine.delete()
    else:
        mine.update(started_at=None)
    return status, body
