"""The pages that list the enrolled persons, find them while one types, and enrol new ones."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.html import format_html
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_safe

from enrollment import corrections, enrolling
from enrollment.exceptions import PersonMerged, PersonNotFound
from enrollment.gallery import (
    DUE_SOON,
    filtered_persons,
    get_person,
    persons_expiring,
    shown_persons,
    shown_slice,
    sorted_persons,
    suggested_persons,
)
from enrollment.models import Person
from enrollment.pages.people import enroll, show
from enrollment.pages.people_forms import AddPicturesForm, DetailsForm, GalleryForm
from enrollment.pages.people_page import people_page
from enrollment.web import Act, owner_of, say_mistakable, undecided
from recognition.api.access import may

PERSONS_A_PAGE: Final = 60
SUGGESTED: Final = 8
LONGEST_TEXT: Final = 200  # of what is looked for
NEXT_PERSON: Final = "next_person"  # of the session: what the next new person begins with


@people_page(Act.BROWSE)
@require_safe
def gallery(request: HttpRequest) -> HttpResponse:
    """List the enrolled persons, page by page."""
    data = request.GET
    form = GalleryForm(data)
    text, filters, order = form.choices()
    pages = Paginator(sorted_persons(filtered_persons(text, filters), order), PERSONS_A_PAGE)
    page = pages.get_page(data.get("page"))
    page.object_list = shown_slice(page.object_list, order)
    context = {
        "form": form,
        "q": text,
        "page": page,
        "filters": filters,
        "listed": [
            ("page", page.number),
            *((name, data[name]) for name in form.fields if data.get(name)),
        ],
        "expiring": 0 if "expiring" in filters else persons_expiring(DUE_SOON).count(),
    }
    return show(request, "gallery", context)


@people_page(Act.BROWSE)
@require_safe
def suggest(request: HttpRequest) -> HttpResponse:
    """Return whom somebody who types `q` may mean, as JSON, for `person-field.js`."""
    text = request.GET.get("q", "")[:LONGEST_TEXT]
    persons = [_suggestion(each) for each in suggested_persons(text, SUGGESTED)]
    response = JsonResponse({"persons": persons})
    patch_cache_control(response, private=True, no_store=True)
    return response


def _suggestion(person: Person) -> dict[str, object]:
    picture = person.shown_picture
    return {
        "key": person.pk,
        "person_id": person.person_id,
        "name": person.name,
        "pictures": person.picture_count,
        "face": f"{reverse('picture', args=[picture])}?size=face" if picture else None,
        "page": reverse("person", args=[person.pk]),
    }


@people_page(Act.ADD_PERSON)
@require_http_methods(["GET", "HEAD", "POST"])
def new_person(request: HttpRequest) -> HttpResponse:
    """Create a person, and enrol the pictures given.

    Pictures of a form that is refused are kept for its next try. “Save and add another” shows an
    empty form again, with the legal basis and the last day of the one before.
    """
    data = request.POST or None
    form = DetailsForm(data, initial=request.session.pop(NEXT_PERSON, None))
    pictures = AddPicturesForm(data, request.FILES or None)
    if request.method == "POST" and form.is_valid() and pictures.is_valid():
        made = corrections.create_person(**form.cleaned_data)
        say_mistakable(request, made)
        answer = redirect("person", made.pk)
        if may(request, Act.ADD_PICTURES):
            answer = enroll(request, made, pictures) or answer
        return _another(request, made, form) if "another" in request.POST else answer
    context: dict[str, Any] = {"form": form}
    if may(request, Act.ADD_PICTURES):
        context |= {"pictures_form": pictures} | _kept(request, pictures)
    if form.is_bound and may(request, Act.BROWSE):
        context["taken"] = _who_has(form.data.get("person_id", ""))
    return show(request, "details", context)


def _another(request: HttpRequest, made: Person, form: DetailsForm) -> HttpResponse:
    """Say who was enrolled, and show the form for somebody else."""
    page, text = reverse("person", args=[made.pk]), gettext("Enrolled:")
    messages.success(request, format_html('{} <a href="{}">{}</a>', text, page, made))
    if waits := undecided(request, made):
        page, text = reverse("person-faces", args=[made.pk]), gettext("Choose the face…")
        messages.warning(request, format_html('{} <a href="{}">{}</a>', waits, page, text))
    carried = {name: form.data.get(name, "") for name in ("legal_basis", "keep_until")}
    request.session[NEXT_PERSON] = carried
    return redirect("person-new")


def _kept(request: HttpRequest, pictures: AddPicturesForm) -> dict[str, Any]:
    """Keep the pictures of a refused form; return the context that says which."""
    token, owner = request.POST.get("kept", ""), owner_of(request)
    if pictures.is_bound and pictures.is_valid() and pictures.cleaned_data["pictures"]:
        token = enrolling.keep_files(owner, pictures.cleaned_data["pictures"], token)
    return {"kept": token, "kept_names": enrolling.chosen_names(owner, token)}


def _who_has(person_id: str) -> Person | None:
    """Return who has the id, or whom it stands for, annotated for a list."""
    try:
        found = get_person(person_id)
    except PersonMerged as error:
        found = get_person(error.person_id)
    except PersonNotFound:
        return None
    return next(iter(shown_persons([found.pk])), None)
