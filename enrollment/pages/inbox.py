"""The inbox: what needs a person, one card at a time or several together, with undo.

All works without JavaScript. With it the browser has the next cards before they are shown: each answer
to an act brings them anew, since the act may have changed whom they show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_cache_control
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_http_methods, require_POST

from enrollment import corrections, inbox
from enrollment.gallery import person_typed
from enrollment.inbox import Action, Answer, Filters, Settled
from enrollment.models import Person, TrashItem
from enrollment.pages.inbox_cards import OF_PERSONS, shown_cards
from enrollment.pages.inbox_forms import SiftForm
from enrollment.pages.people_forms import number_of
from enrollment.pages.views import FRAGMENT_HEADER
from enrollment.web import (
    Act,
    acts_to_settle,
    error_text,
    may_undo,
    say_mistakable,
    searchable_by,
)
from recognition.api.access import lacking_permission, may, page_permission
from recognition.exceptions import RecognitionError

AHEAD: Final = 4  # cards that a browser has: the one shown, and those that come next
LISTED: Final = 24
MOST_PAGES: Final = 1000  # of the list
MOST_UNDONE: Final = 20  # acts of a session
MOST_SKIPPED: Final = 500
_SESSION: Final = "inbox"


@dataclass(slots=True)
class Desk:
    """What a session remembers of its work: acts that can be undone, and the cards put aside."""

    acts: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, request: HttpRequest) -> Desk:
        return cls(**request.session.get(_SESSION, {}))

    def keep(self, request: HttpRequest) -> None:
        self.acts, self.skipped = self.acts[-MOST_UNDONE:], self.skipped[-MOST_SKIPPED:]
        request.session[_SESSION] = asdict(self)


@page_permission(Act.BROWSE)
@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """Show the first card, or a list of them; a POST settles or skips those that it names."""
    if request.method != "POST":
        return _whole(request)
    is_done = _act(request)
    if request.headers.get(FRAGMENT_HEADER):
        back = () if is_done else request.POST.getlist("key")
        return _fragment(request, back=back, is_refused=not is_done)
    # What was ticked and typed stays where it is to be put right.
    return redirect(request.get_full_path()) if is_done else _whole(request)


@page_permission(Act.BROWSE)
@require_POST
def undo(request: HttpRequest) -> HttpResponse:
    """Take back the last act of this session; its cards come back."""
    desk = Desk.of(request)
    back: list[str] = []
    if desk.acts:
        back = _take_back(request, desk, desk.acts.pop())
        desk.keep(request)
    else:
        messages.error(request, gettext("There is nothing to undo."))
    if request.headers.get(FRAGMENT_HEADER):
        return _fragment(request, back=back)
    query = request.GET.urlencode()
    return redirect(f"{reverse('inbox')}?{query}" if query else "inbox")


# Acting


def _act(request: HttpRequest) -> bool:
    """Do what the form says with the cards that it names; return whether all of it was done."""
    keys = request.POST.getlist("key")
    desk = Desk.of(request)
    act, _colon, person = request.POST.get("act", "").partition(":")
    is_done = True
    if act == "again":
        desk.skipped.clear()
    elif not keys:
        messages.error(request, gettext("No card was chosen. Tick some, then say what to do."))
        is_done = False
    elif act == "skip":
        desk.skipped += keys
        desk.acts.append({"keys": keys})
        messages.success(request, gettext("Skipped."))
    else:
        likely = act == "likeliest"
        answers = _likeliest(request, keys) if likely else _chosen(request, keys, act, person)
        is_done = bool(answers) and _settle(request, desk, answers)
    desk.keep(request)
    return is_done


def _likeliest(request: HttpRequest, keys: Sequence[str]) -> list[Answer]:
    """Return what is likeliest for each card, one answer for those of which it is the same."""
    shown = inbox.cards_of(keys, searchable_by(request))
    for key in keys:
        if key not in {each.key for each in shown}:
            messages.error(request, inbox.card_not_found(key).message)
    together: dict[tuple[Action, Person | None], list[str]] = {}
    for each in shown:
        whom = each.candidates[0].person if each.candidates else None
        # Of somebody new nobody said what they are called.
        lacks = each.likeliest in OF_PERSONS and whom is None
        if lacks or each.likeliest in (None, Action.NEW):
            text = gettext("No answer is likely here, so this card was left: %(why)s")
            messages.error(request, text % {"why": each.why})
            continue
        person = whom if each.likeliest in OF_PERSONS else None
        together.setdefault((each.likeliest, person), []).append(each.key)
    return [Answer(some, action, person) for (action, person), some in together.items()]


def _chosen(request: HttpRequest, keys: Sequence[str], act: str, person: str) -> list[Answer]:
    """Return the answer that the form names; none after saying what is wrong with it."""
    try:
        action = _action(act)
        if action in OF_PERSONS:
            whom = _person(person, request.POST.get("person_id", ""))
            return [Answer(keys, action, whom)]
    except (RecognitionError, ValidationError) as error:
        messages.error(request, error_text(error))
        return []
    new = {name: request.POST.get(name, "") for name in ("person_id", "name")}
    return [Answer(keys, action, new=new if action == Action.NEW else None)]


def _settle(request: HttpRequest, desk: Desk, answers: Sequence[Answer]) -> bool:
    """Settle the cards by these answers, which count as one act, and say what was done."""
    for answer in answers:
        for needed in {act for key in answer.keys for act in acts_to_settle(key, answer.action)}:
            if not may(request, needed):
                raise PermissionDenied(lacking_permission(needed))
    keys: list[str] = []
    items: list[int] = []
    done = inbox.settle_each(answers, whole_group="one" not in request.POST)
    for answer, settled in zip(answers, done, strict=True):
        if isinstance(settled, RecognitionError | ValidationError):
            messages.error(request, error_text(settled))
        else:
            if answer.action == Action.NEW and settled.person:
                say_mistakable(request, settled.person)
            messages.success(request, _in_words(answer.action, settled))
            keys += answer.keys
            items += [item.pk for item in settled.undo]
    if keys:
        desk.acts.append({"keys": keys, "items": items})
    return not any(isinstance(each, Exception) for each in done)


def _action(act: str) -> Action:
    if act not in set(Action):
        raise ValidationError(gettext("No answer was chosen. Choose one of those on the card."))
    return Action(act)


def _person(key: str, person_id: str) -> Person:
    number = number_of(key)
    if number is None:
        return person_typed(person_id)
    # Or whom that one was merged into since the card was shown.
    found = Person.objects.filter(Q(pk=number) | Q(merged_ids__former_pk=number)).first()
    if found is None:
        raise ValidationError(gettext("This person is not enrolled any more. Reload the page."))
    return found


def _in_words(act: str, settled: Settled) -> str:
    facts = {"count": settled.count, "person": settled.person, "added": settled.pictures}
    match act:
        case Action.ASSIGN | Action.NEW if settled.pictures:
            text = ngettext(
                "%(person)s has %(added)d face more.",
                "%(person)s has %(added)d faces more.",
                settled.pictures,
            )
            if settled.count > settled.pictures:
                text += " " + gettext("These are the best of %(count)d, and all are settled.")
        case Action.MERGE:
            text = gettext("Both are %(person)s now.")
        case Action.CONFIRM | Action.ASSIGN:
            text = ngettext(
                "%(count)d card was settled: right as it is.",
                "%(count)d cards were settled: right as they are.",
                settled.count,
            )
        case Action.DELETE:
            text = ngettext(
                "%(count)d picture was deleted.", "%(count)d pictures were deleted.", settled.count
            )
        case _:
            text = ngettext(
                "%(count)d face was discarded.", "%(count)d faces were discarded.", settled.count
            )
    return text % facts


def _take_back(request: HttpRequest, desk: Desk, act: dict[str, Any]) -> list[str]:
    """Undo the act, and say so; return the keys of its cards. What cannot be undone is said, too."""
    keys: list[str] = act["keys"]
    if "items" not in act:
        desk.skipped = [key for key in desk.skipped if key not in keys]
        messages.success(request, gettext("Undone: what you skipped is back."))
        return keys
    items = list(TrashItem.objects.filter(pk__in=act["items"]).order_by("-pk"))
    if not all(may_undo(request, item) for item in items):
        raise PermissionDenied
    done = corrections.undo_each(items)
    problems = [error_text(each) for each in done if isinstance(each, Exception)]
    if not items:
        problems.append(gettext("This cannot be undone any more: the trash does not keep it."))
    for problem in problems:
        messages.error(request, problem)
    if not problems:
        text = ngettext("Undone: the card is back.", "Undone: %(count)d cards are back.", len(keys))
        messages.success(request, text % {"count": len(keys)})
    return keys


# Showing


def _whole(request: HttpRequest) -> HttpResponse:
    is_list = request.GET.get("view") == "list"
    number = min(number_of(request.GET.get("page")) or 1, MOST_PAGES) if is_list else 1
    context = _shared(request)
    limit = LISTED if is_list else AHEAD
    wanted: dict[str, Any] = {
        "leave_out": () if is_list else context["skipped"],
        "persons": searchable_by(request),
    }
    # One more than is shown tells whether there is a next page.
    wanted |= {"limit": limit + 1}
    found = inbox.cards(context["filters"], offset=(number - 1) * LISTED, **wanted)
    if not found and number > 1:  # the last of this page were settled
        number, found = 1, inbox.cards(context["filters"], **wanted)
    context |= {
        "is_list": is_list,
        "ticked": request.GET.get("tick") == "all",
        "refused": request.POST.getlist("key"),
        "typed": {name: request.POST.get(name, "") for name in ("person_id", "name")},
        "cards": shown_cards(request, found[:limit]),
        "page": number,
        "goes_on": len(found) > limit,
    }
    return _rendered(request, "list" if is_list else "one", context)


def _fragment(
    request: HttpRequest, *, back: Sequence[str] = (), is_refused: bool = False
) -> HttpResponse:
    """Answer the page's script: what was done, how many cards are left, and the next of them."""
    context = _shared(request)
    persons = searchable_by(request)
    leave_out = [*context["skipped"], *request.POST.getlist("have"), *back]
    found = inbox.cards_of([*dict.fromkeys(back)], persons)
    found += inbox.cards(context["filters"], limit=AHEAD, leave_out=leave_out, persons=persons)
    context |= {"cards": shown_cards(request, found), "is_refused": is_refused, "back": back}
    response = _rendered(request, "answer", context)
    response.headers[FRAGMENT_HEADER] = "1"
    return response


def _shared(request: HttpRequest) -> dict[str, Any]:
    desk = Desk.of(request)
    form = SiftForm(request.GET)
    filters = form.filters()
    is_sifted = filters != Filters()
    left = inbox.count(filters)
    return {
        "form": form,
        "filters": filters,
        "is_sifted": is_sifted,
        "skipped": desk.skipped,
        "undoable": bool(desk.acts),
        "left": left,
        "left_of_all": inbox.count() if is_sifted else left,
    }


def _rendered(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    response = render(request, f"enrollment/inbox/{name}.html", context)
    patch_cache_control(response, private=True, no_store=True)
    return response
