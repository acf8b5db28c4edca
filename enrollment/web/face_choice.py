"""The choice of a face in a group photo before it is enrolled, for the admin and the pages."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext, ngettext

from enrollment import enrolling
from enrollment.enrolling import WaitingPicture
from enrollment.models import Person
from enrollment.web.permissions import Act, owner_of
from enrollment.web.place import Place
from enrollment.web.reports import report_enrolled
from recognition.api.access import lacking_permission, may
from recognition.exceptions import RecognitionError

LEFT_OUT = "none"


def choose_faces(request: HttpRequest, pk: int, *, place: Place) -> HttpResponse:
    """Show the faces of each waiting picture of the person; on POST, enrol the chosen ones.

    Redirect to the person's page when nothing waits.
    """
    for act in (Act.BROWSE, Act.ADD_PICTURES):
        if not may(request, act):
            raise PermissionDenied(lacking_permission(act))
    person = get_object_or_404(Person, pk=pk)
    if request.method == "POST":
        try:
            _decide(request, person, place)
        except RecognitionError as error:
            messages.error(request, error.message)
    waiting = enrolling.waiting_pictures(owner_of(request), person)
    if not waiting:
        return redirect(place.person, pk)
    if request.method == "POST":
        return redirect(place.faces, pk)
    title = gettext("Which face is %(person)s’s?") % {"person": person.name or person.person_id}
    context = {"title": title, "person": person, "waiting": waiting, "left_out": LEFT_OUT}
    response = place.render(request, "choose_faces", context)
    patch_cache_control(response, private=True, no_store=True)
    return response


def _decide(request: HttpRequest, person: Person, place: Place) -> None:
    """Enrol or discard each picture of the form; pictures that arrived since keep waiting."""
    waiting = enrolling.waiting_pictures(owner_of(request), person)
    choices = {picture: request.POST.get(f"face-{picture.key}", "") for picture in waiting}
    left_out = [
        picture
        for picture, choice in choices.items()
        if choice == LEFT_OUT or (choice and "leave_out" in request.POST)
    ]
    enrolling.leave_out(left_out)
    if left_out:
        text = ngettext(
            "%(count)d picture was left out.", "%(count)d pictures were left out.", len(left_out)
        )
        messages.info(request, text % {"count": len(left_out)})
    chosen = {
        picture: number
        for picture, choice in choices.items()
        if picture not in left_out and (number := _number(choice, picture)) is not None
    }
    report_enrolled(request, enrolling.enroll_chosen(chosen, person, place.source))


def _number(choice: str, picture: WaitingPicture) -> int | None:
    """Return the index of the chosen face; None for a value that the form does not offer."""
    offered = [str(number) for number in range(len(picture.faces))]
    return offered.index(choice) if choice in offered else None
