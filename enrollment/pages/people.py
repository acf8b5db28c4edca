"""The pages about one person: show their pictures, and correct mistakes.

Each view parses, calls one function of `enrollment.corrections` or `enrollment.enrolling`, and
renders. All work without JavaScript. Deleting and merging ask for confirmation and say what they
will do; the message after them offers to undo it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from enrollment import corrections, enrolling, journal
from enrollment.gallery import (
    SearchHit,
    better_kept,
    data_uri,
    persons_like,
    pictures_of,
    shown_persons,
    suggested_persons,
    with_loneliness,
    with_pictures,
)
from enrollment.models import FaceImage, Person
from enrollment.pages.history import history
from enrollment.pages.people_forms import (
    AddPicturesForm,
    DetailsForm,
    NewOwnerForm,
    chosen,
    from_page,
    number_of,
)
from enrollment.pages.people_page import back_to, people_page
from enrollment.pages.views import FRAGMENT_HEADER
from enrollment.web import (
    Act,
    enroll_files,
    owner_of,
    say_done,
    say_mistakable,
    undecided,
)
from recognition.api.access import may
from recognition.conf import get_settings
from recognition.exceptions import RecognitionError

logger = logging.getLogger(__name__)

PICTURES_A_PAGE: Final = 48
CANDIDATES: Final = 24  # most persons offered for a choice
SUGGESTIONS: Final = 6  # most persons suggested because they look like the picture

RIGHTS: Final = {
    "add": Act.ADD_PERSON,
    "change": Act.CHANGE_PERSON,
    "delete": Act.DELETE_PERSON,
    "export": Act.EXPORT_PERSON,
    "add_pictures": Act.ADD_PICTURES,
    "move_pictures": Act.CHANGE_PICTURES,
    "delete_pictures": Act.DELETE_PICTURES,
}


@people_page(Act.BROWSE)
@require_safe
def person(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the person, their pictures with their state, and the possible actions."""
    shown = get_shown(pk)
    journal.note_look(shown)
    pages = Paginator(pictures_of(shown), PICTURES_A_PAGE)
    page = pages.get_page(request.GET.get("page"))
    context = {"person": shown, "page": page, "form": AddPicturesForm()} | history(request, shown)
    return show(request, "person", context | {"undecided": undecided(request, shown)})


@people_page(Act.CHANGE_PERSON)
@require_http_methods(["GET", "HEAD", "POST"])
def details(request: HttpRequest, pk: int) -> HttpResponse:
    """Change the id, the name, the notes and the other details."""
    shown = get_shown(pk)
    form = DetailsForm(request.POST or None, instance=get_object_or_404(Person, pk=pk))
    if request.method == "POST" and form.is_valid():
        corrections.change_person(shown, **form.changes())
        messages.success(request, gettext("Saved."))
        return redirect("person", pk)
    return show(request, "details", {"person": shown, "form": form})


@people_page(Act.BROWSE, Act.ADD_PICTURES)
@require_POST
def add_pictures(request: HttpRequest, pk: int) -> HttpResponse:
    """Enrol the pictures of the form and report on each."""
    shown = get_shown(pk)
    form = AddPicturesForm(request.POST, request.FILES)
    answer = redirect("person", pk)
    if not form.is_valid():
        messages.error(request, " ".join(form.errors.get("pictures", ())))
    elif enrolled := enroll(request, shown, form):
        answer = enrolled
    else:
        messages.error(request, gettext("No picture was chosen. Choose some, then add them."))
    if request.headers.get(FRAGMENT_HEADER):  # the script loads a page when all are through
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return answer


def enroll(request: HttpRequest, shown: Person, form: AddPicturesForm) -> HttpResponse | None:
    """Enrol the uploaded pictures, and those kept of a form that was refused.

    Redirect to the choice of faces if any picture needs one; return None without any picture.
    """
    token = request.POST.get("kept", "")
    with enrolling.chosen_files(owner_of(request), token) as kept:
        pictures = [*kept, *form.cleaned_data["pictures"]]
        if not pictures:
            return None
        waits = enroll_files(
            request,
            shown,
            pictures,
            use_face_detection=form.cleaned_data["use_face_detection"],
            source=FaceImage.Source.PAGE,
        )
    return redirect("person-faces" if waits else "person", shown.pk)


