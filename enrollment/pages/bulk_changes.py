"""The page that changes, merges or deletes many persons at once, after it has told how many.

A GET shows what will happen and asks for the values; a POST does it. Whom it is about stands in the
form: the keys of the ticked persons, or the filter of the list and how many it found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from enrollment import corrections
from enrollment.corrections import MOST_CHANGED, MOST_DELETED, MOST_MERGED, Done
from enrollment.gallery import (
    better_kept,
    filtered_persons,
    pictures_of,
    shown_persons,
    sorted_persons,
)
from enrollment.models import Consent, FaceImage, Person, Purpose, erased_at
from enrollment.pages.gallery import PERSONS_A_PAGE
from enrollment.pages.people import show
from enrollment.pages.people_forms import GalleryForm, number_of
from enrollment.pages.people_page import people_page
from enrollment.web import Act, DayInput, say_done
from recognition.api.access import lacking_permission, may

FACES_SHOWN: Final = 12
PICTURES_SHOWN: Final = 4  # of each person whom a merge shows
ALL: Final = "all"  # whom it is about: all that the filter finds
PAGE: Final = "page"  # all of the page of the list
MOST_PAGES: Final = 10**9  # SQL counts rows no further than 2**63


class BasisForm(forms.ModelForm):
    class Meta:
        model = Person
        fields = ["legal_basis"]


class LastDayForm(forms.ModelForm):
    keep_until = forms.DateField(
        label=_("Keep until"),
        required=False,
        help_text=Person._meta.get_field("keep_until").help_text,
        widget=DayInput(),
    )

    class Meta:
        model = Person
        fields = ["keep_until"]


class PurposesForm(forms.Form):
    purposes = forms.ModelMultipleChoiceField(
        Purpose.objects.all(), label=_("Purposes"), widget=forms.CheckboxSelectMultiple
    )
    given = forms.TypedChoiceField(
        label=_("What to do with them"),
        choices=[("1", _("Allow them")), ("0", _("Allow them no more"))],
        coerce=lambda value: value == "1",
        initial="1",
        widget=forms.RadioSelect,
    )


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing to do with many persons: its right, limit, form, and what does it."""

    title: Any
    right: Act
    most: int
    form: type[forms.BaseForm] | None
    carry_out: Callable[[list[int], dict[str, Any]], Done]


def _delete(keys: list[int], _values: dict[str, Any]) -> Done:
    return corrections.delete_persons(keys)


def _merge(keys: list[int], values: dict[str, Any]) -> Done:
    persons = Person.objects.in_bulk(keys)
    kept = persons.pop(values["keep"])
    return corrections.merge_persons(kept, *persons.values())


DEEDS: Final = {
    "legal_basis": Deed(
        _("Change the legal basis"),
        Act.CHANGE_PERSON,
        MOST_CHANGED,
        BasisForm,
        lambda keys, values: corrections.change_persons(keys, **values),
    ),
    "keep_until": Deed(
        _("Change the last day"),
        Act.CHANGE_PERSON,
        MOST_CHANGED,
        LastDayForm,
        lambda keys, values: corrections.change_persons(keys, **values),
    ),
    "purposes": Deed(
        _("Change the purposes"),
        Act.CHANGE_PERSON,
        MOST_CHANGED,
        PurposesForm,
        lambda keys, values: corrections.set_purposes(keys, **values),
    ),
    "merge": Deed(_("Merge"), Act.DELETE_PERSON, MOST_MERGED, None, _merge),
    "delete": Deed(_("Delete"), Act.DELETE_PERSON, MOST_DELETED, None, _delete),
}


@people_page(Act.BROWSE)
@require_http_methods(["GET", "HEAD", "POST"])
def many(request: HttpRequest) -> HttpResponse:
    """Tell how many persons it is about, and do to all of them what was chosen."""
    data = request.POST or request.GET
    name = data.get("act", "")
    deed = DEEDS.get(name)
    keys = _chosen_keys(data)
    if deed is None or not keys:
        messages.error(
            request, gettext("Nobody was chosen. Tick some people, then say what to do.")
        )
        return redirect(_list_address(data))
    if not may(request, deed.right):
        raise PermissionDenied(lacking_permission(deed.right))
    corrections.check_number(len(keys), deed.most)
    if name == "purposes" and not Purpose.objects.exists():
        text = gettext("There are no purposes yet. The administrator makes them in the admin.")
        messages.error(request, text)
        return redirect(_list_address(data))
    if name == "merge" and len(keys) < 2:
        messages.error(request, gettext("Choose two people or more to merge."))
        return redirect(_list_address(data))
    form = deed.form(request.POST if "count" in request.POST else None) if deed.form else None
    values = _values(request, form, keys, name)
    if values is not None and data.get("count") == str(len(keys)):
        done = deed.carry_out(keys, values)
        _say(request, name, done)
        return redirect(_list_address(data))
    if values is not None:
        text = ngettext(
            "By now it is %(count)d person. Look again, then confirm.",
            "By now it is %(count)d people. Look again, then confirm.",
            len(keys),
        )
        messages.warning(request, text % {"count": len(keys)})
    return show(request, "many", _context(data, name, keys, form))


