"""The pages that list the enrolled persons, find them while one types, and enrol new ones."""

from __future__ import annotations

from typing import Final

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_http_methods, require_safe

from enrollment import enrolling
from enrollment.gallery import (
    DUE_SOON,
    filtered_persons,
    persons_expiring,
    shown_slice,
    sorted_persons,
    suggested_persons,
)
from enrollment.models import Person
from enrollment.pages.people import enroll, people_page, show
from enrollment.pages.people_forms import AddPicturesForm, DetailsForm, GalleryForm
from enrollment.web import Act, say_mistakable
from recognition.api.access import may

PERSONS_A_PAGE: Final = 60
SUGGESTED: Final = 8
LONGEST_TEXT: Final = 200  # of what is looked for


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
        "face": f"{reverse('picture', args=[picture])}?size=icon" if picture else None,
        "page": reverse("person", args=[person.pk]),
    }


@people_page(Act.ADD_PERSON)
@require_http_methods(["GET", "HEAD", "POST"])
def new_person(request: HttpRequest) -> HttpResponse:
    """Create a person, and enrol the pictures given."""
    form = DetailsForm(request.POST or None)
    pictures = AddPicturesForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid() and pictures.is_valid():
        made = enrolling.create_person(**form.cleaned_data)
        say_mistakable(request, made)
        if pictures.cleaned_data["pictures"] and may(request, Act.ADD_PICTURES):
            return enroll(request, made, pictures)
        return redirect("person", made.pk)
    context = {"form": form}
    if may(request, Act.ADD_PICTURES):
        context["pictures_form"] = pictures
    return show(request, "details", context)
