"""Enrol uploaded files and report the result as Django messages, for the admin and the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from django.utils.translation import gettext, ngettext

from enrollment import enrolling
from enrollment.enrolling import Outcome, Upload
from enrollment.gallery import easily_mistaken
from enrollment.index import IndexReport
from enrollment.models import FaceEmbedding, FaceImage, Person
from enrollment.web.permissions import Act, owner_of
from recognition.api.access import may
from recognition.embedding import FaceNotChosen
from recognition.exceptions import RecognitionError

Say = Callable[[str], None]
DOUBTS_SHOWN: Final = 20  # pictures, each with its reasons


def say_dismissed(request: HttpRequest, count: int) -> None:
    """Say how many doubts of the ticked pictures were dismissed, or that there were none any more."""
    if count:
        text = ngettext("%(count)d doubt was dismissed.", "%(count)d doubts were dismissed.", count)
        messages.success(request, text % {"count": count})
    else:
        text = gettext("Nothing was changed: a colleague had settled these doubts meanwhile.")
        messages.info(request, text)


def enroll_files(
    request: HttpRequest,
    person: Person,
    files: Sequence[UploadedFile[Any]],
    *,
    use_face_detection: bool,
    source: FaceImage.Source,
) -> bool:
    """Enrol the files for the person and report on each. Must not run inside a transaction.

    Files of which it is not clear whose face is meant wait for `choose_faces`; return whether any do.
    """
    try:
        outcomes = enrolling.enroll_pictures(
            [Upload(person.person_id, file.name or "", file, is_known=True) for file in files],
            source=source,
            use_face_detection=use_face_detection,
            on_several_faces="ask",
        )
        enrolling.keep_waiting(outcomes, owner_of(request), person)
    except RecognitionError as error:
        messages.error(request, error.message)
        return False
    decided = [each for each in outcomes if not isinstance(each.error, FaceNotChosen)]
    report_enrolled(request, decided)
    return len(decided) < len(outcomes)


def report_enrolled(request: HttpRequest, outcomes: Sequence[Outcome]) -> None:
    """Report what became of each upload."""
    warn, fail = partial(messages.warning, request), partial(messages.error, request)
    accepted = [outcome for outcome in outcomes if outcome.face_image]
    _say_accepted(len(accepted), partial(messages.success, request))
    _say_refused(outcomes, fail)
    _say_doubts(accepted, warn)
    _say_unindexed(accepted, warn)


def undecided(request: HttpRequest, person: Person) -> str:
    """Return how many pictures wait for the user to choose the person's face, in a sentence.

    The text is empty if there are none or the user may not add pictures.
    """
    count = may(request, Act.ADD_PICTURES) and enrolling.count_waiting(owner_of(request), person)
    text = ngettext(
        "%(count)d picture waits for you to choose the face.",
        "%(count)d pictures wait for you to choose the face.",
        count,
    )
    return text % {"count": count} if count else ""


def _say_accepted(count: int, say: Say) -> None:
    if count:
        text = ngettext("%(count)d picture was added.", "%(count)d pictures were added.", count)
        say(text % {"count": count})


def _say_refused(outcomes: Iterable[Outcome], say: Say) -> None:
    for outcome in outcomes:
        if outcome.error:
            text = gettext("“%(file)s” was refused. %(reason)s")
            say(text % {"file": outcome.filename, "reason": outcome.error.message})


def _say_doubts(accepted: Iterable[Outcome], say: Say) -> None:
    """Add one warning for each doubtful picture, without the doubt `several_faces`."""
    reasons_of = [
        (outcome.filename, [d.message for d in outcome.doubts if d.code != "several_faces"])
        for outcome in accepted
    ]
    doubtful = [(file, reasons) for file, reasons in reasons_of if reasons]
    for file, reasons in doubtful[:DOUBTS_SHOWN]:
        text = gettext("“%(file)s”: %(reasons)s")  # the admin makes a first letter a capital
        say(text % {"file": file, "reasons": " ".join(reasons)})
    if (left := len(doubtful) - DOUBTS_SHOWN) > 0:
        text = ngettext(
            "%(count)d more picture is doubtful. The list of pictures can be filtered by it.",
            "%(count)d more pictures are doubtful. The list of pictures can be filtered by it.",
            left,
        )
        say(text % {"count": left})


def _say_unindexed(accepted: Iterable[Outcome], say: Say) -> None:
    unfinished = [outcome for outcome in accepted if not _is_indexed(outcome)]
    if unfinished:
        text = ngettext(
            "%(count)d picture is kept, but searches do not find it with every model yet. "
            "%(reasons)s Afterwards the administrator chooses “Make searchable again” in the admin.",
            "%(count)d pictures are kept, but searches do not find them with every model yet. "
            "%(reasons)s Afterwards the administrator chooses “Make searchable again” in the admin.",
            len(unfinished),
        )
        say(text % {"count": len(unfinished), "reasons": _reasons(unfinished)})


def _is_indexed(outcome: Outcome) -> bool:
    states = {row.status for row in outcome.embeddings}
    return states == {FaceEmbedding.Status.INDEXED}


def _reasons(outcomes: Iterable[Outcome]) -> str:
    """Return each error once. If no embedding row exists, no model has weights."""
    rows = (row for outcome in outcomes for row in outcome.embeddings)
    errors = dict.fromkeys(row.error_message for row in rows if row.error)
    missing = gettext("No model has weights on this server: put a weights file into its folder.")
    return " ".join(errors) or missing


def say_mistakable(request: HttpRequest, person: Person) -> None:
    """Warn of persons with whom this new person may be confused."""
    for text in easily_mistaken(person):
        messages.warning(request, text)


def say_synced(request: HttpRequest, report: IndexReport) -> None:
    """Report the result of “Make searchable again”."""
    if report.indexed and not report.failed:
        messages.success(request, gettext("Searches find the chosen pictures."))
    else:
        text = gettext("Not all chosen pictures are searchable; the page of each says why.")
        messages.error(request, text)