def _values(request: HttpRequest, form: Any, keys: list[int], name: str) -> dict[str, Any] | None:
    """Return what the user gave; None when it must be asked for first."""
    if request.method != "POST":
        return None
    if form is not None:
        return form.cleaned_data if form.is_valid() else None
    if name == "merge":
        keep = number_of(request.POST.get("keep"))
        return {"keep": keep} if keep in keys else None
    return {}


def _chosen_keys(data: QueryDict) -> list[int]:
    """Return the primary keys of the persons in question who are there."""
    text, filters, order = GalleryForm(data).choices()
    found = sorted_persons(filtered_persons(text, filters), order)
    whom = data.get("whom")
    if whom == PAGE:
        page = number_of(data.get("page")) or 1
        start = (min(page, MOST_PAGES) - 1) * PERSONS_A_PAGE
        found = found[start : start + PERSONS_A_PAGE]
    elif whom != ALL:
        given = filter(None, map(number_of, data.getlist("person")))
        found = sorted_persons(Person.objects.filter(pk__in=list(given)[:MOST_CHANGED]), order)
    return list(found.values_list("pk", flat=True))


def _list_address(data: QueryDict) -> str:
    """Return the address of the list as it was filtered and sorted."""
    kept = QueryDict(mutable=True)
    for name in ("page", *GalleryForm().fields):
        if value := data.get(name):
            kept[name] = value
    return f"{reverse('people')}?{kept.urlencode()}" if kept else reverse("people")


def _context(data: QueryDict, name: str, keys: list[int], form: Any) -> dict[str, Any]:
    persons = Person.objects.filter(pk__in=keys)
    is_merge = name == "merge"
    shown = shown_persons(keys if is_merge else keys[:FACES_SHOWN])
    context = {
        "act": name,
        "title": DEEDS[name].title,
        "count": len(keys),
        "pictures": FaceImage.objects.filter(person__in=keys).count(),
        "persons": shown,
        "hidden": _hidden(data, keys),
        "back": _list_address(data),
        "notes": _notes(name, persons),
        "until": erased_at(persons) if name in ("merge", "delete") else None,
    }
    if form is not None:
        context["form"] = form
    if is_merge:
        context["both"] = [(each, pictures_of(each)[:PICTURES_SHOWN]) for each in shown]
        context["suggested"] = better_kept(shown)
    return context


def _hidden(data: QueryDict, keys: list[int]) -> list[tuple[str, Any]]:
    """Return the fields by which a POST is about the same persons."""
    fields = [(name, data[name]) for name in ("page", *GalleryForm().fields) if data.get(name)]
    if data.get("whom") == ALL:
        return [("whom", ALL), *fields]
    return [*(("person", key) for key in keys), *fields]


def _notes(name: str, persons: Any) -> list[str]:
    """Return what one should know before: whose values are replaced, who is left out."""
    match name:
        case "legal_basis":
            count = persons.exclude(legal_basis="").count()
            text = ngettext(
                "%(count)d of them has a legal basis, which is replaced.",
                "%(count)d of them have a legal basis, which is replaced.",
                count,
            )
        case "keep_until":
            count = persons.exclude(keep_until=None).count()
            text = ngettext(
                "%(count)d of them has a last day, which is replaced.",
                "%(count)d of them have a last day, which is replaced.",
                count,
            )
        case "purposes":
            in_force = Consent.objects.in_force().filter(person=OuterRef("pk"))
            count = persons.filter(~Exists(in_force)).count()
            text = ngettext(
                "%(count)d of them has no consent in force, so nothing changes for them: record one on "
                "their page first.",
                "%(count)d of them have no consent in force, so nothing changes for them: record one on "
                "their pages first.",
                count,
            )
        case _:
            return []
    return [text % {"count": count}] if count else []


def _say(request: HttpRequest, name: str, done: Done) -> None:
    counts = {"count": done.persons, "pictures": done.pictures, "kept": done.person}
    match name:
        case "delete":
            text = ngettext(
                "%(count)d person was deleted, pictures: %(pictures)d.",
                "%(count)d people were deleted, pictures: %(pictures)d.",
                done.persons,
            )
        case "merge":
            text = ngettext(
                "%(count)d person is now part of %(kept)s; pictures moved: %(pictures)d.",
                "%(count)d people are now part of %(kept)s; pictures moved: %(pictures)d.",
                done.persons,
            )
        case _:
            text = ngettext(
                "%(count)d person was changed.", "%(count)d people were changed.", done.persons
            )
    say_done(request, text % counts, done)
