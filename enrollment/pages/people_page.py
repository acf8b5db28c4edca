"""What the pages about people have in common: permissions, and where to go when something is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext

from enrollment import corrections
from enrollment.models import MergedId, Person, TrashItem
from enrollment.pages.people_forms import from_page
from enrollment.pages.views import FRAGMENT_HEADER
from enrollment.web import error_text, may_undo, with_undo
from recognition.api.access import page_permission
from recognition.exceptions import RecognitionError


def people_page(*permissions: str) -> Callable[..., Any]:
    """Make a view require all these permissions and show errors as messages."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        view = _refusals_as_messages(view)
        for permission in permissions:
            view = page_permission(permission)(view)
        return view

    return decorate


def back_to(request: HttpRequest, pk: int) -> HttpResponse:
    """Redirect to the page of the person's pictures that one came from."""
    return redirect(f"{reverse('person', args=[pk])}{from_page(request)}")


def _refusals_as_messages(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Show errors of the view as messages on the person's page, or on the list.

    The page of a merged person leads to who took them over, that of a deleted one to the trash; a form
    about them is told so. The page's script gets the message itself: it shows it beside what was chosen,
    which stays.
    """

    @wraps(view)
    def guarded(request: HttpRequest, pk: int | None = None, **more: Any) -> HttpResponse:
        level = messages.ERROR
        try:
            return view(request) if pk is None else view(request, pk, **more)
        except (RecognitionError, ValidationError) as error:
            text = error_text(error)
            is_there = pk is not None and Person.objects.filter(pk=pk).exists()
            answer = back_to(request, pk) if pk and is_there else redirect("people")
        except Http404:
            if pk is None or Person.objects.filter(pk=pk).exists():
                raise
            answer, text = _instead_of(request, pk)
            level = messages.ERROR if request.method == "POST" else messages.INFO
        if request.headers.get(FRAGMENT_HEADER):
            said = {FRAGMENT_HEADER: "1"}
            kind = "text/plain; charset=utf-8"
            return HttpResponse(text, kind, status=HTTPStatus.BAD_REQUEST, headers=said)
        messages.add_message(request, level, text)
        return answer

    return guarded


def _instead_of(request: HttpRequest, pk: int) -> tuple[HttpResponse, str]:
    """Return where to go instead of to a person who is enrolled no more, and what to say. Raise `Http404`."""
    is_act = request.method == "POST"
    if merged := MergedId.objects.filter(former_pk=pk).select_related("taker").first():
        text = gettext("%(former)s was merged into %(person)s, whose page this is.")
        if is_act:
            text = gettext(
                "Nothing was changed: meanwhile %(former)s was merged into %(person)s. "
                "Do it again on the page of %(person)s."
            )
        text %= {"former": merged.person_id, "person": merged.taker}
        return redirect("person", merged.taker_id), text
    items = corrections.in_trash().exclude(kind=TrashItem.Kind.MERGE)
    item = items.filter(parts__person_pk=pk, parts__person_id__gt="").first()
    if item and may_undo(request, item):
        if is_act:
            text = gettext("Nothing was changed: this person is in the trash by now.")
            return redirect("trash"), text
        text = gettext("This person is in the trash: %(item)s.") % {"item": item.about}
        return redirect("trash"), with_undo(request, text, [item])
    if not is_act:
        raise Http404
    return redirect("people"), gettext("Nothing was changed: this person was deleted meanwhile.")