@people_page(Act.BROWSE, Act.CHANGE_PERSON)
@require_POST
def choose_cover(request: HttpRequest, pk: int) -> HttpResponse:
    """Choose the picture that lists show."""
    ids = chosen(request.POST)
    if not ids:
        return _nothing_chosen(request, pk, ids)
    corrections.set_cover(get_shown(pk), ids[0])
    messages.success(request, gettext("This picture now stands for the person in lists."))
    return back_to(request, pk)


@people_page(Act.BROWSE, Act.CHANGE_PICTURES)
@require_http_methods(["GET", "HEAD", "POST"])
def move_pictures(request: HttpRequest, pk: int) -> HttpResponse:
    """Move the ticked pictures to another person, or to a new one."""
    shown = get_shown(pk)
    ids = chosen(request.POST or request.GET)
    pictures = list(shown.face_images.filter(pk__in=ids))
    if not pictures:
        return _nothing_chosen(request, pk, ids)
    form = NewOwnerForm(request.POST if "new" in request.POST else None)
    if request.method == "POST" and (owner := _move(request, form, pictures)):
        return redirect("person", owner.pk)
    context = {"person": shown, "pictures": pictures, "form": form}
    return show(request, "move", context | _candidates(request, shown, pictures[0]))


def _move(request: HttpRequest, form: NewOwnerForm, pictures: list[FaceImage]) -> Person | None:
    """Move the pictures; return the new owner, or None if a form or message must be shown first."""
    ids = [picture.pk for picture in pictures]
    if form.is_bound:
        if not (may(request, Act.ADD_PERSON) and form.is_valid()):
            return None
        done = corrections.move_to_new_person(ids, **form.cleaned_data)
        owner = done.owner
        say_mistakable(request, owner)
    else:
        owner = Person.objects.filter(pk=number_of(request.POST.get("person"))).first()
        if owner is None:
            given = request.POST.get("person")
            nobody = gettext("No person was chosen. Choose whom the pictures show.")
            messages.error(request, _not_enrolled_any_more() if given else nobody)
            return None
        done = corrections.move_pictures(ids, owner)
    text = ngettext(
        "%(count)d picture now belongs to %(person)s.",
        "%(count)d pictures now belong to %(person)s.",
        len(ids),
    )
    say_done(request, text % {"count": len(ids), "person": owner}, done)
    return owner


@people_page(Act.BROWSE, Act.CHANGE_PICTURES)
@require_http_methods(["GET", "HEAD", "POST"])
def choose_face(request: HttpRequest, pk: int) -> HttpResponse:
    """Show every face of a group photo; a POST enrols the chosen one."""
    shown = get_shown(pk)
    ids = chosen(request.POST or request.GET)
    picture = shown.face_images.filter(pk__in=ids).first()
    if picture is None:
        return _nothing_chosen(request, pk, ids)
    face_index = number_of(request.POST.get("face_index"))
    if request.method != "POST" or face_index is None:
        faces = [data_uri(crop.pixels) for crop in enrolling.faces_in(picture)]
        return show(request, "face", {"person": shown, "picture": picture, "faces": faces})
    enrolling.choose_face(picture, face_index)
    messages.success(request, gettext("The picture now stands for this face."))
    return back_to(request, pk)


