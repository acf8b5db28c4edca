"""Pages for maintaining the gallery: doubts, imports, the choice of a face, the audit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_safe

from enrollment.gallery import with_doubts
from enrollment.judging import dismiss_doubts
from enrollment.models import FaceImage
from enrollment.pages.people import PICTURES_A_PAGE
from enrollment.pages.people_forms import chosen
from enrollment.web import (
    Act,
    Place,
    audit_report,
    choose_faces,
    erase_item,
    import_file,
    import_pictures,
    import_run,
    imports_list,
    say_dismissed,
    trash_items,
    undo_item,
)
from recognition.api.access import may, page_access, page_permission

HERE: Final = Place(
    upload="import-upload",
    run="import-run",
    audit="audit",
    persons="people",
    person="person",
    picture="picture",
    faces="person-faces",
    undo="trash-undo",
    source=FaceImage.Source.PAGE,
    templates="enrollment/people",
)


@page_permission(Act.BROWSE)
@require_http_methods(["GET", "HEAD", "POST"])
def doubts(request: HttpRequest) -> HttpResponse:
    """List the pictures with open doubts; a POST dismisses the doubts of the ticked pictures."""
    if request.method == "POST":
        return _dismiss(request)
    pages = Paginator(with_doubts(), PICTURES_A_PAGE)
    context = {
        "page": pages.get_page(request.GET.get("page")),
        "may_dismiss": may(request, Act.CHANGE_PICTURES),
    }
    return HERE.render(request, "doubts", context)


@page_permission(Act.CHANGE_PICTURES)
def _dismiss(request: HttpRequest) -> HttpResponse:
    ids = chosen(request.POST)
    if ids:
        count = dismiss_doubts(FaceImage.objects.filter(pk__in=ids), request.user.get_username())
        say_dismissed(request, count)
    else:
        message = gettext("No picture was chosen. Tick some, then say what to do.")
        messages.error(request, message)
    return redirect(request.get_full_path())  # the same page of the list


@page_permission(Act.BROWSE)
@require_safe
def trash(request: HttpRequest) -> HttpResponse:
    """List what can be undone: deletions, moves, merges, imports."""
    context = {"items": trash_items(request), "days": settings.TRASH_DAYS}
    return HERE.render(request, "trash", context)


undo = page_permission(Act.BROWSE)(partial(undo_item, person="person", trash="trash"))
erase = page_permission(Act.BROWSE)(partial(erase_item, trash="trash"))


def _importer(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    for permission in (Act.ADD_PERSON, Act.ADD_PICTURES):
        view = page_permission(permission)(view)
    return view


upload = _importer(partial(import_pictures, place=HERE))
run = _importer(partial(import_run, place=HERE))
imports = _importer(partial(imports_list, place=HERE))
imported_file = _importer(import_file)
audit = page_permission(Act.BROWSE)(partial(audit_report, place=HERE))
faces = page_access(partial(choose_faces, place=HERE))
