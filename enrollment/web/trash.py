"""Offer and carry out the undoing of what the trash keeps, for the admin and the pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_POST

from enrollment import corrections
from enrollment.corrections import Done
from enrollment.desk import erase_item_with_receipts
from enrollment.models import Person, TrashItem
from enrollment.web.errors import error_text
from enrollment.web.permissions import acts_to_undo
from enrollment.web.receipts import receipts_response
from recognition.api.access import lacking_permission, may
from recognition.exceptions import RecognitionError

MOST_SHOWN: Final = 500  # items of the trash on its page
MOST_OFFERED: Final = 5  # of those that one action made, in a message


def say_done(
    request: HttpRequest, text: str, *done: Done, undo: str = "trash-undo", back: str = ""
) -> None:
    """Say what was done, with a button to undo it; `undo` is the name of the URL that does.

    `back` is the address to show then, instead of the person whom it is about.
    """
    items = [each.undo for each in done if each.undo and may_undo(request, each.undo)]
    messages.success(request, with_undo(request, text, items, undo=undo, back=back))


def with_undo(
    request: HttpRequest,
    text: str,
    items: Sequence[TrashItem],
    *,
    undo: str = "trash-undo",
    back: str = "",
) -> str:
    """Return the text with a button to undo each of the items, as HTML if there are some."""
    if not items:
        return text
    context = {"items": items, "undo": undo, "back": back}
    return format_html("{} {}", text, render_to_string("enrollment/undo.html", context, request))


def say_in_trash(request: HttpRequest, done: Sequence[Done], *, undo: str) -> None:
    """Offer to undo what the admin has told of in its own words."""
    if items := [each.undo for each in done if each.undo]:
        until = date_format(timezone.localtime(items[0].erase_at), "SHORT_DATETIME_FORMAT")
        text = gettext("This can be undone until %(until)s.") % {"until": until}
        say_done(request, text, *done[:MOST_OFFERED], undo=undo)


def may_undo(request: HttpRequest, item: TrashItem) -> bool:
    """Return whether the request may undo the item, or erase it."""
    return all(may(request, act) for act in acts_to_undo(item))


@require_POST
def undo_item(request: HttpRequest, pk: int, *, person: str, trash: str) -> HttpResponse:
    """Undo the item and show the person whom it was about.

    `person` and `trash` are names of URLs. In the form, a `person_id` is another id for the person, and
    `back` the address to show instead.
    """
    try:
        item = _item(request, pk)
        restored = corrections.undo(
            item, person_id=request.POST.get("person_id", "").strip() or None
        )
    except (RecognitionError, ValidationError) as error:
        messages.error(request, error_text(error))
        return redirect(trash)
    count = len(restored.pictures)
    text = ngettext(
        "Undone: all is as before, with %(count)d picture.",
        "Undone: all is as before, with %(count)d pictures.",
        count,
    )
    if item.kind == TrashItem.Kind.CHANGE:
        text = gettext("Undone: all is as before.")
    messages.success(request, text % {"count": count})
    back = request.POST.get("back", "")
    if url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        return redirect(back)
    of_many = item.kind in (TrashItem.Kind.CHANGE, TrashItem.Kind.PERSON)
    there = None if of_many and len(restored.persons) > 1 else next(iter(restored.persons), None)
    return redirect(person, there.pk) if there else redirect(trash)


@require_POST
def erase_item(request: HttpRequest, pk: int, *, trash: str) -> HttpResponse:
    """Erase the item for good, and show the receipts of the persons in it.

    `trash` is the name of the URL to show where there are none.
    """
    try:
        item = _item(request, pk)
        receipts = erase_item_with_receipts(item.pk)
    except RecognitionError as error:
        messages.error(request, error.message)
        return redirect(trash)
    if receipts:
        return receipts_response(request, receipts)
    messages.success(request, gettext("Erased for good: %(item)s.") % {"item": item})
    return redirect(trash)


def trash_items(request: HttpRequest) -> list[tuple[TrashItem, str]]:
    """Return what the request may undo, newest first, each with an id that others have by now."""
    items = corrections.in_trash().prefetch_related(corrections.PERSONS_OF_ITEMS)
    shown = [item for item in items[:MOST_SHOWN] if may_undo(request, item)]
    ids = {person_id for item in shown for person_id in item.person_ids}
    taken = set(Person.objects.filter(person_id__in=ids).values_list("person_id", flat=True))
    return [(item, next((each for each in item.person_ids if each in taken), "")) for item in shown]


def _item(request: HttpRequest, pk: int) -> TrashItem:
    item = corrections.trash_item(pk)  # one whose time is over says so itself
    for act in acts_to_undo(item):
        if not may(request, act):
            raise PermissionDenied(lacking_permission(act))
    return item