@people_page(Act.BROWSE, Act.DELETE_PICTURES)
@require_http_methods(["GET", "HEAD", "POST"])
def delete_pictures(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then delete the ticked pictures."""
    shown = get_shown(pk)
    ids = chosen(request.POST or request.GET)
    pictures = shown.face_images.filter(pk__in=ids)
    if not pictures:
        return _nothing_chosen(request, pk, ids)
    if request.method != "POST":
        return show(request, "delete_pictures", {"person": shown, "pictures": pictures})
    if "erase" in request.POST:
        done = corrections.Done(corrections.erase_pictures(shown, ids))
    else:
        done = corrections.delete_pictures(shown, ids)
    count = done.pictures
    text = ngettext("%(count)d picture was deleted.", "%(count)d pictures were deleted.", count)
    say_done(request, text % {"count": count}, done)
    return back_to(request, pk)


@people_page(Act.BROWSE, Act.DELETE_PERSON)
@require_http_methods(["GET", "HEAD", "POST"])
def merge(request: HttpRequest, pk: int) -> HttpResponse:
    """Choose another person, compare both, choose the one to keep, and merge them."""
    shown = get_shown(pk)
    other_pk = number_of((request.POST or request.GET).get("with"))
    other = with_pictures(Person.objects.filter(pk=other_pk)).exclude(pk=pk).first()
    if other is None:
        if other_pk:
            messages.error(request, _not_enrolled_any_more())
        picture = FaceImage.objects.filter(pk=shown.shown_picture).first()
        return show(request, "merge", {"person": shown} | _candidates(request, shown, picture))
    if request.method != "POST":
        both = [(each, pictures_of(each)[:8]) for each in (shown, other)]
        context = {
            "person": shown,
            "other": other,
            "both": both,
            "suggested": better_kept([shown, other]),
            "is_larger": shown.picture_count != other.picture_count,
        }
        return show(request, "merge_confirm", context)
    kept, gone = (other, shown) if request.POST.get("keep") == str(other.pk) else (shown, other)
    done = corrections.merge_persons(kept, gone)
    count = done.pictures
    text = ngettext(
        "%(gone)s is now part of %(kept)s: %(count)d picture moved.",
        "%(gone)s is now part of %(kept)s: %(count)d pictures moved.",
        count,
    )
    say_done(request, text % {"gone": gone, "kept": kept, "count": count}, done)
    return redirect("person", kept.pk)


@people_page(Act.BROWSE, Act.DELETE_PERSON)
@require_http_methods(["GET", "HEAD", "POST"])
def delete_person(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then delete the person with everything."""
    shown = get_shown(pk)
    if request.method != "POST":
        return show(request, "delete", {"person": shown, "pictures": pictures_of(shown)[:8]})
    done = corrections.delete_person(shown)
    text = ngettext(
        "%(person)s was deleted, with %(count)d picture.",
        "%(person)s was deleted, with %(count)d pictures.",
        done.pictures,
    )
    say_done(request, text % {"person": shown, "count": done.pictures}, done)
    return redirect("people")


def get_shown(pk: int) -> Any:
    """Return the person whom a page is about, or answer 404."""
    return get_object_or_404(with_loneliness(with_pictures(Person.objects.all())), pk=pk)


def _nothing_chosen(request: HttpRequest, pk: int, ids: list[int]) -> HttpResponse:
    """Say that no picture was chosen, or that those with these ids are no longer the person's."""
    if ids:
        text = gettext("Nothing was changed: what you ticked was moved or deleted meanwhile.")
    else:
        text = gettext("No picture was chosen. Tick some, then say what to do.")
    messages.error(request, text)
    return back_to(request, pk)


def _not_enrolled_any_more() -> str:
    return gettext(
        "Nothing was changed: whom you chose was merged or deleted meanwhile. Choose again."
    )


def _candidates(request: HttpRequest, shown: Person, picture: FaceImage | None) -> dict[str, Any]:
    """Return the context with persons to choose: the chosen one, found by name, or alike."""
    if chosen_key := number_of(request.GET.get("person")):
        return {"q": "", "candidates": shown_persons([chosen_key]), "is_chosen": True}
    text = (request.POST or request.GET).get("q", "")[:200].strip()
    if text:
        found = suggested_persons(text, CANDIDATES + 1)
        return {"q": text, "candidates": [each for each in found if each != shown][:CANDIDATES]}
    suggestions = _suggestions(picture)
    persons = with_pictures(Person.objects.all()).in_bulk([hit.person.pk for hit in suggestions])
    for hit in suggestions:
        persons[hit.person.pk].similarity = hit.similarity
    return {"q": "", "candidates": [persons[hit.person.pk] for hit in suggestions]}


def _suggestions(picture: FaceImage | None) -> list[SearchHit]:
    try:
        return persons_like(picture, SUGGESTIONS) if picture else []
    except RecognitionError as error:
        logger.warning("No suggestions on a person's page: %s", error)
        return []


def show(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    """Render a page about people with the user's rights; 400 with a refused form."""
    rights = {f"may_{name}": may(request, permission) for name, permission in RIGHTS.items()}
    forms = [context[name] for name in ("form", "pictures_form") if name in context]
    refused = any(form.is_bound and form.errors for form in forms)
    shared = rights | {"recognition": get_settings(), "trash_days": settings.TRASH_DAYS}
    shared["from_page"] = from_page(request)  # of the person's pictures, which acts lead back to
    template, status = f"enrollment/people/{name}.html", 400 if refused else 200
    response = render(request, template, shared | context, status=status)
    patch_cache_control(response, private=True, no_cache=True)
    return response
