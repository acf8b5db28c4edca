"""A request that is sent again under the same key is carried out once, whatever cut the first one off.

The first one leaves a row before it begins. When it ends, the row gets the answer, which repetitions are
given. When it is cut off, a repetition takes it up again: the files that it had stored carry the
request's `upload_key`, so that they are found instead of stored twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext

from enrollment.enrolling.services import Upload, UploadStored
from enrollment.models import IdempotentRequest
from recognition.exceptions import RecognitionError

KEPT: Final = timedelta(hours=24)
# After this, a request without an end is one whose server died; should it live, keys stop doubles.
TAKEN_UP_AFTER: Final = timedelta(minutes=2)
MAX_KEY_LENGTH: Final = 255
GONE: Final = 410


class KeyReused(RecognitionError):
    """The key was sent before, with something else."""

    code = "idempotency_key_reused"
    status = 422


class InProgress(RecognitionError):
    """The request with this key is not finished."""

    code = "request_in_progress"
    status = 409
    retry_after = 10  # seconds


def digest_of_request(path: str, form: Mapping[str, Any]) -> str:
    """What tells one request from another: SHA-256 of the address, the fields and the uploads."""
    digest = hashlib.sha256(path.encode())
    for name, value in sorted(form.items()):
        for item in value if isinstance(value, list) else [value]:
            content = [item.filename, item.digest] if isinstance(item, Upload) else item
            digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()


def begin_request(owner: str, key: str, digest: str) -> IdempotentRequest:
    """The request's row: with its answer when it was finished before, else for the caller to carry out.

    Raises `KeyReused` for another request's key, `InProgress` while the first is carried out.
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


def forget_old_requests() -> None:
    """Deletes requests, and with them the names in their answers, that may not be repeated any more."""
    IdempotentRequest.objects.filter(created_at__lt=timezone.now() - KEPT).delete()


def forget_answers_about(person_id: str) -> None:
    """Repetitions are told that the person was deleted; the answers that named them go."""
    message = gettext("The person of this request was deleted since. Send a new key to enrol them.")
    answer = {"success": False, "error": "person_deleted", "message": message}
    about = IdempotentRequest.objects.filter(answer__person_id=person_id)
    about.update(status=GONE, answer=answer)


def _take_up(row: IdempotentRequest) -> None:
    """Only one of several repetitions goes on."""
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
    """The status and body that `work` answers; kept when it did what was asked for.

    After a failure of the server the row stays, so that a repetition goes on from what is stored; after
    a refusal nothing is, and the key is free again. Should a repetition have taken the request up
    meanwhile, the row is its, and who stores the pictures second is told that it is `InProgress`.
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
    elif status < 500:
        mine.delete()
    else:
        mine.update(started_at=None)
    return status, body
