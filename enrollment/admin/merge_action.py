"""The admin action that merges selected persons."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext, ngettext

from enrollment import corrections
from enrollment.gallery import better_kept
from enrollment.models import Person
from enrollment.web import say_done
from recognition.exceptions import RecognitionError

SHOWN: Final = 4  # pictures of each person


def merge_selected(model_admin: Any, request: HttpRequest, persons: QuerySet[Person]) -> Any:
    """Ask which of the selected persons to keep; then merge the others into that one."""
    chosen = list(persons)
    if len(chosen) < 2:
        messages.error(request, gettext("Choose two people or more to merge."))
        return None
    kept = next((each for each in chosen if str(each.pk) == request.POST.get("keep")), None)
    if kept is None:
        return _ask(model_admin, request, chosen)
    try:
        done = corrections.merge_persons(kept, *(each for each in chosen if each != kept))
    except RecognitionError as error:
        messages.error(request, error.message)
        return None
    text = ngettext(
        "%(persons)d person is now part of %(kept)s; pictures moved: %(pictures)d.",
        "%(persons)d people are now part of %(kept)s; pictures moved: %(pictures)d.",
        done.persons,
    )
    counts = {"persons": done.persons, "pictures": done.pictures, "kept": kept}
    say_done(request, text % counts, done, undo="admin:enrollment_trashitem_undo")
    return None


def _shown(person: Person) -> list[int]:
    return list(person.face_images.order_by("-pk").values_list("pk", flat=True)[:SHOWN])


def _ask(model_admin: Any, request: HttpRequest, chosen: list[Person]) -> HttpResponse:
    context = model_admin.admin_site.each_context(request) | {
        "title": gettext("Merge people"),
        "opts": model_admin.model._meta,
        "persons": chosen,
        "persons_shown": [(each, _shown(each)) for each in chosen],
        "suggested": better_kept(chosen),
        "trash_days": settings.TRASH_DAYS,
        "pictures": sum(person.picture_count for person in chosen),
        "checkbox": ACTION_CHECKBOX_NAME,
        "media": model_admin.media,
    }
    return render(request, "admin/enrollment/person/merge.html", context)
